"""Acceptance of a coarse correction.

A line search is any callable `(level, u, d, f, r) -> step length`.
`r = f - A(u)` is the residual at u, so `-<r, d>` is the slope of `J(u) - <f, u>` along d. A step
length of 0 refuses the correction.
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
    """Armijo's rule: shorten the step until the decrease is sufficient, or refuse the correction.

    The decrease must be at least a fraction of the decrease that the slope predicts. The merit
    function is `J(u) - <f, u>` if the level has an objective, else half the squared residual norm.
    A direction that is not a descent direction is refused. Source: Nocedal and Wright, Numerical
    Optimization (2006), algorithm 3.1.

    Parameters
    ----------
    decrease : float
        Required fraction of the predicted decrease, dimensionless, between 0 and 1.
    shrink : float
        Factor between successive trial steps, between 0 and 1.
    trials : int
        Number of trial steps before the correction is refused.
    dot : callable
        Inner product; replace it if states are distributed over MPI ranks.

    Raises
    ------
    ValueError
        If a parameter is out of its range or dot is not a function.

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
            # The square overflows or underflows; a power of two is exact.
            if not 1e-290 < start < math.inf:
                scale = -norms.SHIFT if start > 1.0 else norms.SHIFT
                start = self._half_square(r, scale)
            slope = (
                -2.0 * start
            )  # slope along the Newton direction, required of any other direction as well
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
