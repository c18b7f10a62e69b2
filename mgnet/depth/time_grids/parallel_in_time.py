"""A solve parallel in time whose result is right even where coarse steps are not stable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mgnet.depth.mgrit.c_layers import level_factors
from mgnet.depth.mgrit.layer_hierarchy import relaxation_words
from mgnet.depth.mgrit.one_step import OneStep
from mgnet.hierarchy import Hierarchy
from mgnet.limits import check_limits
from mgnet.solution import Reason
from mgnet.solver import Solver

__all__ = ["CountedStep", "TimeSolution", "fitting_levels", "mgrit_or_march", "parallel_in_time"]

# How much larger than its neighbours the trajectory of a level must be to count as unstable.
GROWN = 100.0


class CountedStep:
    """A step that counts what it does.

    Parameters
    ----------
    inner : callable
        `(t, dt, states) -> states`.

    Attributes
    ----------
    steps, calls : int
        States that were stepped, and the batched calls, which come one after the other.

    Examples
    --------
    >>> step = CountedStep(lambda t, dt, u: u / (1.0 + dt[:, None]))
    >>> _ = step(np.zeros(3), np.ones(3), np.ones((3, 1)))
    >>> step.steps, step.calls
    (3, 1)
    """

    def __init__(self, inner: Callable[..., np.ndarray]):
        self.inner = inner
        self.steps = self.calls = 0

    def __call__(self, t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> np.ndarray:
        self.steps += len(states)
        self.calls += 1
        return self.inner(t, dt, states)


@dataclass(frozen=True, eq=False)
class TimeSolution:
    """What `parallel_in_time` found.

    Attributes
    ----------
    value : array of shape (N + 1, ...)
        The trajectory: of MGRIT to the tolerance, or of the serial march.
    levels : int
        That were used; 1 is the serial march.
    cycles : int
    residual_norms : tuple of float
        Of those cycles, the start first; empty for the serial march.
    notes : tuple of str
        One sentence for every level that was left out and for a serial march in place of MGRIT.

    Examples
    --------
    >>> from mgnet.depth import dahlquist
    >>> print(parallel_in_time(dahlquist(steps=64)))
    64 steps, 2 levels, 5 cycles
    """

    value: np.ndarray
    levels: int
    cycles: int
    residual_norms: tuple[float, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        how = "serial" if self.levels == 1 else f"{self.levels} levels, {self.cycles} cycles"
        return "\n".join([f"{len(self.value) - 1} steps, {how}", *self.notes])


def fitting_levels(steps: int, levels: int, coarsening: int | Sequence[int], least: int) -> int:
    """How many of the levels have at least so many steps.

    Examples
    --------
    >>> fitting_levels(100, levels=4, coarsening=4, least=8)
    2
    """
    size = steps
    for number, factor in enumerate(level_factors(levels, coarsening), 1):
        size = -(-size // factor)
        if size < least:
            return number
    return levels


def parallel_in_time(
    problem: OneStep,
    u: np.ndarray | None = None,
    *,
    levels: int = 2,
    coarsening: int | Sequence[int] = 4,
    relaxation: Sequence[str] = ("F", "FCF"),
    cycle: str = "V(1,1)",
    rtol: float = 1e-10,
    atol: float = 0.0,
    max_cycles: int = 30,
    norm: Callable[[np.ndarray], float] | None = None,
) -> TimeSolution:
    """Solve by MGRIT; where it fails leave levels out, and in the end march serially.

    Coarse levels take larger steps, for which a method may be unstable. Such a level is found after
    a solve that did not reach its tolerance: all coarse levels are marched, and the first whose
    trajectory is not finite, or far larger than that of the level before, is left out with those
    below it. What is returned solves the fine equations to the tolerance, or serially.

    Parameters
    ----------
    problem : OneStep
    u : array of shape (N + 1, ...), optional
        Start; the initial state at all times by default.
    levels, coarsening, relaxation : as in `OneStep.hierarchy`
    cycle : str
        For `mgnet.Solver`.
    rtol : float
        Of the residual of the constant guess, the initial state at all times, whatever `u` is.
    atol, max_cycles : as in `mgnet.Solver`
    norm : callable, optional
        Of residuals, as in `mgnet.Hierarchy`.

    Raises
    ------
    ValueError
        If the serial march is not finite either: then the step itself fails, and it says at which
        time.

    Examples
    --------
    >>> from mgnet.depth import dahlquist
    >>> forward_euler = dahlquist(rate=-10.0, steps=640, final_time=64.0, theta=0.0)
    >>> solution = parallel_in_time(forward_euler, coarsening=8)
    >>> print(solution)
    640 steps, serial
    marched serially: the steps of level 1, 8 times as long, are not stable or fail
    >>> bool((solution.value == forward_euler.serial()).all())
    True
    """
    if not isinstance(problem, OneStep):
        raise TypeError(
            f"parallel_in_time got a problem of type {type(problem).__name__}; give a OneStep"
        )
    factors, guess = level_factors(levels, coarsening), problem.guess()
    check_limits("parallel_in_time", rtol=rtol, atol=atol, max_cycles=max_cycles)

    def solver(hierarchy: Hierarchy) -> Solver:
        if norm is not None:
            hierarchy = Hierarchy(hierarchy.levels, norm=norm)
        if u is None:
            return Solver(hierarchy, cycle, rtol=rtol, atol=atol, max_cycles=max_cycles)
        # The solver's rtol is of the start, which may be far away.
        first = hierarchy.norm(hierarchy[0].residual_at(guess, None))
        least = max(atol, rtol * first) if np.isfinite(first) else atol
        return Solver(hierarchy, cycle, rtol=0.0, atol=least, max_cycles=max_cycles)

    words = relaxation_words(relaxation, len(factors))
    found = mgrit_or_march(problem, guess if u is None else u, factors, words, solver)
    finite = np.isfinite(found.value.reshape(len(found.value), -1)).all(axis=1)
    if not finite.all():
        last = int(np.argmin(finite)) - 1
        raise ValueError(
            f"parallel_in_time got a step that is not finite from t = {problem.times[last]:g} by "
            f"dt = {problem.steps[last]:g}; take shorter steps there, or look at the step"
        )
    return found


def mgrit_or_march(
    problem: OneStep,
    start: np.ndarray,
    factors: Sequence[int],
    relaxation: Sequence[str],
    solver: Callable[[Hierarchy], Solver],
) -> TimeSolution:
    """Like `parallel_in_time`, but a serial march that is not finite is returned as it is.

    Parameters
    ----------
    problem : OneStep
    start : array of shape (N + 1, ...)
    factors : sequence of int
        From each level to the next.
    relaxation : sequence of str
        The words for as many levels, or fewer.
    solver : callable
        Of a hierarchy.

    Examples
    --------
    >>> from mgnet.depth import dahlquist
    >>> problem = dahlquist(steps=64)
    >>> print(mgrit_or_march(problem, problem.guess(), (4,), ("F",), Solver))
    64 steps, 2 levels, 4 cycles
    """
    notes, why, first = list[str](), "", 0.0
    while factors:
        words = relaxation[: max(len(factors), 2)]
        hierarchy = problem.hierarchy(len(factors) + 1, factors, words)
        with np.errstate(all="ignore"):
            found = solver(hierarchy).solve(u=start)
        # What stands at rounding is as near to the serial trajectory as numbers allow.
        if found.reason.converged or found.reason is Reason.ROUNDING:
            value = hierarchy[0].operator.relax(found.value, None)
            norms = tuple(found.residual_norms)
            return TimeSolution(value, len(factors) + 1, found.cycles, norms, tuple(notes))
        sizes = _sizes(hierarchy)
        kept = _stable(sizes)
        if not 0 < kept < len(factors):
            why = (
                f"MGRIT with {len(factors) + 1} levels did not reach the tolerance, "
                f"{found.reason.name} after cycle {found.cycles}"
            )
            first = sizes[0]
            break
        notes.append(f"levels from {kept + 1} on left out: {_grown(factors, kept)}")
        factors = factors[:kept]
    with np.errstate(all="ignore"):
        value = problem.serial()
    if why and not first <= GROWN * float(abs(value).max(initial=0.0)):  # NaN, too
        why = _grown(factors, 0)
    notes += [f"marched serially: {why}"] if why else []
    return TimeSolution(value, 1, 0, (), tuple(notes))


def _sizes(hierarchy: Hierarchy) -> list[float]:
    """The largest number of the trajectory of every coarse level; NaN and Inf are seen."""
    with np.errstate(all="ignore"):
        states = [level.operator.march(None) for level in hierarchy.levels[1:]]
    return [float(abs(u).max(initial=0.0)) for u in states]


def _stable(sizes: Sequence[float]) -> int:
    """How many coarse levels are stable: the first is taken to be, where it is finite."""
    for number, size in enumerate(sizes):
        before = sizes[number - 1] if number else np.inf
        if not np.isfinite(size) or size > GROWN * before:
            return number
    return len(sizes)


def _grown(factors: Sequence[int], number: int) -> str:
    longer = math.prod(factors[: number + 1])
    return f"the steps of level {number + 1}, {longer} times as long, are not stable or fail"
