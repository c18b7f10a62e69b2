"""The course of a training: its budget, its history and the best network so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from mgnet import Hierarchy, Level, Smoother
from mgnet.transfer import Transfer

__all__ = ["Course", "Timed", "timed"]

# A level of a cascade ends when a window of sweeps gains less than this, or at its share of the
# budget: the levels below the finest have 30 % together, each twice as much as the one below it.
WINDOW, GAIN, SHARE = 6, 0.02, 0.3


class Course:
    """Counts seconds and work, keeps the best state, and says when a level has had its share.

    Parameters
    ----------
    began : float
        `time.perf_counter()` at the start.
    seconds : float
    evaluations : float or None
        Gradient evaluations; the budget instead of seconds when given.
    levels : int
    progress : callable or None
        `(seconds, fraction, training MSE, level)`.

    Examples
    --------
    >>> Course(time.perf_counter(), 60.0, None, 3, None).exhausted
    False
    """

    def __init__(
        self,
        began: float,
        seconds: float,
        evaluations: float | None,
        levels: int,
        progress: Callable[[float, float, float, int], None] | None,
    ):
        self.began = began
        self.limit = seconds
        self.evaluations = evaluations
        self.levels = levels
        self.progress = progress
        self.work = 0.0
        self.seconds = 0.0
        self.history: list[tuple[float, float, float, int]] = []
        self.hierarchy: Hierarchy | None = None
        self.by_share = False
        self._values: dict[int, list[float]] = {}
        self._best: tuple[float, int, torch.Tensor] | None = None

    def follow(self, hierarchy: Hierarchy, by_share: bool) -> None:
        """Name the hierarchy; with `by_share` every level has its share of the budget."""
        self.hierarchy = hierarchy
        self.by_share = by_share

    @property
    def fraction(self) -> float:
        """Of the budget that is used."""
        if self.evaluations is not None:
            return self.work / self.evaluations
        return (time.perf_counter() - self.began) / self.limit

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used."""
        return self.fraction >= 1.0

    def number(self, level: Level) -> int | None:
        """Of a level of the hierarchy; None for one that was made around a fine state."""
        levels: Any = self.hierarchy or ()
        return next((n for n, own in enumerate(levels) if own.operator is level.operator), None)

    def ends(self, level: Level) -> bool:
        """Whether the level gets no further sweep."""
        number = self.number(level)
        if self._best is None and number is not None:
            return False  # one sweep at least, however long the start took: there must be a model
        if not self.by_share or number is None or number == 0:
            return self.exhausted
        values = self._values.get(number, [])
        stagnates = len(values) > WINDOW and values[-1] > (1.0 - GAIN) * values[-1 - WINDOW]
        return stagnates or self.fraction >= SHARE * 0.5 ** (number - 1)

    def note(self, level: Level, u: torch.Tensor, work: float) -> None:
        """Take down a sweep: the state after it and its work."""
        self.work += work
        self.seconds = time.perf_counter() - self.began
        number = self.number(level)
        if number is None:
            return
        problem: Any = level.operator
        mse = problem.mean_square(u)
        value = 0.5 * mse + problem.penalty_at(u)  # problem.value(u), from one evaluation
        self._values.setdefault(number, []).append(value)
        if self._best is None or value <= self._best[0]:  # nested levels: the values compare
            self._best = value, number, u
        self.history.append((self.seconds, self.work, mse, number))
        if self.progress is not None:
            self.progress(self.seconds, self.fraction, mse, number)

    def best(self) -> tuple[int, torch.Tensor]:
        """Level and state of the lowest objective; KeyboardInterrupt if no sweep was done."""
        if self._best is None:
            raise KeyboardInterrupt
        return self._best[1:]


@dataclass(frozen=True, eq=False)
class Timed(Smoother):
    """Another smoother, sweep by sweep, as long as the course allows.

    Its memory is (that smoother's class, its memory).

    Parameters
    ----------
    inner : Smoother
    step : int
        Sweeps of the inner smoother that count as one.
    course : Course
    """

    inner: Smoother
    step: int
    course: Course
    fixed_work: ClassVar[bool] = False

    def start(self, level: Level, u: torch.Tensor) -> Any:
        return type(self.inner), self.inner.start(level, u)

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        carried = self.inner.carry(memory[1], transfer)
        return None if carried is None else (memory[0], carried)

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        kind, inner = memory
        if kind is not type(self.inner):  # carried from a level with another smoother
            inner = self.inner.start(level, u)
        for _ in range(sweeps):
            if self.course.ends(level):
                break
            before = level.tally[0]
            u, inner = self.inner.smooth(level, u, f, self.step, inner)
            self.course.note(level, u, level.tally[0] - before)
        return u, (type(self.inner), inner)

    def __str__(self) -> str:
        return str(self.inner)


def timed(hierarchy: Hierarchy, steps: Mapping[str, int], course: Course) -> Hierarchy:
    """The same hierarchy, each of its smoothers `Timed`.

    Parameters
    ----------
    hierarchy : Hierarchy
    steps : mapping
        Smoother as text -> its sweeps that count as one; 1 where it is not named.
    course : Course
    """

    def one(smoother: Smoother) -> Smoother:
        return Timed(smoother, steps.get(str(smoother), 1), course)

    def level_of(level: Level) -> Level:
        post, recenter = level.post_smoother, level.recenter
        return replace(
            level,
            smoother=one(level.smoother),
            post_smoother=None if post is None else one(post),
            recenter=None if recenter is None else (lambda u: level_of(recenter(u))),
        )

    levels = [level_of(level) for level in hierarchy]
    return Hierarchy(levels, nested=hierarchy.nested, network=hierarchy.network)
