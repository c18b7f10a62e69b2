"""The interpreter `run`, which performs any schedule on any hierarchy.

Every method is the full approximation scheme with different parts. With injection, the coarse level
solves `A_c(v + w) = A_c(v) + R r`; without it, `A_c(w) = R r`. The correction w is then prolonged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from mgnet import vector
from mgnet.callbacks import watched_record
from mgnet.hierarchy import Hierarchy
from mgnet.history import StepRecord
from mgnet.level import Level
from mgnet.moves import carry_memory, correct, descend, interpolated, start, swept
from mgnet.schedule import COUNTED, Schedule, Step

__all__ = ["Outcome", "Progress", "StepData", "perform", "run"]

State = Any
Memory = dict[tuple[int, str], Any]


class Progress(NamedTuple):
    """Complete state of a run: with schedule and hierarchy it determines all further steps.

    Its contents are never edited later, so it can be kept: `run(..., resume=progress)` continues
    from it with bitwise identical results. `mgnet.checkpoint.checkpoint` writes it to files.

    Attributes
    ----------
    schedule : Schedule
        The schedule that is performed.
    position : int
        Number of steps done.
    us, fs : tuple of (state or None)
        u and f of each level; None for levels that are no longer needed.
    vs, rs : tuple of (state or None)
        For each level of a descent that waits for its `up`: the injected state, and the
        restricted residual.
    memory : dict
        Memory of the smoothers.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import cycle, gallery
    >>> hierarchy, f, kept = gallery.poisson(7), np.ones(7), []
    >>> u, _ = run(cycle(3), hierarchy, None, f, record=lambda _, data: kept.append(data.progress))
    >>> kept[3].position, len(cycle(3))
    (4, 9)
    >>> again, _ = run(cycle(3), hierarchy, None, None, resume=kept[3])
    >>> bool((again == u).all())
    True
    """

    schedule: Schedule
    position: int
    us: tuple[State | None, ...]
    fs: tuple[State | None, ...]
    vs: tuple[State | None, ...]
    rs: tuple[State | None, ...]
    memory: Memory


class StepData(NamedTuple):
    """Data that `run` passes to its recorder after each step.

    Attributes
    ----------
    level : Level
        Level on which the step ended (the recentered level, if there is one).
    state, rhs : state or None
        u and f on that level; None stands for zero.
    work : float
        Counted work units of the step.
    seconds : float
        Wall time of the step, including the setup of the smoother.
    residual_norm : float or None
        Norm of the residual of the level that a `down` left, before the coarse correction.
    step_length : float or None
        Step length of an `up`: 1, the result of the line search, or 0 for a refused correction.
    evaluations : float
        Number of evaluations of A in this step on all levels, without weights for their cost.
    progress : Progress
        State of the run, from which it can continue.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import cycle, gallery
    >>> hierarchy, steps = gallery.poisson(7), []
    >>> f, record = np.ones(7), lambda *told: steps.append(told)
    >>> u, memory = run(cycle(3), hierarchy, None, f, record=record)
    >>> [f"{step} {data.work:.2f}" for step, data in steps[:3]]
    ['pre 1 1.00', 'down 1.00', 'pre 1 0.43']
    """

    level: Level
    state: State
    rhs: State | None
    work: float
    seconds: float
    residual_norm: float | None
    step_length: float | None
    evaluations: float
    progress: Progress


class Outcome(NamedTuple):
    """Result of a run.

    Attributes
    ----------
    state : state of level 0
        The final state.
    memory : dict
        Memory of the smoothers.
    residual : state or None
        Residual of the state, if its last sweep gave it (`Smoother.smooth_ahead`). It is not
        counted as work: the caller charges the level when using it.

    Examples
    --------
    >>> Outcome(1.0, {}, None).residual is None
    True
    """

    state: State
    memory: Memory
    residual: State | None


def run(
    schedule: Schedule,
    hierarchy: Hierarchy,
    u: State | None,
    f: State | None,
    memory: Memory | None = None,
    record: Callable[[Step, StepData], None] | None = None,
    resume: Progress | None = None,
) -> tuple[State, Memory]:
    """Perform a schedule once.

    Parameters
    ----------
    schedule : Schedule
        Steps to perform.
    hierarchy : Hierarchy
        Hierarchy on which they are performed.
    u, f : state of level 0 or None
        Initial state and right-hand side; None means zero, but only one may be None.
    memory : dict, optional
        Memory of the smoothers from an earlier run on the same hierarchy, with keys (level, "pre" |
        "post").
    record : callable, optional
        Function of (step, StepData), called after every step.
    resume : Progress, optional
        State of an earlier run, which contains u, f and memory (give None for these). Completed
        steps are not repeated.

    Returns
    -------
    (state, memory)
        New state and memory; the arguments are not edited.

    Raises
    ------
    FloatingPointError
        If a state is not finite; the message names the step and the level. If the matrices are
        tensors, a run without `record` tests this at its last step only, to avoid waiting for
        their device.
    ValueError
        If u and f differ in kind or shape.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import gallery, nested
    >>> hierarchy = gallery.poisson(15)
    >>> u, memory = run(nested(len(hierarchy)), hierarchy, None, np.ones(15) / 16)
    >>> x = np.arange(1, 16) / 16
    >>> bool(abs(u - x * (1 - x) / 2).max() < 0.01)
    True
    """
    if u is not None and f is not None and not vector.alike(u, f):
        raise ValueError(
            f"run got u as {vector.describe(u)} and f as {vector.describe(f)}; "
            "give both of one kind and shape"
        )
    return perform(schedule, hierarchy, u, f, memory, record, resume)[:2]


def perform(
    schedule: Schedule,
    hierarchy: Hierarchy,
    u: State | None,
    f: State | None,
    memory: Memory | None = None,
    record: Callable[[Step, StepData], None] | None = None,
    resume: Progress | None = None,
    log: list[StepRecord] | None = None,
    cycle: int = 1,
    ahead: bool = False,
    look: bool = True,
) -> Outcome:
    """`run` for `Solver`, which logs every step and returns the state's residual if available.

    Parameters
    ----------
    schedule, hierarchy, u, f, memory, record, resume
        The same as for `run`.
    log : list of StepRecord, optional
        List to which an entry is appended after every step: `StepData` without the states.
    cycle : int
        Number of the cycle in these entries.
    ahead : bool
        Whether the last sweep should return the residual of its state, if it can.
    look : bool
        Whether states are tested for NaN. With False the caller tests them instead, because each
        test makes the host wait for the device of the state.

    Raises
    ------
    FloatingPointError, TypeError, ValueError
        The same as for `run`; also if the schedule has the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import GaussSeidel, cycle, gallery
    >>> hierarchy, f = gallery.poisson(7, smoother=GaussSeidel()), np.ones(7)
    >>> u, _, r = perform(cycle(3), hierarchy, None, f, ahead=True)
    >>> r is None or bool(np.allclose(r, hierarchy[0].residual_at(u, f)))
    True
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(
            f"run got a schedule of type {type(schedule).__name__}; give a Schedule, such as "
            "parse('V(1,1)', levels) or cycle(levels)"
        )
    schedule.fit(hierarchy)
    record = None if record is None else watched_record(record)
    levels: list[Any] = list(hierarchy.levels)  # a descent may replace one by a recentered level
    begin = _begin(schedule, len(levels), u, f, memory) if resume is None else resume
    if resume is not None:
        _check_resume(schedule, len(levels), resume, (u, f, memory))
    us, fs, vs, rs = (list[Any](states) for states in begin[2:6])
    unit, coarsest, memory = levels[0].evaluation_cost, len(levels) - 1, dict(begin.memory)
    _recenter(levels, us, rs)
    is_finite, known = hierarchy.is_finite, None  # the residual, if a sweep returned it
    late, silent = _looks(levels[0], us[0], log is not None or record is not None, look)
    steps = schedule[begin.position :]
    following = *steps[1:], Step("down" if ahead else "", 0)
    for number, (step, then) in enumerate(zip(steps, following), begin.position + 1):  # noqa: B905
        action, l, _ = step
        level, below = levels[l], levels[l + 1 if l < coarsest else l]
        before, began = (level.tally[0], below.tally[0]), time.perf_counter()
        norm = length = None
        if action in COUNTED:
            us[l], known = swept(level, step, us[l], fs[l], memory, then.action == "down")
        elif action == "down":
            if known is None:
                rs[l] = level.residual_at(us[l], fs[l])
            else:
                level.charge(level.residual_work)
                rs[l], known = known, None
            norm = None if silent else hierarchy.norm(rs[l])
            if level.recenter is not None:
                below = levels[l + 1] = level.recentred(us[l])
                before = (before[0], 0.0)
            us[l + 1], vs[l + 1], fs[l + 1] = descend(level, below, us[l], rs[l])
            l += 1
        elif action == "up":
            us[l], length = correct(level, us[l], (us[l + 1], vs[l + 1]), fs[l], rs[l])
            rs[l] = None
        elif action == "start":
            start(levels, us, fs, given=u is not None)
        else:
            us[l] = interpolated(level, us[l + 1], fs[l])
            carry_memory(memory, levels, l)
        if not _is_sound(is_finite, us[l], norm, late and (not look or number < len(schedule))):
            raise FloatingPointError(
                f"step {number}, '{step}' on level {step.level}: the state is not finite"
            )
        if log is None and record is None:
            continue
        evaluations, cost = _spent(level, below, before)
        entry = StepRecord(cycle, step, cost / unit, time.perf_counter() - began, norm, length)
        if log is not None:
            log.append(entry)
        if record is not None:
            states = tuple(us), tuple(fs), tuple(vs), tuple(rs)
            progress = Progress(schedule, number, *states, dict(memory))
            record(step, StepData(levels[l], us[l], fs[l], *entry[2:6], evaluations, progress))
    return Outcome(us[0], memory, known)


def _looks(level: Level, u: State, watched: bool, look: bool) -> tuple[bool, bool]:
    """Whether only the last step tests for NaN, and whether a `down` computes no norm.

    Every test makes the host wait for the device of tensors, and ranks wait for one another. In
    these cases only the norms that are reported and the last step reveal NaN.
    """
    on_device = vector.is_tensor(level.operator) or not look
    return on_device or vector.is_vec(u), on_device and not watched


def _is_sound(
    is_finite: Callable[[State], bool], u: State, norm: float | None, early: bool
) -> bool:
    """Whether the norm, if given, is finite; if not given, the state is tested unless early."""
    if norm is not None:
        return math.isfinite(norm)
    return early or is_finite(u)


def _spent(level: Any, below: Any, before: tuple[float, float]) -> tuple[float, float]:
    """Number of evaluations since the given counts, and their cost."""
    evaluations = level.tally[0] - before[0]
    cost = evaluations * level.evaluation_cost
    if below is not level:
        evaluations += below.tally[0] - before[1]
        cost += (below.tally[0] - before[1]) * below.evaluation_cost
    return evaluations, cost


def _begin(
    schedule: Schedule, levels: int, u: State | None, f: State | None, memory: Memory | None
) -> Progress:
    if u is None and f is None:
        raise ValueError("run got neither u nor f; give at least one, for the shape of a state")
    nothing: list[State] = [None] * (levels - 1)
    us = (vector.zeros_like(f) if u is None else u, *nothing)
    return Progress(
        schedule, 0, us, (f, *nothing), (None, *nothing), (None, *nothing), memory or {}
    )


def _check_resume(schedule: Schedule, levels: int, resume: Progress, others: tuple) -> None:
    done = resume.position
    if any(other is not None for other in others):
        raise ValueError("run got u, f or memory besides resume, which contains them; give None")
    if len(resume.us) != levels or resume.schedule[:done] != schedule[:done]:
        raise ValueError(
            f"run cannot resume: {done} steps were done on {len(resume.us)} levels, and the "
            f"schedule on {levels} levels does not begin with them; only later steps may differ"
        )


def _recenter(levels: list[Any], us: list[State], rs: list[State]) -> None:
    """Create the coarse levels of the descents in progress."""
    for l in range(len(levels) - 1):  # each may replace the next
        if rs[l] is not None and levels[l].recenter is not None:
            levels[l + 1] = levels[l].recentred(us[l])
