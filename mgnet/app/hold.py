"""Hold back Ctrl-C, SIGTERM and SIGHUP where they would lose data or leave files unfinished."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["Hold", "Noted"]

NAMES = "SIGINT", "SIGTERM", "SIGHUP"  # the last one when a terminal is closed; not on Windows
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Hold:
    """A context that delays signals: they raise KeyboardInterrupt only in interruptible parts.

    A signal still has the effect of its earlier handler; a signal without a Python handler is not
    affected. Threads other than the main thread have no handlers, so no signals are held back
    there.

    Attributes
    ----------
    pending : bool
        Whether a signal is waiting.

    Examples
    --------
    >>> former = signal.signal(signal.SIGINT, signal.default_int_handler)
    >>> with Hold() as hold:
    ...     signal.raise_signal(signal.SIGINT)
    >>> restored = signal.signal(signal.SIGINT, former)
    >>> hold.pending
    True
    """

    def __init__(self) -> None:
        self.pending = False
        self._open = False
        self._raised = False  # in the interruptible part that is active now
        self._former: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Hold:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._former[number] = handler
                    signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        try:
            self._former[number](number, frame)
        except KeyboardInterrupt:
            if self._open:
                self._open = False  # further signals wait while that part ends
                self._raised = True
                raise
            self.pending = True

    def check(self) -> None:
        """Raise KeyboardInterrupt for a pending signal, or for one that other code has caught.

        Raises
        ------
        KeyboardInterrupt
            If there is such a signal.
        """
        if self.pending or self._raised:
            self.pending = self._raised = False
            raise KeyboardInterrupt

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A part that a signal interrupts immediately; a pending signal interrupts it at its start.

        Libraries may catch the exception or convert it to another one; the part still ends with
        KeyboardInterrupt.

        Raises
        ------
        KeyboardInterrupt
            If a signal arrives or is pending.
        """
        try:
            self._open = True
            self.check()
            yield
            self._open = False
            self.check()
        except Exception:
            if self._raised:
                raise KeyboardInterrupt from None
            raise
        finally:
            self._open = self._raised = False


class Noted:
    """A context in which SIGTERM and SIGHUP act like Ctrl-C; it lists all signals that arrive.

    Signals that are ignored are not changed, and neither is Ctrl-C if it has a handler other than
    Python's.

    Attributes
    ----------
    numbers : list of int
        The signals that arrived.
    raising : bool
        Whether a signal also raises KeyboardInterrupt.

    Examples
    --------
    >>> with Noted() as noted:
    ...     noted.raising = False
    ...     signal.raise_signal(signal.SIGTERM)
    >>> noted.numbers == [signal.SIGTERM]
    True
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.raising: bool = True
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Noted:
        if threading.current_thread() is threading.main_thread():  # other threads have no handlers
            for number in SIGNALS:
                former = signal.getsignal(number)
                plain = number != signal.SIGINT or former is signal.default_int_handler
                if plain and former is not signal.SIG_IGN:
                    self._former[number] = former or signal.SIG_DFL
                    signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def leave_to_system(self) -> None:
        """From now on, let a signal end the process immediately."""
        for number in self._former:
            signal.signal(number, signal.SIG_DFL)

    def end_process(self) -> None:
        """End the process with the code of its signal, if there was one.

        After a KeyboardInterrupt that was caught has passed through an `exec` of source text,
        Python itself would end the process by SIGINT, whatever the exit code.
        """
        if self.numbers:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(128 + self.numbers[0])

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.numbers.append(number)
        if self.raising:
            raise KeyboardInterrupt
