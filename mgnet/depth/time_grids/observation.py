"""Functionals of a trajectory's states, computed from the C-points alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mgnet.depth.mgrit.c_layers import Intervals
from mgnet.depth.mgrit.one_step import OneStep
from mgnet.depth.time_grids.local_errors import check_problem
from mgnet.limits import shown

__all__ = ["observed"]


def observed(
    problem: OneStep,
    c_points: np.ndarray,
    functional: Callable[[np.ndarray, np.ndarray], Any],
    coarsening: int = 4,
) -> np.ndarray:
    """Compute a functional of the state at every time if only the C-points are stored.

    The F-points are computed by marching from the C-points, in all intervals at once, one point per
    interval at a time, so no more states are stored than there are C-points.

    Parameters
    ----------
    problem : OneStep
        The problem, with N steps.
    c_points : array of shape (ceil(N / c) + 1, ...)
        The solution at every c-th point and at the last one: the solution for a hierarchy with
        `c_points_only=True`.
    functional : callable
        The function `(t, states) -> values`: times of shape (k,), states of shape (k, ...), values
        of shape (k, ...).
    coarsening : int
        Coarsening factor c between level 0 and level 1.

    Returns
    -------
    array of shape (N + 1, ...)
        The values at all times.

    Raises
    ------
    ValueError
        If the C-points have the wrong shape, or the functional returns the wrong number of rows.
    TypeError
        If `functional` is not callable.

    Examples
    --------
    >>> from mgnet import Solver
    >>> from mgnet.depth import heat
    >>> problem = heat(points=31, steps=64)
    >>> hierarchy = problem.hierarchy(coarsening=8, c_points_only=True)
    >>> solution = Solver(hierarchy, rtol=1e-10).solve(u=problem.guess()[::8])
    >>> solution.value.shape
    (9, 31)
    >>> heats = observed(problem, solution.value, lambda t, u: u.mean(axis=1), coarsening=8)
    >>> bool(abs(heats - problem.serial().mean(axis=1)).max() < 1e-8)
    True
    """
    check_problem("observed", problem)
    if not callable(functional):
        raise TypeError(
            f"observed got a functional of type {type(functional).__name__}; give a function "
            "(t, states) -> values"
        )
    n = len(problem.steps)
    parts = Intervals(n, coarsening)
    states, wanted = np.asarray(c_points), (parts.count + 1, *np.shape(problem.initial))
    if states.shape != wanted:
        raise ValueError(
            f"observed got C-points of shape {states.shape}; for {n} steps and the coarsening "
            f"{coarsening} they have shape {wanted}"
        )
    times, steps, step = problem.times, np.asarray(problem.steps), problem.checked_step
    at = np.append(np.arange(0, n, coarsening), n)
    first = _values(functional, times[at], states)
    found = np.empty((n + 1, *first.shape[1:]), first.dtype)
    found[at], value = first, states[:-1]
    for which, _, write, count in parts.f_steps:
        value = step(times[:-1][which], steps[which], value[:count])
        found[write] = _values(functional, times[write], value)
    return found


def _values(functional: Any, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    values = np.asarray(functional(times, states.copy()))
    if not values.ndim or len(values) != len(times) or values.dtype.kind not in "iufcb":
        raise ValueError(
            f"observed got a functional that takes {len(times)} states to {shown(values)}; it must "
            "give an array with one entry or row for each, such as u.mean(axis=1)"
        )
    return values
