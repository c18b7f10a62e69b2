"""Every number is worked on once, whatever the number of threads; errors come back."""

import os

import pytest

from mgnet.threads import forked, share


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [0, 1, 5, 64])
def test_parts_are_the_whole(size, threads):
    seen = []
    share(lambda start, stop: seen.extend(range(start, stop)), size, threads)
    assert sorted(seen) == list(range(size))


def test_errors_of_another_thread_come_back():
    def work(start, stop):
        if start:
            raise KeyError(start)

    with pytest.raises(KeyError):
        share(work, 4, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_is_seen_in_the_child_alone():
    child = os.fork()
    if child == 0:
        os._exit(0 if forked() else 1)
    assert os.waitpid(child, 0)[1] == 0 and not forked()
