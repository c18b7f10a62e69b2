"""Choose which state a solve returns if its smoothers may raise the objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

__all__ = ["BestState"]

State = Any


class BestState:
    """Keep the state with the lowest value of a merit function, if there is one.

    Parameters
    ----------
    merit : callable or None
        Function `state -> value`; without it no state is stored.

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
        """Evaluate a state, which is computed only if there is a merit function."""
        if self.merit is None:
            return
        u = state()
        self.values.append(self.merit(u))
        if self.values[-1] < self.least:
            self.least, self._state = self.values[-1], u

    def state(self, last: State) -> State:
        """The best state, or the last state if it is as good up to rounding."""
        if self._state is None or self.values[-1] <= self.least + 1e-12 * abs(self.least):
            return last
        return self._state
