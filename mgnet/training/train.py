"""Training from the coarsest level up: a level is left when it is exhausted.

Exhausted is a level whose objective stagnates, one whose share of the seconds is used, and, where
asked for, one that hardly sees the gradient of the next finer level any more (`gradient_share`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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
from mgnet.training.loss.checks import not_finite

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
) -> Solution:
    """Train level by level, from the coarsest to the finest, with automatic refinement.

    A cascade whose numbers of sweeps are found on the way, or full multigrid whose numbers of
    cycles are. `Schedule(entry.step for entry in solution.record)` is what was done, as data: `run`
    repeats it. Every level begins at the best state of the one below, so the result is never worse
    than any state on the way, for properly nested levels.

    Parameters
    ----------
    hierarchy : Hierarchy
        Every level with an objective, every transfer with `inject`, which carries u down.
    u : state of level 0
    cycle : str, optional
        As "V(1,1)", a text for `parse`: cycles on every level, over the levels below. Without it
        sweeps alone.
    sweeps : int
        Of one cycle, where no text is given.
    patience, gain : int, float
        A level is left when that many cycles lowered its objective by less than the fraction
        `gain`. Level 0 ends so only without `seconds`.
    share : float
        A level is also left when the `gradient_share` was at most this in that many cycles; 0 does
        not look, which saves a gradient of the finer level each time. Gradients of second-order
        smoothers turn from sweep to sweep: in a trial with a PINN, 0.1 left the coarse levels of
        one of two seeds too early for good.
    max_cycles : int
        On every level. Without `cycle` a cycle is `sweeps` sweeps.
    seconds : float
        Wall time. Level l is left when the fraction 2^-l of it is used: each level may take as long
        as all coarser ones together.
    monitor : callable, optional
        Called with (CycleRecord, state) at the start of every level and after every cycle;
        returning True ends the level at hand, not the training. `mgnet.ProgressLines()` is one.

    Returns
    -------
    Solution
        Residual norms and objectives are those of the level at hand. The start on a finer level is
        not part of `history`: no cycle has been done there.

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
    began, last = time.perf_counter(), len(hierarchy) - 1
    for level in hierarchy[:-1]:
        u = level.transfer.inject(u)  # type: ignore[union-attr, misc]
    history: list[CycleRecord] = []
    work, memory = 0.0, {}
    records = [StepRecord(0, Step("start", last), 0.0, 0.0, None, None)]
    for number in range(last, -1, -1):
        if number < last:
            u = hierarchy[number].transfer.interpolate(u)  # type: ignore[union-attr]
            carry_memory(memory, hierarchy, number)
            step = Step("interpolate", number)
            records.append(StepRecord(len(history) - 1, step, 0.0, 0.0, None, None))
        own = hierarchy.with_levels(lambda levels, first=number: levels[first:], first=number)
        schedule = parse(cycle, len(own)) if cycle else Schedule([Step("post", 0, sweeps)])
        watch = _Watch(
            hierarchy, number, (patience, gain, share), (began, seconds), monitor, (history, work)
        )
        solver = Solver(own, schedule, 0.0, 0.0, max_cycles, monitor=watch, merit=watch.merit)
        part = solver.solve(u=u, memory=_shifted(memory, -number))
        u, memory = part.value, memory | _shifted(part.memory, number)
        work += watch.price * (part.work + watch.evaluations)
        for entry in part.record:
            step = entry.step._replace(level=entry.step.level + number)
            cycles = watch.before + entry.cycle
            records.append(entry._replace(cycle=cycles, step=step, work=watch.price * entry.work))
        history += watch.history[bool(history) :]
    return replace(
        part,
        reason=watch.reason if part.reason is Reason.MONITOR else part.reason,
        message=_message(part, hierarchy[0]),
        history=tuple(history),
        work=work,
        seconds=time.perf_counter() - began,
        memory=memory,
        record=tuple(records),
    )


def _message(part: Solution, level: Level) -> str:
    """What was not finite, where the training ended for that before its first step on level 0."""
    if part.reason is not Reason.NOT_FINITE or part.message:
        return part.message
    return not_finite(f"train on {level}", level.operator, part.value)


class _Watch:
    """Merit and monitor of the solver on one level: ends the level when it is exhausted."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        number: int,
        limits: tuple[int, float, float],
        clock: tuple[float, float],
        monitor: Callable[[CycleRecord, State], Any] | None,
        earlier: tuple[list[CycleRecord], float],
    ):
        self.hierarchy = hierarchy
        self.number = number
        self.patience, self.gain, self.share = limits
        self.began, seconds = clock
        self.deadline = self.began + seconds * 0.5**number
        self.monitor = monitor
        self.before = max(len(earlier[0]) - 1, 0)  # cycles on coarser levels
        self.work = earlier[1]  # on them
        self.price = hierarchy[number].evaluation_cost / hierarchy[0].evaluation_cost
        self.history: list[CycleRecord] = []  # of this level
        self.shares: list[float] = []
        self.evaluations = 0.0  # of this level's operator, for the looks
        self.reason = Reason.MONITOR

    def merit(self, u: State) -> float:
        """The objective."""
        self.evaluations += 1.0
        return self.hierarchy[self.number].value(u, None, self.hierarchy.dot)

    def __call__(self, entry: CycleRecord, u: State) -> bool:
        """Whether the level is exhausted; after every cycle."""
        self.history.append(
            entry._replace(
                cycle=self.before + entry.cycle,
                work=self.work + self.price * (entry.work + self.evaluations),
                seconds=time.perf_counter() - self.began,
                level=self.number,
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
        """Whether hardly any of the gradient of the finer level is seen here, for some looks."""
        if not self.number or not self.share:
            return False
        finer = self.hierarchy[self.number - 1]
        self.shares.append(gradient_share(finer, u))
        self.evaluations += finer.evaluation_cost / self.hierarchy[self.number].evaluation_cost
        return (
            len(self.shares) >= self.patience and max(self.shares[-self.patience :]) <= self.share
        )


def _shifted(memory: Memory, levels: int) -> Memory:
    """The memory with other numbers for the levels, without those that have none any more."""
    return {(l + levels, role): kept for (l, role), kept in memory.items() if l + levels >= 0}


def gradient_share(fine: Level, u: State) -> float:
    """How much of the gradient of `fine` the next coarser level sees, at the prolonged state P u.

    `<P^T g, D^-1 P^T g> / <g, g>` with D the sums of the columns of `P^T P`: between 0 (the coarse
    space is exhausted) and 1 (all of g lies in it) where P has no negative entries. It is the share
    that the coarse space has in the decrease along the gradient.

    Parameters
    ----------
    fine : Level
        With a transfer to the coarser one. One evaluation.
    u : state of the coarser level

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
