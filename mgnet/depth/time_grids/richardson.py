"""Richardson extrapolation in time: a solution of higher order, and the error of the plain one.

On the intervals of the coarse grid, the extrapolated step is the coarse step plus the tau
correction of FAS times m^p / (m^p - 1), so its solution is the limit of FAS with this correction.
Source: Falgout, Manteuffel, O'Neill, Schroder, "Multigrid reduction in time with Richardson
extrapolation", Electron. Trans. Numer. Anal. 54 (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgnet.depth.mgrit.c_layers import level_factors
from mgnet.depth.mgrit.checked_step import StepFunction
from mgnet.depth.mgrit.layer_hierarchy import relaxation_words
from mgnet.depth.mgrit.one_step import OneStep
from mgnet.depth.time_grids.local_errors import (
    check_order,
    check_problem,
    check_trajectory,
    found_order,
    local_errors,
)
from mgnet.depth.time_grids.parallel_in_time import TimeSolution, fitting_levels, parallel_in_time

__all__ = ["ExtrapolatedStep", "Richardson", "richardson"]

# Largest error that an interval may add to the extrapolated solution, relative to the plain one.
UNRESOLVED = 30.0
REMEDY = "take shorter steps, or a smaller tolerance of adaptive"


@dataclass(frozen=True, eq=False)
class ExtrapolatedStep:
    """A step of order p + 1, computed from m equal steps of order p and one of the total length.

    Parameters
    ----------
    inner : callable
        The step `(t, dt, states) -> states`, as in `OneStep`.
    order : int
        Order p of the step.
    factor : int
        Number m of small steps.

    Examples
    --------
    >>> def euler(t, dt, u):
    ...     return u / (1.0 + dt[:, None])
    >>> step = ExtrapolatedStep(euler, order=1)
    >>> for number in (euler, step):
    ...     print(number(np.zeros(1), np.array([0.1]), np.ones((1, 1)))[0, 0].round(6))
    0.909091
    0.904968
    >>> np.exp(-0.1).round(6)
    0.904837
    """

    inner: StepFunction
    order: int
    factor: int = 2

    def __call__(self, t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> np.ndarray:
        coarse, short, fine = self.inner(t, dt, states), dt / self.factor, states
        for k in range(self.factor):
            fine = self.inner(t + k * short, short, fine)
        return fine + (fine - coarse) / (self.factor**self.order - 1.0)


@dataclass(frozen=True, eq=False)
class Richardson:
    """The result of `richardson`, at every m-th point of the grid.

    Attributes
    ----------
    times : array of shape (N / m + 1,)
        Times of the points.
    states : array of shape (N / m + 1, ...)
        The extrapolated solution, of order p + 1.
    errors : array of shape (N / m + 1, ...)
        Estimated global error of the plain solution: plain minus extrapolated.
    order : int
        Order p, given or observed.
    notes : tuple of str
        Notes, as in `TimeSolution`.

    Examples
    --------
    >>> from mgnet.depth import dahlquist
    >>> print(richardson(dahlquist(steps=64)))
    order 1, extrapolated to 2 at 33 points; largest error of the plain solution 0.0028
    """

    times: np.ndarray
    states: np.ndarray
    errors: np.ndarray
    order: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        head = (
            f"order {self.order}, extrapolated to {self.order + 1} at {len(self.times)} points; "
            f"largest error of the plain solution {abs(self.errors).max():.2g}"
        )
        return "\n".join([head, *self.notes])


def richardson(
    problem: OneStep,
    u: np.ndarray | None = None,
    *,
    order: int | None = None,
    factor: int = 2,
    levels: int = 2,
    coarsening: int | Sequence[int] = 4,
    relaxation: Sequence[str] = ("F", "FCF"),
    rtol: float = 1e-8,
    max_cycles: int = 30,
) -> Richardson:
    """Compute the extrapolated solution of a problem, and the global error of the plain one.

    Parameters
    ----------
    problem : OneStep
        The problem, with N steps; each group of m steps must have equal step sizes.
    u : array of shape (N + 1, ...), optional
        Its solution; computed by `parallel_in_time` by default.
    order : int, optional
        Order p of the method; observed on the solution by default.
    factor : int
        Number m of steps per interval, which divides N.
    levels, coarsening, relaxation, rtol, max_cycles
        The arguments of `parallel_in_time` for the solves; levels with too few steps are omitted.

    Returns
    -------
    Richardson
        The solution and the error estimates.

    Raises
    ------
    ValueError
        If an argument is invalid, or the grid does not resolve the extrapolated solution, so that
        no estimate is possible. On a grid refined around a jump of the plain solution, the
        extrapolated one may jump elsewhere.

    Examples
    --------
    >>> from mgnet.depth import dahlquist
    >>> problem = dahlquist(rate=-1.0, steps=64, final_time=1.0)
    >>> found = richardson(problem)
    >>> plain, exact = problem.serial()[-1, 0], np.exp(-1.0)
    >>> print(f"{plain - exact:.1e} {found.errors[-1, 0]:.1e} {found.states[-1, 0] - exact:.1e}")
    2.9e-03 2.8e-03 5.7e-05
    """
    if order is not None:
        check_order("richardson", order)
    words = relaxation_words(relaxation, len(level_factors(levels, coarsening)))
    settings = [levels, coarsening, words, rtol, max_cycles]
    check_problem("richardson", problem, estimates=True)
    points = problem.guess() if u is None else u
    points = check_trajectory("richardson", problem, points, factor)
    steps = np.asarray(problem.steps, dtype=float).reshape(-1, factor)
    if (steps != steps[:, :1]).any():
        raise ValueError(
            f"richardson got unequal steps within its intervals of {factor}; give a grid that has "
            f"{factor} equal steps in each; those of adaptive have 2"
        )
    notes: tuple[str, ...] = ()
    if u is None:
        found = _solved(problem, points, *settings)
        points, notes = found.value, found.notes
    p = found_order("richardson", problem, points) if order is None else order
    step = ExtrapolatedStep(problem.checked_step, p, factor)
    coarse = replace(problem, step=step, steps=steps[:, 0] * factor)
    try:
        found = _solved(coarse, points[::factor].copy(), *settings)
    except ValueError as error:
        raise ValueError(
            "richardson got a grid that does not resolve the extrapolated solution, which is not "
            f"finite; {REMEDY}"
        ) from error
    _check_resolved(problem, points, step, coarse, found.value)
    notes += tuple(f"extrapolated: {note}" for note in found.notes)
    return Richardson(
        problem.times[::factor], found.value, points[::factor] - found.value, p, notes
    )


def _check_resolved(
    problem: OneStep,
    points: np.ndarray,
    step: ExtrapolatedStep,
    coarse: OneStep,
    better: np.ndarray,
) -> None:
    """Raise an error if the grid resolves the plain solution but not the extrapolated one.

    On a grid refined around a jump of the plain solution, the extrapolated one may jump elsewhere.
    """
    plain = local_errors(problem, points, step.order, step.factor)
    times, lengths = coarse.times[:-1], np.asarray(coarse.steps)
    with np.errstate(all="ignore"):
        ends = step.inner(times, lengths, better[:-1]), step(times, lengths, better[:-1])
        other = (ends[0] - ends[1]) / step.factor**step.order
        scale = abs(points).max(axis=0)
        sizes = [float((abs(e) / np.where(scale > 0.0, scale, 1.0)).max()) for e in (plain, other)]
    if not sizes[1] <= UNRESOLVED * sizes[0] + 100.0 * np.finfo(float).eps:  # also for NaN
        raise ValueError(
            "richardson got a grid that does not resolve the extrapolated solution: an interval "
            f"adds up to {sizes[1]:.1e} to it (relative to the largest state), {sizes[0]:.1e} to "
            f"the plain one. The plain solution is too inaccurate for an estimate; {REMEDY}"
        )


def _solved(
    problem: OneStep,
    start: np.ndarray,
    levels: int,
    coarsening: int | Sequence[int],
    relaxation: Sequence[str],
    rtol: float,
    max_cycles: int,
) -> TimeSolution:
    fit = fitting_levels(len(problem.steps), levels, coarsening, least=2)
    return parallel_in_time(
        problem,
        start,
        levels=fit,
        coarsening=coarsening[: fit - 1] if isinstance(coarsening, Sequence) else coarsening,
        relaxation=relaxation[: max(fit - 1, 2)],
        rtol=rtol,
        max_cycles=max_cycles,
    )
