"""What looks on while an ensemble is trained, and may end it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

__all__ = ["Watch"]


class Watch:
    """Tells how far the training is, and ends it when its time is over.

    Parameters
    ----------
    seconds : float
        From now on.
    tell : callable, optional
        `(seconds, level, member, members)`, before each member is trained.

    Attributes
    ----------
    ended : bool
        Whether the training was to end before it was done.
    interrupted : bool
        By Ctrl-C.
    part : (int, int)
        As `begin_part` was told.

    Examples
    --------
    >>> Watch(seconds=60.0).stops()
    False
    """

    def __init__(
        self,
        seconds: float = math.inf,
        tell: Callable[[float, int, int, int], None] | None = None,
    ):
        self.began = time.perf_counter()
        self.limit = seconds
        self.tell = tell
        self.ended = False
        self.interrupted = False
        self.part = 0, 1
        self._until = seconds

    def begin_part(self, number: int, parts: int) -> None:
        """Give the next of some trainings an equal part of the time that is left.

        Parameters
        ----------
        number : int
            Of the training, counted from 0.
        parts : int
            How many there are.
        """
        self._until = self.seconds + (self.limit - self.seconds) / (parts - number)
        self.part = number, parts
        self.ended = self.interrupted

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self.began

    def begins(self, level: int, member: int, members: int) -> bool:
        """Note that a member is to be trained; whether there is no time for it."""
        if not self.stops() and self.tell is not None:
            self.tell(self.seconds, level, member, members)
        return self.ended

    def stops(self) -> bool:
        """Whether the time is over."""
        self.ended = self.ended or self.seconds > self._until
        return self.ended
