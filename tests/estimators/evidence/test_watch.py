"""A watch ends a training when its time is over, and tells about members before that."""

import pytest

from mgnet.estimators.evidence import watch as module
from mgnet.estimators.evidence.watch import Watch


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_time_runs_out_once_and_for_all(clock):
    told = []
    watch = Watch(5.0, lambda *values: told.append(values))
    assert not watch.begins(0, 0, 3) and not watch.stops() and not watch.ended
    clock.now += 5.0
    assert watch.seconds == 5.0 and not watch.begins(0, 1, 3)
    clock.now += 0.5
    assert watch.stops() and watch.ended and watch.begins(0, 2, 3)
    clock.now -= 5.0
    assert watch.stops() and not watch.interrupted
    assert told == [(0.0, 0, 0, 3), (5.0, 0, 1, 3)]


def test_without_limits(clock):
    watch = Watch()
    clock.now = 1e12
    assert not watch.begins(7, 0, 1) and not watch.stops()


@pytest.mark.parametrize("parts", [1, 4])
def test_parts_share_the_time(clock, parts):
    """What one leaves the others have, too; Ctrl-C ends all."""
    watch = Watch(8.0)
    for number in range(parts):
        watch.begin_part(number, parts)
        assert watch.part == (number, parts) and not watch.ended
        left = 8.0 - watch.seconds
        clock.now += left / (parts - number)
        assert not watch.stops()
        clock.now += 1e-6
        assert watch.stops()
    watch.begin_part(parts - 1, parts)
    assert not watch.ended and watch.stops()
    watch.interrupted = True
    watch.begin_part(0, parts)
    assert watch.ended
