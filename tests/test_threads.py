"""Every number is worked on once, whatever the number of threads; errors come back."""

import pytest

from mgnet.threads import share


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
