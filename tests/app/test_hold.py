"""A hold notes signals, lets them in where it is told, and gives the handlers back."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from mgnet.app.hold import Hold, Noted

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def received(monkeypatch):
    """Both signals raise KeyboardInterrupt, as in the command, and are listed."""
    numbers = []

    def interrupt(number, _frame):
        numbers.append(number)
        raise KeyboardInterrupt

    former = [signal.signal(number, interrupt) for number in SIGNALS]
    yield numbers
    for number, handler in zip(SIGNALS, former, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_held_raises_where_it_may(received, number):
    with Hold() as hold:
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert received == [number, number] and hold.pending
        with pytest.raises(KeyboardInterrupt), hold.interruptible():
            pytest.fail("what is pending comes first")
        assert not hold.pending
        with pytest.raises(KeyboardInterrupt), hold.interruptible():
            signal.raise_signal(number)
            pytest.fail("it raises at once")
        assert not hold.pending
        signal.raise_signal(number)
    assert hold.pending
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)  # nothing is held any more
    with pytest.raises(KeyboardInterrupt):
        hold.check()
    hold.check()


def test_handlers_come_back_also_after_an_error_and_from_holds_in_holds(received):
    former = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ValueError, match="mine"), Hold() as outer, Hold() as inner:
        signal.raise_signal(signal.SIGTERM)
        assert outer.pending and not inner.pending
        raise ValueError("mine")
    assert [signal.getsignal(number) for number in SIGNALS] == former


def test_a_signal_without_a_handler_of_python_is_left_alone():
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Hold() as hold:
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
        assert not hold.pending
    finally:
        signal.signal(signal.SIGTERM, former)


def test_other_threads_hold_nothing():
    def work():
        with Hold() as hold, hold.interruptible():
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor() as pool:
        assert pool.submit(work).result() is signal.getsignal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_a_library_makes_of_an_interrupt_ends_the_part_all_the_same(received, number):
    def swallows(error=None):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if error:
                raise error from None

    with Hold() as hold:
        for error in (None, ImportError("half loaded"), RuntimeError("while tracing")):
            with pytest.raises(KeyboardInterrupt), hold.interruptible():
                swallows(error)
            assert not hold.pending
        with pytest.raises(KeyboardInterrupt), hold.interruptible():
            swallows()
            hold.check()  # as after a sweep
            pytest.fail("a check is enough")
        with pytest.raises(RuntimeError, match="my own"), hold.interruptible():
            raise RuntimeError("my own")


@pytest.mark.parametrize("number", SIGNALS)
def test_both_signals_are_noted_whoever_catches_them(number):
    former = [signal.getsignal(each) for each in SIGNALS]
    for each in SIGNALS:  # under nohup one of them is ignored
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Noted() as noted:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            noted.raising = False
            signal.raise_signal(number)
        assert noted.numbers == [number, number]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        with Noted() as noted:
            signal.raise_signal(number)
        assert noted.numbers == []
    finally:
        for each, handler in zip(SIGNALS, former, strict=True):
            signal.signal(each, handler)
