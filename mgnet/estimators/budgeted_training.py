"""Training within a budget, by cycles, or by a cascade of levels with one or several starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mgnet import CycleRecord, Hierarchy, Schedule, Solver, cascade, run
from mgnet.callbacks import ends
from mgnet.estimators.training_budget import UNLIMITED, TrainingBudget, budgeted
from mgnet.moves import carry_memory
from mgnet.schedule import Step
from mgnet.training import Objective, coarse_rows
from mgnet.training.tournament import (
    Member,
    best,
    first_members,
    members_on_levels,
    parts_of_seconds,
)

__all__ = ["train_within"]

# Part of the budget for all levels below the finest together, with one start and with several.
SHARE, SHARES = 0.3, 0.5
STARTS = 8


def train_within(
    budget: TrainingBudget,
    hierarchy: Hierarchy,
    cycle: str,
    steps: Mapping[str, int],
    held_out: Objective | None = None,
    starts: int | None = 1,
    seed: int = 0,
) -> tuple[int, torch.Tensor]:
    """Train until the budget is used up; return the level and the state of the best network found.

    A cycle is repeated, except for its opening, which is run only once. Without a cycle, the
    training is a cascade. Coarse levels use only as many rows as they need (`coarse_rows`), and the
    training on each level ends when it stagnates or has used its share of the budget. With several
    starts, all are trained on the coarsest level, the better half of them continues on each finer
    level, and a single one reaches the finest. Unlike `Solver.solve`, this function computes no
    gradients between cycles unless there is a monitor. Ctrl-C ends the training and keeps the best
    network, if there is one.

    Parameters
    ----------
    budget : TrainingBudget
        Limits and history of the training.
    hierarchy : Hierarchy
        Levels of the network.
    cycle : str
        Cycle as text; empty for a cascade.
    steps : mapping
        Number of sweeps of each smoother that count as one sweep, as for `budgeted`.
    held_out : Objective, optional
        The loss on rows that are not used in training. It determines the best state and the best
        start; the training on a level ends when this loss no longer decreases.
    starts : int or None
        Number of starts of a cascade; the first start is the initial network of the hierarchy. None
        means eight starts if the coarsest level has at most an eighth of the rows, so that eight
        starts cost no more than one start with all rows; otherwise it means one start.
    seed : int
        Seed of the random starts.

    Raises
    ------
    KeyboardInterrupt
        If there is no network to keep.
    """
    budget.claim()
    solver = budget.solver(hierarchy, cycle)
    whole, budget.schedule = solver.hierarchy, solver.schedule
    budget.by_share = solver.schedule == cascade([UNLIMITED] * len(whole))
    thinned = coarse_rows(whole) if budget.by_share else whole
    budget.judge = held_out
    if held_out is None and thinned is not whole:  # losses on different rows are not comparable
        budget.judge = whole[0].operator
    budget.hierarchy = hierarchy = budgeted(thinned, steps, budget, held_out)
    if budget.announce is not None:
        budget.announce(hierarchy, solver.schedule)
    u = hierarchy[0].operator.start()
    try:
        with budget.interruptible():
            _tell(solver, budget, 0, u)
            if budget.by_share:
                if starts is None:
                    part = thinned[-1].evaluation_cost / whole[-1].evaluation_cost
                    starts = STARTS if STARTS * part <= 1.0 else 1
                u = _by_levels(budget, hierarchy, u, starts, seed)
                _tell(solver, budget, 1, u)
            else:
                _by_cycles(budget, hierarchy, u, solver)
    except KeyboardInterrupt:
        budget.interrupted = True
    return budget.best()


def _by_cycles(
    budget: TrainingBudget, hierarchy: Hierarchy, u: torch.Tensor, solver: Solver
) -> None:
    upward = len(hierarchy) > 1 and all(step.action != "down" for step in solver.schedule)
    cycles = 1 if upward and solver.max_cycles == UNLIMITED else solver.max_cycles
    schedule, memory = solver.schedule, None
    for number in range(1, cycles + 1):
        sweeps = len(budget.history)
        u, memory = run(schedule, hierarchy, u, None, memory)
        _tell(solver, budget, number, u)
        # The budget ended, or the cycle has no sweeps.
        if budget.exhausted or len(budget.history) == sweeps:
            break
        schedule = Schedule(solver.schedule[solver.schedule.opening :])


def _by_levels(
    budget: TrainingBudget, hierarchy: Hierarchy, u: torch.Tensor, starts: int, seed: int
) -> torch.Tensor:
    """Train level by level; return the final state of the finest level."""
    for level in hierarchy[:-1]:
        u = level.transfer.inject(u)  # type: ignore[union-attr, misc]
    last, numbers = len(hierarchy) - 1, members_on_levels(starts, None, len(hierarchy))
    field, parts = first_members(hierarchy, u, starts, seed), parts_of_seconds(numbers)
    coarse = SHARE if starts == 1 else SHARES
    for number in range(last, -1, -1):
        share = coarse * parts[last - number] / parts[last - 1] if number else 1.0
        for place, member in enumerate(field):
            if number < last:
                member.u = hierarchy[number].transfer.interpolate(member.u)  # type: ignore
                carry_memory(member.memory, hierarchy, number)
            budget.begin(number, share, len(field) - place, len(field))
            _on_level(hierarchy, number, member)
        on_level, count = hierarchy[number], [*numbers, 1][last - number + 1]
        field = best(field, count, lambda u: budget.merit(on_level, u)) or field[:1]  # noqa: B023
    return field[0].u


def _on_level(hierarchy: Hierarchy, number: int, member: Member) -> None:
    """Train a member on one level until it stagnates or has used its share of the budget."""
    own = hierarchy.with_levels(lambda levels: levels[number:], first=number)
    action = "solve" if len(own) == 1 else "post"
    memory: dict[Any, Any] = {(l - number, role): m for (l, role), m in member.memory.items()}
    member.u, memory = run(Schedule([Step(action, 0, UNLIMITED)]), own, member.u, None, memory)
    member.memory = {(l + number, role): kept for (l, role), kept in memory.items()}


def _tell(solver: Solver, budget: TrainingBudget, cycle: int, u: torch.Tensor) -> None:
    hierarchy = budget.hierarchy
    if solver.monitor is not None:
        norm = hierarchy.norm(hierarchy[0].residual_at(u, None))
        entry = CycleRecord(cycle, norm, None, budget.work, budget.seconds)
        ends("Solver", solver.monitor, entry, u)
