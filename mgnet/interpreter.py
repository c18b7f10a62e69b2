"""The interpreter `run`, which performs any schedule on any hierarchy.

Every method is the full approximation scheme with other parts: with injection the coarse level
solves `A_c(v + w) = A_c(v) + R r`, without it `A_c(w) = R r`, and the correction w comes back.
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
    """Where a run stands: all that its further steps depend on, besides schedule and hierarchy.

    Nothing in it is edited later, so it can be kept; `run(..., resume=progress)` goes on from it
    with the same bits. `mgnet.checkpoint.checkpoint` writes it to files.

    Attributes
    ----------
    schedule : Schedule
    position : int
        Number of steps done.
    us, fs : tuple of (state or None)
        u and f of each level; those of levels that were left upwards are not needed any more.
    vs, rs : tuple of (state or None)
        Of each level, while a descent waits for its `up`: what `inject` brought, the residual that
        went down.
    memory : dict
        Of the smoothers.

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
    """What `run` tells its recorder after each step.

    Attributes
    ----------
    level : Level
        On which the step ended (the recentred one, where there is one).
    state, rhs : state or None
        u and f on that level; None stands for zero.
    work : float
        Work units of the step, counted.
    seconds : float
        Wall time of the step, set-up of the smoother included.
    residual_norm : float or None
        Of the level that a `down` left, before the coarse correction.
    step_length : float or None
        Of an `up`: 1, what the line search returned, or 0 for a refused correction.
    evaluations : float
        Of A in this step, on whatever level: work without the levels' prices.
    progress : Progress
        To go on from here.

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
    """What a run leaves.

    Attributes
    ----------
    state : state of level 0
    memory : dict
        Of the smoothers.
    residual : state or None
        Of the state, where its last sweep gave it (`Smoother.smooth_ahead`). It is not counted as
        work: whoever uses it charges the level.

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
    hierarchy : Hierarchy
    u, f : state of level 0 or None
        Start and right-hand side; None stands for zero, but not both.
    memory : dict, optional
        Of the smoothers, from an earlier run on the same hierarchy: keys are (level, "pre" |
        "post").
    record : callable, optional
        Receives (step, StepData) after every step.
    resume : Progress, optional
        Of an earlier run: u, f and memory are then those in it (give None), and the steps that it
        counts are not repeated.

    Returns
    -------
    (state, memory)
        New ones; nothing that was given is edited.

    Raises
    ------
    FloatingPointError
        As soon as a state is not finite; names the step and the level. Where the matrices are
        tensors, a run without `record` waits for their device at its last step alone.
    ValueError
        If u and f differ in kind or shape: compiled loops would read beyond the shorter one.

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
    """`run` for `Solver`: with a log of numbers, and the residual of the state where it is there.

    Parameters
    ----------
    schedule, hierarchy, u, f, memory, record, resume
        As in `run`.
    log : list of StepRecord, optional
        Gets an entry after every step: the numbers of `StepData`, without the states.
    cycle : int
        Number of the cycle in these entries.
    ahead : bool
        Whether the last sweep shall give the residual of its state, if it can.
    look : bool
        Whether states are looked at for NaN. With False the caller does that: at each look the host
        would wait for the device of a state.

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
    levels: list[Any] = list(hierarchy.levels)  # a descent may replace one by a recentred one
    begin = _begin(schedule, len(levels), u, f, memory) if resume is None else resume
    if resume is not None:
        _check_resume(schedule, len(levels), resume, (u, f, memory))
    us, fs, vs, rs = (list[Any](states) for states in begin[2:6])
    unit, coarsest, memory = levels[0].evaluation_cost, len(levels) - 1, dict(begin.memory)
    _recenter(levels, us, rs)
    is_finite, known = hierarchy.is_finite, None  # the residual, where a sweep has given it
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
    """Whether only the last step looks for NaN, if any, and whether a `down` takes no norm.

    At every look the host would wait for the device of tensors, and ranks for one another: there
    the norms that somebody reads, and the last step, tell.
    """
    on_device = vector.is_tensor(level.operator) or not look
    return on_device or vector.is_vec(u), on_device and not watched


def _is_sound(
    is_finite: Callable[[State], bool], u: State, norm: float | None, early: bool
) -> bool:
    """Whether no NaN is seen: in a norm that is there anyway, else in the state unless early."""
    if norm is not None:
        return math.isfinite(norm)
    return early or is_finite(u)


def _spent(level: Any, below: Any, before: tuple[float, float]) -> tuple[float, float]:
    """Evaluations since the levels had counted so many, and what they cost."""
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
        raise ValueError("run got neither u nor f; give the one that tells the shape of a state")
    nothing: list[State] = [None] * (levels - 1)
    us = (vector.zeros_like(f) if u is None else u, *nothing)
    return Progress(
        schedule, 0, us, (f, *nothing), (None, *nothing), (None, *nothing), memory or {}
    )


def _check_resume(schedule: Schedule, levels: int, resume: Progress, others: tuple) -> None:
    done = resume.position
    if any(other is not None for other in others):
        raise ValueError("run got u, f or memory beside resume, which holds its own; give None")
    if len(resume.us) != levels or resume.schedule[:done] != schedule[:done]:
        raise ValueError(
            f"run cannot resume: {done} steps were done on {len(resume.us)} levels, and the "
            f"schedule on {levels} levels does not begin with them; only later steps may differ"
        )


def _recenter(levels: list[Any], us: list[State], rs: list[State]) -> None:
    """Make the coarse levels of the descents that are under way."""
    for l in range(len(levels) - 1):  # each may replace the next
        if rs[l] is not None and levels[l].recenter is not None:
            levels[l + 1] = levels[l].recentred(us[l])
