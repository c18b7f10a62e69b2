"""Acceptance of a coarse correction.

A line search is any callable `(level, u, d, f, r) -> step length`.
`r = f - A(u)` is the residual at u, so `-<r, d>` is the slope of `J(u) - <f, u>` along d. Step
length 0 refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mgnet import norms, vector
from mgnet.limits import is_number, is_whole, shown

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["Backtracking"]

State = Any


@dataclass(frozen=True)
class Backtracking:
    """Armijo's rule: halve the step until it decreases enough, else refuse.

    Enough is a fraction of what the slope promises. The merit function is `J(u) - <f, u>` when the
    level has an objective, else half the squared residual norm. A direction that does not descend
    is refused. Source: Nocedal and Wright, Numerical Optimization (2006), algorithm 3.1.

    Parameters
    ----------
    decrease : float
        Fraction of the promised decrease, dimensionless, between 0 and 1.
    shrink : float
        Factor between trial steps, between 0 and 1.
    trials : int
        Number of trial steps before the correction is refused.
    dot : callable
        Inner product; replace it where states are spread over MPI ranks.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import Jacobi, Level
    >>> level = Level(lambda u: u, Jacobi(), objective=lambda u: 0.5 * float(u @ u))
    >>> u = np.array([1.0])
    >>> search = Backtracking()
    >>> search(level, u, np.array([-4.0]), None, -u), search(level, u, np.array([1.0]), None, -u)
    (0.25, 0.0)
    """

    decrease: float = 1e-4
    shrink: float = 0.5
    trials: int = 10
    dot: Callable[[State, State], float] = vector.dot

    def __post_init__(self) -> None:
        fractions = (self.decrease, self.shrink)
        inside = all(is_number(each, 0.0, 1.0, open=True) for each in fractions)
        if not inside or not is_whole(self.trials, 1) or not callable(self.dot):
            raise ValueError(
                f"Backtracking got {shown(vars(self), 200)}; it needs decrease and shrink between "
                "0 and 1 and at least one trial, and a function for dot"
            )

    def __call__(self, level: Level, u: State, d: State, f: State | None, r: State) -> float:
        scale = 0
        if level.objective is None:
            start = 0.5 * self.dot(r, r)
            if not 1e-290 < start < math.inf:  # a square out of range; a power of two is exact
                scale = -norms.SHIFT if start > 1.0 else norms.SHIFT
                start = self._half_square(r, scale)
            slope = (
                -2.0 * start
            )  # along the Newton direction; any other is held to the same decrease
        else:
            slope = -self.dot(r, d)
            if not slope < 0.0:
                return 0.0
            start = level.value(u, f, self.dot)
        step = 1.0
        for _ in range(self.trials):
            trial = u + d if step == 1.0 else u + step * d
            value = self._merit(level, trial, f, scale)
            if math.isfinite(value) and value <= start + self.decrease * step * slope:
                return step
            step *= self.shrink
        return 0.0

    def _merit(self, level: Level, u: State, f: State | None, scale: int) -> float:
        if level.objective is not None:
            return level.value(u, f, self.dot)
        return self._half_square(level.residual_at(u, f), scale)

    def _half_square(self, r: State, scale: int) -> float:
        r = norms.times_power_of_two(r, scale) if scale else r
        return 0.5 * self.dot(r, r)
