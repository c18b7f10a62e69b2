"""Progress and time limit of the training of an ensemble."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

__all__ = ["Watch"]


class Watch:
    """Reports the progress of a training run, and ends the run when its time is up.

    Parameters
    ----------
    seconds : float
        Time limit, counted from the creation of the watch.
    tell : callable, optional
        Function of `(seconds, level, member, members)`, called before each member is trained.

    Attributes
    ----------
    ended : bool
        Whether the training had to end before it was finished.
    interrupted : bool
        Whether Ctrl-C ended the training.
    part : (int, int)
        Arguments of the last `begin_part`.

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
        """Give the next training run an equal share of the remaining time.

        Parameters
        ----------
        number : int
            Number of the training run, counted from 0.
        parts : int
            Number of training runs.
        """
        self._until = self.seconds + (self.limit - self.seconds) / (parts - number)
        self.part = number, parts
        self.ended = self.interrupted

    @property
    def seconds(self) -> float:
        """Seconds since the watch was created."""
        return time.perf_counter() - self.began

    def begins(self, level: int, member: int, members: int) -> bool:
        """Note that a member is about to be trained; return whether there is no time for it."""
        if not self.stops() and self.tell is not None:
            self.tell(self.seconds, level, member, members)
        return self.ended

    def stops(self) -> bool:
        """Whether the time is up."""
        self.ended = self.ended or self.seconds > self._until
        return self.ended
