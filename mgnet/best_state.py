"""Which state of a solve is the solution, where smoothers may raise the objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

__all__ = ["BestState"]

State = Any


class BestState:
    """The state with the least value, where there is a merit function.

    Parameters
    ----------
    merit : callable or None
        `state -> value`; without one nothing is seen.

    Examples
    --------
    >>> best = BestState(abs)
    >>> for u in (3.0, -1.0, 2.0):
    ...     best.see(lambda u=u: u)
    >>> best.state(2.0)
    -1.0
    """

    def __init__(self, merit: Callable[[State], float] | None):
        self.merit = merit
        self.values: list[float] = []
        self.least = math.inf
        self._state: State | None = None

    def see(self, state: Callable[[], State]) -> None:
        """Look at a state, which is asked for only where there is a merit function."""
        if self.merit is None:
            return
        u = state()
        self.values.append(self.merit(u))
        if self.values[-1] < self.least:
            self.least, self._state = self.values[-1], u

    def state(self, last: State) -> State:
        """The best; the last one where that is as good to rounding."""
        if self._state is None or self.values[-1] <= self.least + 1e-12 * abs(self.least):
            return last
        return self._state
