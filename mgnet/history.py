"""What a solve writes down, in numbers: a record of every step, and of every cycle."""

from __future__ import annotations

from typing import NamedTuple

from mgnet.schedule import Step

__all__ = ["CycleRecord", "StepRecord"]


class StepRecord(NamedTuple):
    """One step of a solve, as numbers: cycle (from 1), step, and the numbers of `StepData`.

    `member` is that of a `CycleRecord`.

    Examples
    --------
    >>> StepRecord(1, Step("pre", 0), 1.0, 0.002, None, None).work
    1.0
    """

    cycle: int
    step: Step
    work: float
    seconds: float
    residual_norm: float | None
    step_length: float | None
    member: int = 0


class CycleRecord(NamedTuple):
    """Where a solve stood after a cycle: an entry of `Solution.history`, and what monitors receive.

    Attributes
    ----------
    cycle : int
        Number of cycles done; 0 before the first.
    residual_norm : float
        Of the residual of the level at hand; for a training the norm of its gradient.
    value : float or None
        The objective, or what the solver's `merit` returned; None where neither was evaluated.
    work : float
        Work units from the start on.
    seconds : float
        Wall time from the start on.
    level : int
        The level at hand; 0, the finest, unless `train` is on a coarser one.
    member : int
        Which of several starts of `train`, from 0 on.

    Examples
    --------
    >>> CycleRecord(0, 1.0, None, 1.0, 0.01).level
    0
    """

    cycle: int
    residual_norm: float
    value: float | None
    work: float
    seconds: float
    level: int = 0
    member: int = 0
