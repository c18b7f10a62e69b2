"""Ctrl-C, SIGTERM, SIGHUP: noted, and held where they would lose something or leave half."""

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

NAMES = "SIGINT", "SIGTERM", "SIGHUP"  # the last one of a terminal that is closed, not on Windows
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Hold:
    """Within it a signal is noted; it raises KeyboardInterrupt in parts that may be interrupted.

    What the signals did before tells what they mean: a signal without a Python handler is left as
    it is. Threads but the main one have no handlers; there nothing is held.

    Attributes
    ----------
    pending : bool
        Whether a signal waits.

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
        self._raised = False  # in the part that is open now
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
                self._open = False  # whatever comes next, while that part ends, waits
                self._raised = True
                raise
            self.pending = True

    def check(self) -> None:
        """Raise what is pending, or has been raised and caught by somebody.

        Raises
        ------
        KeyboardInterrupt
        """
        if self.pending or self._raised:
            self.pending = self._raised = False
            raise KeyboardInterrupt

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A part that a signal may interrupt at once; one that is pending does so first.

        Libraries may swallow the exception or make another one of it; it ends the part anyway.

        Raises
        ------
        KeyboardInterrupt
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
    """Within it SIGTERM and SIGHUP do what Ctrl-C does; all are listed, whoever catches the error.

    A signal that is ignored is left as it is, and Ctrl-C that somebody else handles.

    Attributes
    ----------
    numbers : list of int
        The signals that came.
    raising : bool
        Whether a signal raises KeyboardInterrupt, too.

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
        if threading.current_thread() is threading.main_thread():  # others have no handlers
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
        """From now on a signal ends the process at once."""
        for number in self._former:
            signal.signal(number, signal.SIG_DFL)

    def end_process(self) -> None:
        """If there was a signal, end with its code.

        Python itself would end by SIGINT, whatever the code, where a KeyboardInterrupt that was
        caught had passed through `exec` of a text.
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
