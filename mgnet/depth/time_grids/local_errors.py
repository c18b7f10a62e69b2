"""Richardson's estimate of the error that every interval of a time grid adds, and of the order.

A coarse step over an interval and the fine steps through it start at the same state. Their results
differ by a known multiple of the error of the fine steps. Source: Richardson, "The approximate
arithmetical solution by finite differences", Phil. Trans. R. Soc. A 210 (1911); in FAS the
difference is the tau correction: Falgout, Manteuffel, O'Neill, Schroder, "Multigrid reduction in
time with Richardson extrapolation", Electron. Trans. Numer. Anal. 54 (2021).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mgnet.depth.mgrit.one_step import OneStep
from mgnet.depth.time_grids.bdf2 import BDF2Step
from mgnet.limits import is_whole, shown

__all__ = [
    "check_order",
    "check_problem",
    "check_trajectory",
    "found_order",
    "local_errors",
    "observed_order",
]

HIGHEST_ORDER = 32


def check_order(owner: str, order: Any) -> None:
    """Raise an error unless this is an order that a one-step method can have.

    Raises
    ------
    ValueError
        If the order is not valid.

    Examples
    --------
    >>> check_order("richardson", 0)
    Traceback (most recent call last):
    ValueError: richardson got order = 0; give p of the method, an integer from 1 to 32, where the
    error of one step is of order dt^(p + 1)
    """
    if not is_whole(order, 1, HIGHEST_ORDER):
        raise ValueError(
            f"{owner} got order = {shown(order)}; give p of the method, an integer from 1 to "
            f"{HIGHEST_ORDER}, where the error of one step is of order dt^(p + 1)"
        )


def check_problem(owner: str, problem: Any, estimates: bool = False) -> None:
    """Raise an error unless this is a OneStep with a finite initial state.

    Parameters
    ----------
    owner : str
        Name of the caller, for the message.
    problem : OneStep
        The problem to check.
    estimates : bool
        Whether errors must depend on the step size, which is not the case for the pairs of `bdf2`.

    Raises
    ------
    TypeError
        If `problem` is not a `OneStep`.
    ValueError
        If its numbers are not finite, its states are empty, or estimates are impossible.

    Examples
    --------
    >>> check_problem("adaptive", 3)
    Traceback (most recent call last):
    TypeError: adaptive got a problem of type int; give a OneStep, such as
    OneStep(step, initial, steps)
    """
    if not isinstance(problem, OneStep):
        raise TypeError(
            f"{owner} got a problem of type {type(problem).__name__}; give a OneStep, such as "
            "OneStep(step, initial, steps)"
        )
    if not np.isfinite(problem.initial).all() or not np.isfinite(problem.steps).all():
        raise ValueError(f"{owner} got a problem whose initial state or steps are not finite")
    if estimates and not np.size(problem.initial):
        raise ValueError(f"{owner} got a problem whose states have no entries; give at least one")
    part: Any = problem.step
    while estimates and part is not None:
        if isinstance(part, BDF2Step):
            raise ValueError(
                f"{owner} got a problem of bdf2, whose pairs stay {part.spacing:g} apart for any "
                "step size, so that errors do not scale with it; give a one-step method"
            )
        part = getattr(part, "inner", getattr(part, "step", None))


def check_trajectory(owner: str, problem: OneStep, u: Any, factor: int) -> np.ndarray:
    """Return the trajectory as an array if it has one row per time and consists of whole intervals.

    Raises
    ------
    ValueError
        If the number of rows is wrong, or `factor` does not divide the number of steps.

    Examples
    --------
    >>> from mgnet.depth import dahlquist
    >>> check_trajectory("local_errors", dahlquist(steps=3), np.ones((4, 1)), 2)
    Traceback (most recent call last):
    ValueError: local_errors got factor = 2 for 3 steps; give an integer of at least 2 that divides
    their number, such as 2
    """
    check_problem(owner, problem, estimates=True)
    points, n = np.asarray(u), len(problem.steps)
    wanted = (n + 1, *np.shape(problem.initial))
    if points.shape != wanted:
        raise ValueError(
            f"{owner} got states of shape {points.shape}; a trajectory of the problem has shape "
            f"{wanted}"
        )
    if not is_whole(factor, 2) or n % factor:
        raise ValueError(
            f"{owner} got factor = {shown(factor)} for {n} steps; give an integer of at least 2 "
            "that divides their number, such as 2"
        )
    return points


def local_errors(problem: OneStep, u: np.ndarray, order: int, factor: int = 2) -> np.ndarray:
    """Estimate the error that the steps of every interval add to a trajectory: fine minus exact.

    Parameters
    ----------
    problem : OneStep
        The problem, with N steps, which may be unequal.
    u : array of shape (N + 1, ...)
        Its solution. One coarse step per interval is computed from it, all at once.
    order : int
        Order p of the method: the error of a step is of order dt^(p + 1).
    factor : int
        Number m of steps per interval; it must divide N.

    Returns
    -------
    array of shape (N / m, ...)
        The errors to leading order in the step size, in units of the state.

    Raises
    ------
    ValueError
        If an argument is invalid, or the trajectory does not match the problem.

    Examples
    --------
    >>> from mgnet.depth import dahlquist
    >>> problem = dahlquist(rate=-1.0, steps=2, final_time=0.02)
    >>> error = local_errors(problem, problem.serial(), order=1)[0, 0]
    >>> exact = problem.serial()[-1, 0] - np.exp(-0.02)
    >>> bool(abs(error / exact - 1.0) < 0.02)
    True
    """
    check_order("local_errors", order)
    points = check_trajectory("local_errors", problem, u, factor)
    steps = np.asarray(problem.steps, dtype=float).reshape(-1, factor)
    whole = steps.sum(axis=1)
    coarse = problem.checked_step(problem.times[:-1:factor], whole, points[:-1:factor])
    fine = (abs(steps) ** (order + 1)).sum(axis=1)
    ratio = fine / (abs(whole) ** (order + 1) - fine)
    return ratio.reshape(-1, *[1] * (points.ndim - 1)) * (coarse - points[factor::factor])


def observed_order(problem: OneStep, u: np.ndarray) -> float:
    """Observe the order of a method on a trajectory, from steps of three lengths.

    Starting from every fourth point, two steps are compared with one step of the same total length,
    and two steps of that length with one step twice as long. The differences grow by a factor of
    2^(p + 1).

    Parameters
    ----------
    problem : OneStep
        The problem, with at least 4 steps; groups of four equal steps are used.
    u : array of shape (N + 1, ...)
        Its solution.

    Returns
    -------
    float
        The order, computed from the sums of those differences that exceed rounding errors; it is
        about p if the steps resolve the solution.

    Raises
    ------
    ValueError
        If there is no suitable group of four steps.

    Examples
    --------
    >>> from mgnet.depth import dahlquist
    >>> problem = dahlquist(steps=64, theta=0.5)  # Crank-Nicolson
    >>> round(observed_order(problem, problem.serial()), 2)
    2.0
    """
    check_problem("observed_order", problem, estimates=True)
    n = len(problem.steps) // 4 * 4
    steps = np.asarray(problem.steps, dtype=float)[:n].reshape(-1, 4)
    points = np.asarray(u)
    if points.shape != (len(problem.steps) + 1, *np.shape(problem.initial)):
        raise ValueError(
            f"observed_order got states of shape {points.shape}; give a trajectory, with a state "
            f"for each of the {len(problem.steps) + 1} times"
        )
    which = np.flatnonzero(
        (steps == steps[:, :1]).all(axis=1)
        & np.isfinite(points[:n:4]).all(axis=tuple(range(1, points.ndim)))
    )
    if not len(which):
        raise ValueError(
            f"observed_order got {len(problem.steps)} steps and no four equal ones that begin at a "
            "multiple of four; give order=..."
        )
    h, step = steps[which, 0], problem.checked_step
    t, start = problem.times[4 * which], points[4 * which]
    with np.errstate(all="ignore"):
        half = step(t, 2.0 * h, start)
        short = _sizes(step(t + h, h, step(t, h, start)) - half)
        long = _sizes(step(t + 2.0 * h, 2.0 * h, half) - step(t, 4.0 * h, start))
        seen = np.isfinite(long) & (short > 1e4 * np.finfo(float).eps * _sizes(start))
    if not seen.any():
        raise ValueError(
            f"observed_order got {len(problem.steps)} steps, and in no four of them do differences "
            "stand above rounding; give order=..."
        )
    return float(np.log2(long[seen].sum() / short[seen].sum())) - 1.0


def _sizes(states: np.ndarray) -> np.ndarray:
    """The largest absolute entry of each state."""
    return abs(states).reshape(len(states), -1).max(axis=1, initial=0.0)


def found_order(owner: str, problem: OneStep, u: np.ndarray) -> int:
    """Return the observed order as an integer, or raise an error that asks for the order.

    Raises
    ------
    ValueError
        If the observed order is not close to an admissible integer.
    """
    seen = observed_order(problem, u)
    possible = math.isfinite(seen) and 1 <= round(seen) <= HIGHEST_ORDER
    if not possible or abs(seen - round(seen)) > 0.3:
        raise ValueError(
            f"{owner} finds the order {seen:.2f}, not an integer from 1 to {HIGHEST_ORDER}: the "
            "steps do not resolve the solution yet, so give order=..."
        )
    return round(seen)
