"""Ctrl-C and SIGTERM, held back where they would lose what there is or leave half of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Hold"]

SIGNALS = signal.SIGINT, signal.SIGTERM


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
                raise
            self.pending = True

    def check(self) -> None:
        """Raise what is pending.

        Raises
        ------
        KeyboardInterrupt
        """
        if self.pending:
            self.pending = False
            raise KeyboardInterrupt

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A part that a signal may interrupt at once; one that is pending does so first.

        Raises
        ------
        KeyboardInterrupt
        """
        try:
            self._open = True
            self.check()
            yield
        finally:
            self._open = False
