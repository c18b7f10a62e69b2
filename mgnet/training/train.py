"""Training from the coarsest level to the finest; a level is left when it is exhausted.

A level is exhausted if its objective stagnates, if its share of the time is used up, or, on
request, if it resolves little of the gradient of the next finer level (`gradient_share`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mgnet import vector
from mgnet.callbacks import ends
from mgnet.hierarchy import Hierarchy
from mgnet.history import CycleRecord, StepRecord
from mgnet.interpreter import Memory
from mgnet.limits import check_limits
from mgnet.moves import carry_memory
from mgnet.notation import parse
from mgnet.schedule import Schedule, Step
from mgnet.solution import Reason, Solution
from mgnet.solver import Solver
from mgnet.training.coarse_rows import coarse_rows, unseen
from mgnet.training.loss.checks import not_finite
from mgnet.training.tournament import (
    Member,
    best,
    first_members,
    members_on_levels,
    parts_of_seconds,
)

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["gradient_share", "train"]

State = Any


def train(
    hierarchy: Hierarchy,
    u: State,
    *,
    cycle: str | None = None,
    sweeps: int = 1,
    patience: int = 5,
    gain: float = 0.1,
    share: float = 0.0,
    max_cycles: int = 1000,
    seconds: float = math.inf,
    monitor: Callable[[CycleRecord, State], Any] | None = None,
    rows: float | str | None = "auto",
    starts: int = 1,
    keep: Sequence[int] | None = None,
    seed: int = 0,
) -> Solution:
    """Train level by level, from the coarsest to the finest, with automatic refinement.

    The result is a cascade with adaptive numbers of sweeps, or full multigrid with adaptive numbers
    of cycles. `Schedule(entry.step for entry in solution.record)` is the schedule that was
    performed; `run` repeats it on `coarse_rows(hierarchy)`. Every level begins with the best state
    of the level below. Therefore, if the levels are properly nested and use the same samples
    (`rows=None`), the result is never worse than any intermediate state.

    With several `starts` this is a tournament: all starts are trained on the coarsest level, where
    a step is cheap, and only the best continue, so the fine levels are less likely to begin near a
    bad minimum.

    Parameters
    ----------
    hierarchy : Hierarchy
        Levels with objectives, and transfers with `inject`, which carries u down.
    u : state of level 0
        Initial parameters.
    cycle : str, optional
        Cycle that every level performs over itself and the levels below, as a string for `parse`
        such as "V(1,1)". Without it, only sweeps are done.
    sweeps : int
        Number of sweeps in one cycle if `cycle` is not given.
    patience, gain : int, float
        A level is left when its last `patience` cycles together lowered its objective by less than
        the fraction `gain`. This test applies to level 0 only if there is no limit `seconds`.
    share : float
        A level is also left when the `gradient_share` was at most this value in each of the last
        `patience` tests. With 0, the test, which costs a gradient on the finer level each time, is
        not made. The gradients of second-order smoothers rotate from sweep to sweep; in a trial
        with a PINN, the value 0.1 ended the coarse levels too early for one of two seeds.
    max_cycles : int
        Limit on the number of cycles on every level. Without `cycle`, a cycle is `sweeps` sweeps.
    seconds : float
        Limit on the wall time. Level l is left when the fraction 2^-l of it is used, so each level
        may take as long as all coarser levels together. With several starts, these proportions hold
        for each start; a start that ends early leaves its remaining time to the next ones.
    monitor : callable, optional
        Function of (CycleRecord, state), called at the start of every level and after every cycle;
        if it returns True, only the current level ends for this start, not the training.
        `mgnet.ProgressLines()` is an example.
    rows : float, "auto" or None
        Samples per parameter on coarse levels, at least 1; see `coarse_rows`. "auto" means 10 and
        at least 2000 in all, if the objectives have samples. None or inf means all samples.
    starts : int
        Number of starts. The first start is u; the other starts are drawn on the coarsest level by
        `reset_parameters` of the submodules of its network, independently of u.
    keep : sequence of int, optional
        Number of starts that continue on each level after the coarsest, coarser levels first. The
        best starts are those with the lowest objective on the samples that were not used for
        training, or on all samples if the unused samples are fewer than the parameters. By default
        half of the starts continue each time, and one on the finest level. A start that encountered
        NaN or Inf does not continue.
    seed : int
        Seed of the random starts.

    Returns
    -------
    Solution
        Residual norms and objectives are those of the current level. The state with which a finer
        level begins has no entry in `history`, since no cycle was done for it. `history` and
        `record` contain all starts, distinguished by `member`; `solution.member` is the start that
        led to the value.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the network cannot be drawn again.

    Examples
    --------
    >>> import torch
    >>> from mgnet.knots import KAN, knot_hierarchy
    >>> from mgnet.training import LeastSquares, LevenbergMarquardt
    >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    >>> kan = KAN([1, 3, 1], intervals=2, generator=torch.Generator().manual_seed(0))
    >>> problem = LeastSquares(kan, (x, torch.sin(8 * x)))
    >>> hierarchy = knot_hierarchy(kan, problem, 3, LevenbergMarquardt())
    >>> solution = train(hierarchy, hierarchy[0].operator.start(), gain=0.5)
    >>> solution.reason.name, hierarchy[0].operator.value(solution.value) < 1e-6
    ('STAGNATES', True)
    """
    check_limits("train", max_cycles=max_cycles, seconds=seconds, monitor=monitor)
    _check(hierarchy, (patience, gain, share))
    vector.state_shape(u)  # refuses what is not a state, such as the network itself
    numbers = members_on_levels(starts, keep, len(hierarchy))
    whole, hierarchy = hierarchy, coarse_rows(hierarchy, rows)
    limits = (patience, gain, share)
    course = _Course(hierarchy, cycle, sweeps, limits, max_cycles, seconds, monitor)
    for level in hierarchy[:-1]:
        u = level.transfer.inject(u)  # type: ignore[union-attr, misc]
    field = first_members(hierarchy, u, starts, seed)
    last, message = len(hierarchy) - 1, ""
    for number, part in zip(range(last, -1, -1), parts_of_seconds(numbers), strict=True):
        for place, member in enumerate(field):
            if number == last:
                course.note("start", number, member)
            elif message:
                member.u = hierarchy[number].transfer.interpolate(member.u)  # type: ignore
                continue
            else:
                course.ascend(number, member)
            course.train(number, member, course.deadline(part, len(field) - place))
        if starts > 1 and not message:
            able = best(field, [*numbers, 1][last - number + 1], course.score(whole, number))
            message = "" if able else _all_failed(field, whole[number])
            field = able or field[:1]
    winner = field[0]
    return replace(
        winner.part,  # type: ignore[arg-type]
        value=winner.u,
        reason=Reason.NOT_FINITE if message else winner.reason,
        message=message or _message(winner.part, hierarchy[0]),  # type: ignore[arg-type]
        history=tuple(course.history),
        work=course.work,
        seconds=time.perf_counter() - course.began,
        memory=winner.memory,
        record=tuple(course.records),
        member=winner.number,
    )


class _Course:
    """The steps of all members so far."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        cycle: str | None,
        sweeps: int,
        limits: tuple[int, float, float],
        max_cycles: int,
        seconds: float,
        monitor: Callable[[CycleRecord, State], Any] | None,
    ):
        self.hierarchy = hierarchy
        self.cycle = cycle
        self.sweeps = sweeps
        self.limits = limits
        self.max_cycles = max_cycles
        self.seconds = seconds
        self.monitor = monitor
        self.began: float = time.perf_counter()
        self.history: list[CycleRecord] = []
        self.records: list[StepRecord] = []
        self.work = 0.0

    def note(self, action: str, number: int, member: Member) -> None:
        """Record a step that costs nothing."""
        done = max(len(self.history) - 1, 0)
        step = Step(action, number)
        self.records.append(StepRecord(done, step, 0.0, 0.0, None, None, member.number))

    def ascend(self, number: int, member: Member) -> None:
        """Carry a member to a finer level."""
        member.u = self.hierarchy[number].transfer.interpolate(member.u)  # type: ignore[union-attr]
        carry_memory(member.memory, self.hierarchy, number)
        self.note("interpolate", number, member)

    def deadline(self, part: float, left: int) -> float:
        """Deadline of the next of `left` members on a level: each has an equal part of the rest."""
        end, now = self.began + part * self.seconds, time.perf_counter()
        return end if left == 1 else now + (end - now) / left

    def train(self, number: int, member: Member, deadline: float) -> None:
        """Train a member on a level until the level is exhausted."""
        own = self.hierarchy.with_levels(lambda levels: levels[number:], first=number)
        schedule = (
            parse(self.cycle, len(own)) if self.cycle else Schedule([Step("post", 0, self.sweeps)])
        )
        watch = _Watch(self, number, member.number, deadline)
        solver = Solver(own, schedule, 0.0, 0.0, self.max_cycles, monitor=watch, merit=watch.merit)
        part = solver.solve(u=member.u, memory=_shifted(member.memory, -number))
        member.u = part.value
        member.memory = member.memory | _shifted(part.memory, number)
        member.part = part
        member.reason = watch.reason if part.reason is Reason.MONITOR else part.reason
        self.work += watch.price * (part.work + watch.evaluations)
        for entry in part.record:
            self.records.append(
                entry._replace(
                    cycle=watch.before + entry.cycle,
                    step=entry.step._replace(level=entry.step.level + number),
                    work=watch.price * entry.work,
                    member=member.number,
                )
            )
        self.history += watch.history[bool(self.history) :]

    def score(self, whole: Hierarchy, number: int) -> Callable[[State], float]:
        """The loss that ranks the members on a level, on samples that they did not train on."""
        level, unit = self.hierarchy[number], self.hierarchy[0].evaluation_cost
        others, part = unseen(whole[number], level)

        def scored(u: State) -> float:
            if others is None:
                self.work += level.evaluation_cost / unit
                return level.value(u, None, self.hierarchy.dot)
            self.work += part * whole[number].evaluation_cost / unit
            return others.value(u)

        return scored


def _all_failed(members: list[Member], level: Level) -> str:
    """The message that no member is left, and what was not finite in the first member.

    The level has all samples, including those that were used to rank the members but not to train
    them.
    """
    first: Any = members[0].part
    told = first.message or not_finite(f"start {members[0].number}", level.operator, first.value)
    return f"train has no start left after {level}, all were not finite; {told}"


def _message(part: Solution, level: Level) -> str:
    """What was not finite, if that ended the training before its first step on level 0."""
    if part.reason is not Reason.NOT_FINITE or part.message:
        return part.message
    return not_finite(f"train on {level}", level.operator, part.value)


class _Watch:
    """Merit and monitor of the solver on one level; ends the level when it is exhausted."""

    def __init__(self, course: _Course, number: int, member: int, deadline: float):
        self.hierarchy: Hierarchy = course.hierarchy
        self.number = number
        self.member = member
        self.patience, self.gain, self.share = course.limits
        self.began = course.began
        self.deadline = deadline
        self.monitor = course.monitor
        # Cycles on coarser levels and of other members.
        self.before = max(len(course.history) - 1, 0)
        self.work = course.work  # the work of those cycles
        finest = self.hierarchy[0].evaluation_cost
        self.price = self.hierarchy[number].evaluation_cost / finest
        self.history: list[CycleRecord] = []  # of this level
        self.shares: list[float] = []
        self.evaluations = 0.0  # evaluations of this level's operator for these tests
        self.reason = Reason.MONITOR

    def merit(self, u: State) -> float:
        """The objective."""
        self.evaluations += 1.0
        return self.hierarchy[self.number].value(u, None, self.hierarchy.dot)

    def __call__(self, entry: CycleRecord, u: State) -> bool:
        """Whether the level is exhausted; called after every cycle."""
        self.history.append(
            entry._replace(
                cycle=self.before + entry.cycle,
                work=self.work + self.price * (entry.work + self.evaluations),
                seconds=time.perf_counter() - self.began,
                level=self.number,
                member=self.member,
            )
        )
        if time.perf_counter() >= self.deadline:
            self.reason = Reason.SECONDS
        elif (self.number or self.deadline == math.inf) and (self._stagnates() or self._hides(u)):
            self.reason = Reason.STAGNATES
        monitor = self.monitor
        told = monitor is not None and ends("train", monitor, self.history[-1], u)
        return told or self.reason is not Reason.MONITOR

    def _stagnates(self) -> bool:
        if len(self.history) <= self.patience:
            return False
        now, then = (self.history[k].value for k in (-1, -1 - self.patience))
        return not now < (1.0 - self.gain) * then  # type: ignore[operator]

    def _hides(self, u: State) -> bool:
        """Whether this level resolved little of the finer gradient in the last tests."""
        if not self.number or not self.share:
            return False
        finer = self.hierarchy[self.number - 1]
        self.shares.append(gradient_share(finer, u))
        self.evaluations += finer.evaluation_cost / self.hierarchy[self.number].evaluation_cost
        return (
            len(self.shares) >= self.patience and max(self.shares[-self.patience :]) <= self.share
        )


def _shifted(memory: Memory, levels: int) -> Memory:
    """The memory with shifted level numbers, without entries for removed levels."""
    return {(l + levels, role): kept for (l, role), kept in memory.items() if l + levels >= 0}


def gradient_share(fine: Level, u: State) -> float:
    """The share of the gradient of `fine` that the next coarser level resolves, at the state P u.

    It is `<P^T g, D^-1 P^T g> / <g, g>`, where D contains the column sums of `P^T P`: between 0
    (the coarse space is exhausted) and 1 (g lies in the coarse space) if P has no negative entries.
    It is the coarse space's share of the decrease along the gradient.

    Parameters
    ----------
    fine : Level
        Level with a transfer to the coarser one. One evaluation is counted.
    u : state of the coarser level
        State at which the gradient is evaluated.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import Jacobi, Level, MatrixTransfer
    >>> transfer = MatrixTransfer(np.array([[1.0], [1.0]]))
    >>> level = Level(lambda u: u - np.array([1.0, 3.0]), Jacobi(), transfer)
    >>> gradient_share(level, np.array([0.0])), gradient_share(level, np.array([2.0]))
    (0.8, 0.0)
    """
    transfer: Any = fine.transfer
    g = fine.residual_at(transfer.prolong(u), None)
    seen = transfer.restrict(g)
    columns = transfer.restrict(transfer.prolong(0.0 * seen + 1.0))
    whole = vector.dot(g, g)
    return vector.dot(seen / columns, seen) / whole if whole else 0.0


def _check(hierarchy: Hierarchy, numbers: tuple[int, float, float]) -> None:
    patience, gain, share = numbers
    if patience < 1 or gain < 0.0 or share < 0.0:
        raise ValueError(
            f"train got patience {patience}, gain {gain}, share {share}; patience must be at least "
            "1, the fractions must not be negative"
        )
    for level in hierarchy:
        if level.objective is None:
            raise TypeError(f"train got {level} without an objective; give Level(objective=...)")
        if level.transfer is not None and level.transfer.inject is None:
            raise TypeError(
                f"train got {level} whose transfer has no `inject`, which carries the start down"
            )
