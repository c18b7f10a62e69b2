"""BDF2 as a one-step method, whose state is a pair of neighboring solutions.

The two solutions of a pair are a fine step apart on every level; a coarse level has longer gaps
between its pairs, and uses the formula for unequal steps. Source: Falgout, Lecouvez, Woodward, "A
parallel-in-time algorithm for variable step multistep methods", J. Comput. Sci. 37 (2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgnet.depth.mgrit.one_step import OneStep
from mgnet.limits import is_number, is_whole, shown

__all__ = ["BDF2Step", "bdf2"]

Solve = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class BDF2Step:
    """The step from one pair to the next, over a gap of any length.

    Parameters
    ----------
    inner : callable
        The function `solve(t, weight, known, start) -> u`, as in `bdf2`, where u solves the
        equation `u - weight F(t, u) = known`.
    spacing : float
        Time between the two solutions of a pair.

    Examples
    --------
    >>> def solve(t, weight, known, start):  # u' = -u
    ...     return known / (1.0 + weight[:, None])
    >>> step, pair = BDF2Step(solve, 0.5), np.array([[[1.0], [np.exp(-0.5)]]])
    >>> step(np.zeros(1), np.ones(1), pair).round(6).ravel()
    array([0.356531, 0.204898])
    """

    inner: Solve
    spacing: float

    def __call__(self, t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> np.ndarray:
        first, second, near = states[:, 0], states[:, 1], np.full_like(dt, self.spacing)
        gap = dt - near
        if (gap < 0.999999 * self.spacing).any():
            raise ValueError(
                f"bdf2 got a step of {dt.min():g} from pair to pair; with a spacing of "
                f"{self.spacing:g} it must be at least {2.0 * self.spacing:g}"
            )
        third = self._next(t + dt, gap, near, second, first)
        fourth = self._next(t + dt + near, near, gap, third, second)
        return np.stack([third, fourth], axis=1)

    def _next(
        self, t: np.ndarray, h: np.ndarray, before: np.ndarray, last: np.ndarray, old: np.ndarray
    ) -> np.ndarray:
        """The solution at t from `last`, at t - h, and `old`, at t - h - `before`."""
        ratio = h / before
        scale = (1.0 + ratio) / (1.0 + 2.0 * ratio)
        a, b = (1.0 + ratio) * scale, ratio * ratio / (1.0 + 2.0 * ratio)
        shape = (-1, *[1] * (last.ndim - 1))
        return self.inner(t, h * scale, a.reshape(shape) * last - b.reshape(shape) * old, last)


def bdf2(
    solve: Solve,
    initial: np.ndarray,
    pairs: int,
    spacing: float,
    *,
    second: np.ndarray | None = None,
    start: float = 0.0,
) -> OneStep:
    """Build a problem for BDF2 with equal steps, as pairs of solutions for `OneStep`.

    Parameters
    ----------
    solve : callable
        The function `(t, weight, known, start) -> u`, for many steps at once: times and weights of
        shape (k,), the others of shape (k, ...). It solves `u - weight F(t, u) = known` with the
        initial guess `start`; the method `solve` of `ImplicitStep` is such a function.
    initial : array of shape (...)
        The solution at the start.
    pairs : int
        Number K of steps from pair to pair. A trajectory has K + 1 pairs, shape (K + 1, 2, ...), at
        the times `start + spacing (0, 1, .. 2 K + 1)`: `u.reshape(2 * K + 2, ...)` contains all.
    spacing : float
        The step size of BDF2, in units of time.
    second : array of shape (...), optional
        The solution one step after the start; computed by backward Euler by default.
    start : float
        Initial time.

    Returns
    -------
    OneStep
        The problem, whose states are pairs.

    Raises
    ------
    TypeError
        If `solve` is not callable.
    ValueError
        If another argument is invalid.

    Examples
    --------
    >>> from mgnet import Solver
    >>> def solve(t, weight, known, start):  # u' = -u
    ...     return known / (1.0 + weight[:, None])
    >>> problem = bdf2(solve, np.ones(1), pairs=64, spacing=0.05, second=np.array([np.exp(-0.05)]))
    >>> solution = Solver(problem.hierarchy(coarsening=4), rtol=1e-12).solve(u=problem.guess())
    >>> u = solution.require().value.reshape(130)
    >>> bool(abs(u - np.exp(-0.05 * np.arange(130))).max() < 1e-3)
    True
    """
    if not callable(solve):
        raise TypeError(
            f"bdf2 got solve of type {type(solve).__name__}; give a function "
            "(t, weight, known, start) -> u, such as ImplicitStep(slope, jacobian).solve"
        )
    if not is_whole(pairs, 1, math.inf):
        raise ValueError(f"bdf2 got {shown(pairs)} pairs; give an integer of at least 1")
    if not is_number(spacing) or not spacing > 0.0 or not math.isfinite(spacing):
        raise ValueError(f"bdf2 got spacing = {shown(spacing)}; it must be positive")
    first = np.asarray(initial)
    first = first.astype(float) if first.dtype.kind in "iu" else first
    if second is None:
        after = solve(np.array([start + spacing]), np.array([spacing]), first[None], first[None])[0]
    else:
        after = np.asarray(second)
    if after.shape != first.shape:
        raise ValueError(
            f"bdf2 got a second solution of shape {after.shape}; it must have that of the initial "
            f"one, {first.shape}"
        )
    pair = np.stack([first, after])
    return OneStep(BDF2Step(solve, spacing), pair, np.full(pairs, 2.0 * spacing), start)
