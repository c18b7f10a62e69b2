"""The budget of a training run: its limits, its history and the best network so far."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from mgnet import Hierarchy, Level, Schedule, Smoother, Solver
from mgnet.training import EarlyStop, LeastSquares, Objective
from mgnet.transfer import Transfer

__all__ = ["TrainingBudget", "BudgetedSmoother", "SweepLines", "budgeted", "endless", "plain"]

WINDOW, GAIN = 6, 0.02  # a coarse level of a cascade ends when a window of sweeps gains less
PATIENCE = 20  # sweeps; even after 6 the held-out loss often begins to decrease again
UNLIMITED = 10**6  # sweeps; the budget ends them

Progress = Callable[[float, float, float, int], None]


def plain(hierarchy: Hierarchy, cycle: str) -> Solver:
    """The solver with this cycle; if it is empty, with a cascade that only the budget ends."""
    return Solver(hierarchy, cycle or endless(len(hierarchy)), max_cycles=UNLIMITED)


def endless(levels: int) -> str:
    """The text of a cascade that only the budget ends.

    Examples
    --------
    >>> endless(2)
    'cascade 1000000,1000000'
    """
    return "cascade " + ",".join([str(UNLIMITED)] * levels)


class TrainingBudget:
    """Counts sweeps, work and seconds, keeps the best state, and decides when a level ends.

    The training ends when the first limit is reached.

    Parameters
    ----------
    sweeps : float
        Limit on the sweeps of all levels together.
    evaluations : float
        Limit on the gradient evaluations, in units of the finest network.
    seconds : float
        Time limit, counted from the creation of the budget.
    window : int
        Number of sweeps in a window: the training on a level ends if a window gains less than 2 %.
    patience : int
        Number of sweeps: the training on a level of a cascade ends if the held-out loss, if there
        is one, has not decreased for this many sweeps.
    tol : float
        Required gain in a window on the finest level, as a fraction. If it is negative, only the
        limits end the training.
    progress : callable, optional
        `(seconds, fraction of the budget, loss, level)`, called after every sweep.
    interruptible : callable
        Function that returns a context in which the training runs; within it, signals that are
        otherwise held back take effect.
    announce : callable, optional
        `(hierarchy, schedule)`, called before the first sweep.
    solver : callable
        `(hierarchy, cycle as text) -> Solver`, such as a function that lets options change the
        solver.

    Attributes
    ----------
    history : list of (seconds, work, loss, level)
        One entry after each sweep. The loss is the mean squared error, without the penalty, on the
        rows that the level uses; for other objectives, it is their value.
    hierarchy : Hierarchy
        Hierarchy of the training.
    schedule : Schedule
        Schedule of the training.
    judge : Objective or None
        Objective whose loss ranks the states. None if the objectives of the levels can be compared
        directly.
    interrupted : bool
        Whether Ctrl-C ended the training.
    claimed : bool
        Whether a training run uses this budget; each run needs its own.

    Examples
    --------
    >>> TrainingBudget(sweeps=100).exhausted
    False
    """

    def __init__(
        self,
        sweeps: float = math.inf,
        evaluations: float = math.inf,
        seconds: float = math.inf,
        *,
        window: int = WINDOW,
        patience: int = PATIENCE,
        tol: float = -1.0,
        progress: Progress | None = None,
        interruptible: Callable[[], AbstractContextManager[Any]] = nullcontext,
        announce: Callable[[Hierarchy, Schedule], None] | None = None,
        solver: Callable[[Hierarchy, str], Solver] = plain,
    ):
        self.began = time.perf_counter()
        self.limits = (sweeps, evaluations, seconds)
        self.window = window
        self.patience = patience
        self.tol = tol
        self.progress = progress
        self.interruptible = interruptible
        self.announce = announce
        self.solver = solver
        self.work = 0.0
        self.seconds = 0.0
        self.history: list[tuple[float, float, float, int]] = []
        self.hierarchy: Any = ()  # until the training begins, as is the schedule
        self.schedule: Any = ()
        self.by_share = False
        self.judge: Objective | None = None
        self.interrupted = False
        self.claimed = False
        self._until = 1.0  # fraction of the budget at which the current level ends
        self._weight = 1.0  # weight of a sweep
        self._sweeps = 0.0
        self._values: dict[int, list[float]] = {}
        self._best: tuple[float, int, torch.Tensor] | None = None

    def claim(self) -> None:
        """Reserve the budget for a training run.

        Raises
        ------
        ValueError
            If another training run has used the budget, since its history belongs to that run.
        """
        if self.claimed:
            raise ValueError(
                "a TrainingBudget got a second training; make one for each fit, or "
                "limit the estimator itself with max_iter or seconds, as in a cross-validation"
            )
        self.claimed = True

    @property
    def fraction(self) -> float:
        """Fraction of the budget that is used."""
        sweeps = round(self._sweeps, 9)  # so that thirds sum to one
        used = sweeps, self.work, time.perf_counter() - self.began
        return max(part / limit for part, limit in zip(used, self.limits, strict=True))

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used up."""
        return self.fraction >= 1.0

    def begin(self, number: int, share: float, left: int, members: int) -> None:
        """Begin a level of a cascade with one of its members.

        Parameters
        ----------
        number : int
            Number of the level.
        share : float
            Fraction of the budget at which the training on the level ends. The budget that is left
            until then is divided equally among the remaining members.
        left : int
            Number of members that have not been trained on this level, including the current one.
        members : int
            Total number of members; one sweep of every member counts as a single sweep.
        """
        used = self.fraction
        self._until = share if left == 1 else used + (share - used) / left
        self._weight = 1.0 / members
        self._values[number] = []

    def number(self, level: Level) -> int | None:
        """Number of a level in the hierarchy; None for one that was rebuilt around a fine state."""
        own = enumerate(self.hierarchy)
        return next((n for n, known in own if known.operator is level.operator), None)

    def ends(self, level: Level) -> bool:
        """Whether the training on the level must end."""
        number = self.number(level)
        if self._best is None and number is not None:
            # At least one sweep, however long the start took, since there must be a model.
            return False
        if number is None or (number and not self.by_share):
            return self.exhausted
        values, gain = self._values.get(number, []), GAIN if number else self.tol
        if len(values) > self.window and values[-1] > (1.0 - gain) * values[-1 - self.window]:
            return True
        return self.fraction > self._until - 1e-8

    def note(self, level: Level, u: torch.Tensor, evaluations: float) -> None:
        """Record a sweep: the state after it, and its cost in evaluations on the level."""
        if self.hierarchy:
            evaluations *= level.evaluation_cost / self.hierarchy[0].evaluation_cost
        self.work += evaluations
        self.seconds = time.perf_counter() - self.began
        number = self.number(level)
        if number is None:
            return
        self._sweeps += self._weight
        problem: Any = level.operator
        if isinstance(problem, LeastSquares):
            loss = problem.mean_square(u)
            value = 0.5 * loss + problem.penalty_at(u)  # problem.value(u), from one evaluation
        else:
            loss = value = problem.value(u)
        self._values.setdefault(number, []).append(value)
        self.history.append((self.seconds, self.work, loss, number))
        known = self.judge is None or self.judge is problem  # all rows are evaluated only once
        merit = value if known else self.merit(level, u)
        if self._best is None or merit <= self._best[0]:
            self._best = merit, number, u
        if self.progress is not None:
            self.progress(self.seconds, self.fraction, loss, number)

    def merit(self, level: Level, u: torch.Tensor) -> float:
        """The value that ranks states of all levels: the loss of the judge if there is one."""
        problem: Any = level.operator
        judge = problem if self.judge is None else self.judge.with_network(problem.network)
        return judge.value(u)

    def best(self) -> tuple[int, torch.Tensor]:
        """Level and state with the lowest objective.

        Raises
        ------
        KeyboardInterrupt
            If no sweep was done.
        """
        if self._best is None:
            raise KeyboardInterrupt
        return self._best[1:]


class SweepLines:
    """A `progress` that writes a line to standard error every few seconds, and for every new level.

    Parameters
    ----------
    every : float
        Seconds between two lines.

    Examples
    --------
    >>> SweepLines()(0.5, 0.1, 3e-4, 1)  # "sweep 1, level 1: loss 3.00e-04, 0.5 s (10 %)"
    """

    def __init__(self, every: float = 5.0):
        self.every = every
        self.sweeps = 0
        self._level, self._told = -1, -math.inf

    def __call__(self, seconds: float, fraction: float, loss: float, level: int) -> None:
        """Write a line about the sweep and the used budget, if enough time has passed."""
        self.sweeps += 1
        if level == self._level and seconds < self._told + self.every:
            return
        self._level, self._told = level, seconds
        sys.stderr.write(
            f"sweep {self.sweeps}, level {level}: loss {loss:.2e}, {seconds:.1f} s "
            f"({100.0 * min(fraction, 1.0):.0f} %)\n"
        )
        sys.stderr.flush()


@dataclass(frozen=True, eq=False)
class BudgetedSmoother(Smoother):
    """Runs an inner smoother sweep by sweep, as long as the budget allows.

    The memory is a tuple of the class and the memory of the inner smoother.

    Parameters
    ----------
    inner : Smoother
        Smoother to run.
    step : int
        Number of sweeps of the inner smoother that count as one sweep.
    budget : TrainingBudget
        Budget in which the sweeps are counted.
    """

    inner: Smoother
    step: int
    budget: TrainingBudget
    fixed_work: ClassVar[bool] = False

    def start(self, level: Level, u: torch.Tensor) -> Any:
        return type(self.inner), self.inner.start(level, u)

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        carried = None if memory[1] is None else self.inner.carry(memory[1], transfer)
        return None if carried is None else (memory[0], carried)

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        kind, inner = memory
        if kind is not type(self.inner):  # carried from a level with another smoother
            inner = self.inner.start(level, u)
        for _ in range(sweeps):
            if self.budget.ends(level):
                break
            before = level.tally[0]
            u, inner = self.inner.smooth(level, u, f, self.step, inner)
            self.budget.note(level, u, level.tally[0] - before)
        return u, (type(self.inner), inner)

    def __str__(self) -> str:
        return str(self.inner)


def budgeted(
    hierarchy: Hierarchy,
    steps: Mapping[str, int],
    budget: TrainingBudget,
    held_out: Objective | None = None,
) -> Hierarchy:
    """The hierarchy with budgeted smoothers; a cascade with held-out rows also gets `EarlyStop`.

    Parameters
    ----------
    hierarchy : Hierarchy
        Hierarchy to change.
    steps : mapping
        For each smoother, as text, the number of its sweeps that count as one; 1 by default.
    budget : TrainingBudget
        Budget in which the sweeps are counted.
    held_out : Objective, optional
        The loss on the held-out rows.
    """

    def one(smoother: Smoother) -> Smoother:
        own = BudgetedSmoother(smoother, steps.get(str(smoother), 1), budget)
        if held_out is None or not budget.by_share:  # the visits of a cycle are too short
            return own
        return EarlyStop(own, held_out, budget.patience)

    def level_of(level: Level) -> Level:
        post, recenter = level.post_smoother, level.recenter
        return replace(
            level,
            smoother=one(level.smoother),
            post_smoother=None if post is None else one(post),
            recenter=None if recenter is None else (lambda u: level_of(recenter(u))),
        )

    return hierarchy.with_levels(lambda levels: [level_of(level) for level in levels])
