"""Adaptive refinement of the time grid: solve, estimate, refine, and transfer the solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mgnet.depth.mgrit.c_layers import level_factors
from mgnet.depth.mgrit.checked_step import check_unequal
from mgnet.depth.mgrit.layer_hierarchy import relaxation_words
from mgnet.depth.mgrit.one_step import OneStep
from mgnet.depth.time_grids.adaptive_solution import AdaptiveSolution, GridRecord
from mgnet.depth.time_grids.dyadic_grid import DyadicGrid
from mgnet.depth.time_grids.local_errors import (
    check_order,
    check_problem,
    found_order,
    local_errors,
)
from mgnet.depth.time_grids.parallel_in_time import (
    CountedStep,
    TimeSolution,
    fitting_levels,
    mgrit_or_march,
)
from mgnet.depth.time_grids.refinement import ending_of, halvings
from mgnet.hierarchy import Hierarchy
from mgnet.limits import check_limits, is_whole, shown
from mgnet.solver import Solver

__all__ = ["adaptive"]

SLACK = 0.1  # fraction of the tolerance that may remain after the cycles
RESOLVED = 1000.0  # tolerances: above them, coarse steps of the next grid resolve nothing
LEAST = 8  # least number of steps of a coarsest level


def adaptive(
    problem: OneStep,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    order: int | None = None,
    levels: int = 3,
    coarsening: int | Sequence[int] = 2,
    relaxation: Sequence[str] = ("FCF",),
    cycle: str = "V(1,1)",
    max_cycles: int = 10,
    max_grids: int = 40,
    max_steps: int = 10**6,
) -> AdaptiveSolution:
    """Solve on a time grid that is refined until the error of every interval is within tolerance.

    Every interval of a grid has two steps. The error that the two steps add is estimated by
    comparison with one step of the same total length. Intervals with an estimate above the
    tolerance are halved, once or repeatedly, and needlessly short intervals are joined again. The
    solution is transferred to the new grid by a step from the last old point to each new one, and
    MGRIT continues from there. Coarse grids thus do most of the work, as in full multigrid.

    Parameters
    ----------
    problem : OneStep
        The problem. Its steps form the first grid, whose points are points of all later grids. The
        steps need not resolve the solution: a step may even fail and return NaN.
    rtol, atol : float
        Tolerances for the error that an interval may add: a root mean square over the entries of
        the state, in units of `atol + rtol |u|`, where `atol` has the unit of the state. As with
        any integrator, this is the local error; `richardson` estimates the global one.
    order : int, optional
        Order p of the method; by default it is observed on each grid, at the cost of seven more
        steps per four steps.
    levels, coarsening, relaxation
        The arguments of `OneStep.hierarchy` for MGRIT; levels for which a grid has too few steps
        are omitted. `levels=1` marches serially. A grid is also marched if the estimate on the
        previous grid exceeded 1000 times the tolerance.
    cycle, max_cycles
        The arguments of `mgnet.Solver`. A grid on which MGRIT does not reach a tenth of the
        tolerance is marched serially.
    max_grids, max_steps : int
        Largest number of grids, and largest number of steps of a grid.

    Returns
    -------
    AdaptiveSolution
        The solution; its attribute `converged` states whether the tolerance is met.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    Examples
    --------
    >>> from mgnet.depth import van_der_pol
    >>> solution = adaptive(van_der_pol(mu=10.0, steps=32, final_time=20.0), rtol=1e-4)
    >>> solution.converged, len(solution.states)
    (True, 607)
    """
    check_problem("adaptive", problem, estimates=True)
    check_limits("adaptive", rtol=rtol, atol=atol, max_cycles=max_cycles)
    if not rtol and not atol:
        raise ValueError("adaptive got rtol = 0 and atol = 0; one must be positive")
    if order is not None:
        check_order("adaptive", order)
    for name, count in (("max_grids", max_grids), ("max_steps", max_steps)):
        if not is_whole(count, 1):
            raise ValueError(f"adaptive got {name} = {shown(count)}; give an integer of at least 1")
    if not (np.asarray(problem.steps) > 0).all():
        raise ValueError("adaptive got steps that are not all positive; time must go forward")
    factors = level_factors(levels, coarsening)
    words = relaxation_words(relaxation, len(factors))
    rules = _Rules(rtol, atol, factors, words, cycle, max_cycles)
    cells, old = DyadicGrid.first(np.asarray(problem.steps, dtype=float)), None
    records, resolved = list[GridRecord](), False
    while True:
        now = _Grid.solved(problem, cells, old, rules if resolved else rules.serial())
        assumed = order or _order_if_seen(now.problem, now.states) or 1
        with np.errstate(all="ignore"):
            errors = local_errors(now.problem, now.states, assumed)
        sizes = _sizes(errors, now.states, rules)
        records.append(now.record(sizes))
        resolved = bool(sizes.max() <= RESOLVED)
        flat = now.states.reshape(len(now.states), -1)
        known: Any = np.isfinite(flat).all(axis=1)
        more = halvings(sizes, known[:-1:2], assumed)
        ending = ending_of(sizes, cells, more, len(records), max_grids, max_steps)
        if ending is None:
            cells, old = cells.changed(more), now
            continue
        return AdaptiveSolution(
            replace(now.problem, step=problem.checked_step),
            now.states,
            errors,
            assumed,
            tuple(records),
            ending,
        )


@dataclass(frozen=True)
class _Rules:
    rtol: float
    atol: float
    factors: tuple[int, ...]
    relaxation: Sequence[str]
    cycle: str
    max_cycles: int

    def serial(self) -> _Rules:
        """The same rules, but with a serial march instead of MGRIT."""
        return replace(self, factors=())

    def scale(self, states: np.ndarray) -> np.ndarray:
        """The scale relative to which errors are measured."""
        return self.atol + self.rtol * abs(states)


@dataclass(frozen=True, eq=False)
class _Grid:
    """A grid with two steps per cell, and the solution on it."""

    problem: OneStep
    cells: DyadicGrid
    states: np.ndarray
    found: TimeSolution
    counter: CountedStep

    @classmethod
    def solved(cls, problem: OneStep, cells: DyadicGrid, old: _Grid | None, rules: _Rules) -> _Grid:
        counter, grid = CountedStep(problem.checked_step), cells.halved()
        steps = grid.steps
        new = replace(problem, step=counter, steps=steps)
        check_unequal(problem.checked_step, new.guess()[0], new.times[:-1], steps)
        start = None if old is None else old.carried(new, grid)
        factors = rules.factors
        factors = factors[: fitting_levels(len(grid), len(factors) + 1, factors, LEAST) - 1]
        if start is None or not np.isfinite(start).all():
            start, factors = new.guess(), ()
        scale = rules.scale(start)
        found = mgrit_or_march(
            new,
            start,
            factors,
            rules.relaxation,
            lambda levels: Solver(
                Hierarchy(levels.levels, norm=_weighted(scale, levels)),
                rules.cycle,
                rtol=0.0,
                atol=SLACK,
                max_cycles=rules.max_cycles,
            ),
        )
        return cls(new, cells, found.value, found, counter)

    def carried(self, new: OneStep, grid: DyadicGrid) -> np.ndarray:
        """The solution at the points of another grid, by a step from the old point before each."""
        positions = self.cells.halved().positions
        before = np.searchsorted(positions, grid.positions, side="right") - 1
        states = self.states[before]
        apart = np.flatnonzero(positions[before] != grid.positions)
        if len(apart):
            left, roots = before[apart], positions[before[apart]].astype(int)
            dt = (grid.positions[apart] - positions[left]) * grid.lengths[roots]
            with np.errstate(all="ignore"):
                states[apart] = new.step(self.problem.times[left], dt, states[apart])
        return states

    def record(self, sizes: np.ndarray) -> GridRecord:
        steps, found = np.asarray(self.problem.steps), self.found
        return GridRecord(
            len(steps),
            float(steps.min()),
            float(steps.max()),
            found.levels,
            found.cycles,
            self.counter.steps,
            self.counter.calls,
            float(sizes.max()),
            int((sizes > 1.0).sum()),
            found.notes,
        )


def _weighted(scale: np.ndarray, levels: Hierarchy) -> Callable[[np.ndarray], float]:
    """A norm for all levels: the largest residual at a point, measured like an interval's error."""
    scales = {len(scale): scale}
    for level in levels.levels[:-1]:
        transfer: Any = level.transfer
        scale = transfer.inject(scale)
        scales[len(scale)] = scale

    def norm(residual: np.ndarray) -> float:
        return float(_root_mean_squares(residual, scales[len(residual)]).max())

    return norm


def _root_mean_squares(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The root mean square of each row, in units of the scale; 0 remains 0 if the scale is 0."""
    with np.errstate(all="ignore"):
        flat = np.where(rows == 0.0, 0.0, abs(rows) / scale).reshape(len(rows), -1)
        return np.sqrt((flat * flat).mean(axis=1))


def _sizes(errors: np.ndarray, states: np.ndarray, rules: _Rules) -> np.ndarray:
    """The error of every cell in units of the tolerance; inf if a step failed."""
    with np.errstate(all="ignore"):
        scale = rules.scale(np.fmax(abs(states[:-1:2]), abs(states[2::2])))
        sizes = _root_mean_squares(errors, scale)
    return np.where(np.isfinite(sizes), sizes, np.inf)


def _order_if_seen(problem: OneStep, states: np.ndarray) -> int | None:
    try:
        return found_order("adaptive", problem, states)
    except ValueError:
        return None
