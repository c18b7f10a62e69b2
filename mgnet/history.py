"""Records of a solve in numbers: one for every step and one for every cycle."""

from __future__ import annotations

from typing import NamedTuple

from mgnet.schedule import Step

__all__ = ["CycleRecord", "StepRecord"]


class StepRecord(NamedTuple):
    """Numbers of one step of a solve: cycle (from 1), step, and the numbers of `StepData`.

    `member` has the same meaning as for `CycleRecord`.

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
    """Numbers after one cycle of a solve: an entry of `Solution.history`, passed to monitors.

    Attributes
    ----------
    cycle : int
        Number of cycles done; 0 before the first.
    residual_norm : float
        Norm of the residual of the current level; in training the norm of the gradient.
    value : float or None
        The objective, or the result of the solver's `merit`; None if neither was evaluated.
    work : float
        Work units since the start.
    seconds : float
        Wall time since the start.
    level : int
        The current level; 0, the finest, unless `train` is on a coarser one.
    member : int
        Index of the start of `train`, from 0, if there are several.

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
