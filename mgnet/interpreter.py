"""The interpreter `run`, which performs any schedule on any hierarchy.

Every method is the full approximation scheme with other parts: with injection the coarse level
solves `A_c(v + w) = A_c(v) + R r`, without it `A_c(w) = R r`, and the correction w comes back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mgnet import vector
from mgnet.hierarchy import Hierarchy
from mgnet.level import Level
from mgnet.schedule import COUNTED, Schedule, Step

__all__ = ["StepData", "run"]

State = Any
Memory = dict[tuple[int, str], Any]


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


def run(
    schedule: Schedule,
    hierarchy: Hierarchy,
    u: State | None,
    f: State | None,
    memory: Memory | None = None,
    record: Callable[[Step, StepData], None] | None = None,
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

    Returns
    -------
    (state, memory)
        New ones; nothing that was given is edited.

    Raises
    ------
    FloatingPointError
        As soon as a state is not finite; names the step and the level.

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
    schedule.fit(hierarchy)
    levels: list[Any] = list(hierarchy)  # a descent may replace the level below by a recentred one
    nothing: list[State] = [None] * len(levels)
    us, fs, vs, rs = nothing[:], nothing[:], nothing[:], nothing[:]
    us[0], fs[0] = (vector.zeros_like(f) if u is None and f is not None else u), f
    if us[0] is None:
        raise ValueError("run got neither u nor f; give the one that tells the shape of a state")
    memory = dict(memory or {})
    unit = hierarchy[0].evaluation_cost
    for number, step in enumerate(schedule, 1):
        action, l, count = step
        level, below = levels[l], levels[min(l + 1, len(levels) - 1)]
        before, began = (level.tally[0], below.tally[0]), time.perf_counter()
        norm = length = None
        if action in COUNTED:
            smoother = (
                level.post_smoother if action == "post" and level.post_smoother else level.smoother
            )
            key = (l, "post" if smoother is level.post_smoother else "pre")
            if memory.get(key) is None:
                memory[key] = smoother.start(level, us[l])
            us[l], memory[key] = smoother.smooth(level, us[l], fs[l], count, memory[key])
        elif action == "down":
            rs[l] = level.residual_at(us[l], fs[l])
            norm = hierarchy.norm(rs[l])
            if level.recenter is not None:
                below = levels[l + 1] = level.recenter(us[l])
                before = (before[0], 0.0)
            us[l + 1], vs[l + 1], fs[l + 1] = _descend(level, below, us[l], rs[l])
            l += 1
        elif action == "up":
            w = us[l + 1] if vs[l + 1] is None else us[l + 1] - vs[l + 1]
            us[l], length = _correct(level, us[l], w, fs[l], rs[l])
            rs[l] = None
        elif action == "start":
            _start(levels, us, fs, given=u is not None)
        else:
            us[l] = level.transfer.interpolate(us[l + 1])
            carry_memory(memory, levels, l)
        if not (hierarchy.is_finite(us[l]) if norm is None else math.isfinite(norm)):
            raise FloatingPointError(
                f"step {number}, '{step}' on level {step.level}: the state is not finite"
            )
        if record is not None:
            work = (level.tally[0] - before[0]) * level.evaluation_cost / unit
            if below is not level:
                work += (below.tally[0] - before[1]) * below.evaluation_cost / unit
            record(
                step,
                StepData(levels[l], us[l], fs[l], work, time.perf_counter() - began, norm, length),
            )
    return us[0], memory


def _descend(level: Any, coarse: Level, u: State, r: State) -> tuple[State, State, State]:
    """Return the coarse level's start, what of it came from above (None: nothing), and its f."""
    f = level.transfer.restrict(r)
    if level.transfer.inject is None or level.recenter is not None:
        return vector.zeros_like(f), None, f
    v = level.transfer.inject(u)
    return v, v, f + coarse.apply(v)


def _correct(level: Any, u: State, w: State, f: State | None, r: State) -> tuple[State, float]:
    """Return u with the coarse correction w, and the step length; 0 for a refused one."""
    if level.line_search is None:
        return level.transfer.correct(u, w), 1.0
    d = level.transfer.prolong(w)
    length = level.line_search(level, u, d, f, r)
    return (u + length * d if length else u), length


def _start(levels: list[Any], us: list[State], fs: list[State], given: bool) -> None:
    """Carry the problem to the coarsest level: f by restrict, a given u by inject."""
    for l, level in enumerate(levels[:-1]):
        transfer = level.transfer
        fs[l + 1] = None if fs[l] is None else transfer.restrict(fs[l])
        if given and transfer.inject is not None:
            us[l + 1] = transfer.inject(us[l])
        else:
            us[l + 1] = vector.zeros_like(
                transfer.restrict(us[l]) if fs[l + 1] is None else fs[l + 1]
            )


def carry_memory(memory: Memory, levels: Sequence[Any], l: int) -> None:
    """Give the smoothers of level l what their counterparts on the coarser level remember."""
    for role in ("pre", "post"):
        coarse, fine = (
            levels[k].smoother if role == "pre" else levels[k].post_smoother for k in (l + 1, l)
        )
        if (
            coarse is not None
            and type(fine) is type(coarse)
            and memory.get((l + 1, role)) is not None
        ):
            carried = coarse.carry(memory[l + 1, role], levels[l].transfer)
            if carried is not None:
                memory[l, role] = carried
