"""A solve parallel in time with correct results even if coarse steps are unstable."""

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

# Ratio to adjacent levels from which the trajectory of a level counts as unstable.
GROWN = 100.0


class CountedStep:
    """A step that counts its calls.

    Parameters
    ----------
    inner : callable
        The step `(t, dt, states) -> states`.

    Attributes
    ----------
    steps, calls : int
        Number of steps computed, and number of consecutive batched calls.

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
    """The result of `parallel_in_time`.

    Attributes
    ----------
    value : array of shape (N + 1, ...)
        The trajectory, from MGRIT up to the tolerance, or from the serial march.
    levels : int
        Number of levels that were used; 1 means the serial march.
    cycles : int
        Number of cycles.
    residual_norms : tuple of float
        Residual norms at the start and after each cycle; empty for the serial march.
    notes : tuple of str
        One sentence for every omitted level, and for a serial march instead of MGRIT.

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
    """The number of levels that have at least `least` steps.

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
    """Solve by MGRIT; if it fails, leave out levels, and finally march serially.

    Coarse levels take larger steps, for which a method may be unstable. If a solve has not reached
    its tolerance, all coarse levels are marched to find a level on which the method is unstable.
    The first level whose trajectory is not finite, or far larger than that of the next finer level,
    is left out together with all coarser ones. The result solves the fine equations: up to the
    tolerance from MGRIT, or up to rounding from the serial march.

    Parameters
    ----------
    problem : OneStep
        The problem, with N steps.
    u : array of shape (N + 1, ...), optional
        Initial guess; by default the initial state at all times.
    levels, coarsening, relaxation
        The arguments of `OneStep.hierarchy`.
    cycle : str
        The cycle in the notation of `mgnet.Solver`.
    rtol : float
        Tolerance relative to the residual of the constant guess, the initial state at all times,
        independent of `u`.
    atol, max_cycles
        The arguments of `mgnet.Solver`.
    norm : callable, optional
        Norm of residuals, as in `mgnet.Hierarchy`.

    Returns
    -------
    TimeSolution
        The trajectory, and notes on omitted levels.

    Raises
    ------
    ValueError
        If an argument is invalid, or if not even the serial march is finite, which means that the
        step itself fails; the message contains the time.
    TypeError
        If `problem` is not a `OneStep`.

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
        # The solver's rtol is relative to the start, which may be far from the solution.
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
            f"dt = {problem.steps[last]:g}; take shorter steps there, or check the step function"
        )
    return found


def mgrit_or_march(
    problem: OneStep,
    start: np.ndarray,
    factors: Sequence[int],
    relaxation: Sequence[str],
    solver: Callable[[Hierarchy], Solver],
) -> TimeSolution:
    """Like `parallel_in_time`, but also returns a serial march that is not finite.

    Parameters
    ----------
    problem : OneStep
        The problem, with N steps.
    start : array of shape (N + 1, ...)
        Initial guess.
    factors : sequence of int
        Coarsening factor of each level except the coarsest.
    relaxation : sequence of str
        Relaxation words, such as "FCF", for at most as many levels.
    solver : callable
        A function that creates the solver of a hierarchy.

    Returns
    -------
    TimeSolution
        The trajectory, and notes on omitted levels.

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
        # At rounding level, the solution is as close to the serial trajectory as possible.
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
    if why and not first <= GROWN * float(abs(value).max(initial=0.0)):  # also true for NaN
        why = _grown(factors, 0)
    notes += [f"marched serially: {why}"] if why else []
    return TimeSolution(value, 1, 0, (), tuple(notes))


def _sizes(hierarchy: Hierarchy) -> list[float]:
    """The largest absolute value in the trajectory of every coarse level; it may be NaN or inf."""
    with np.errstate(all="ignore"):
        states = [level.operator.march(None) for level in hierarchy.levels[1:]]
    return [float(abs(u).max(initial=0.0)) for u in states]


def _stable(sizes: Sequence[float]) -> int:
    """The number of stable coarse levels; the first one counts as stable if it is finite."""
    for number, size in enumerate(sizes):
        before = sizes[number - 1] if number else np.inf
        if not np.isfinite(size) or size > GROWN * before:
            return number
    return len(sizes)


def _grown(factors: Sequence[int], number: int) -> str:
    longer = math.prod(factors[: number + 1])
    return f"the steps of level {number + 1}, {longer} times as long, are not stable or fail"
