"""Actions of the steps of a schedule on one level and between two: sweeps, descents, corrections.

The user's smoothers and transfers are called here. If they edit their arguments or return an
invalid result, the error names the level, the class and the method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

from mgnet import mats, vector
from mgnet.callbacks import Watched, refuse_result, unfit
from mgnet.level import Level

__all__ = ["carried", "carry_memory", "correct", "descend", "interpolated", "start", "swept"]

State = Any
Memory = dict[tuple[int, str], Any]


def swept(
    level: Level, step: tuple[str, int, int], u: State, f: State | None, memory: Memory, ahead: bool
) -> tuple[State, State | None]:
    """The state after sweeps and, with `ahead`, its residual if the smoother provides it.

    A step is a tuple of action, number of the level, and number of sweeps.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import gallery
    >>> level, f = gallery.poisson(3)[0], np.ones(3)
    >>> swept(level, ("pre", 0, 1), np.zeros(3), f, {}, ahead=False)[0].round(3)
    array([0.083, 0.083, 0.083])
    """
    action, number, count = step
    if number == 0:  # on all levels, ranks would wait for one another more often
        mats.free_dropped(u)
    smoother, part = level.smoother, "smoother"
    if action == "post" and level.post_smoother is not None:
        smoother, part = level.post_smoother, "post_smoother"
    key = (number, "post" if smoother is level.post_smoother else "pre")
    held, own = memory.get(key), level.watched.get(part)
    if own is not None:
        if held is None:
            held = own.method("start", level, level, u)
        told = _swept_by(own, level, u, f, count, held, ahead)
        u, memory[key] = told[:2]
        return u, told[2] if ahead else None
    if held is None:
        held = smoother.start(level, u)
    if ahead:
        u, memory[key], r = smoother.smooth_ahead(level, u, f, count, held)
        return u, r
    u, memory[key] = smoother.smooth(level, u, f, count, held)
    return u, None


def _swept_by(
    own: Watched, level: Level, u: State, f: State | None, count: int, held: Any, ahead: bool
) -> Sequence[Any]:
    """Check the result of a user's smoother: a state like u, its memory and, with `ahead`, r."""
    if ahead and not _looks_ahead(own.part):
        return *_swept_by(own, level, u, f, count, held, False), None
    method, parts = ("smooth_ahead", 3) if ahead else ("smooth", 2)
    told = own.method(method, level, level, u, f, count, held)
    if not isinstance(told, tuple | list) or len(told) != parts:
        wanted = "(state, memory, residual or None)" if ahead else "(state, memory)"
        refuse_result(level, own.named(method), told, wanted)
    r = told[2] if ahead else None
    for given in (told[0], u if r is None else r):
        if unfit(given, u):
            wanted = f"a state like u, {vector.describe(u)}, and its memory"
            refuse_result(level, own.named(method), given, wanted)
    return told


def _looks_ahead(smoother: Any) -> bool:
    """Whether `smooth_ahead` belongs to its `smooth`: a derived class may override only one."""
    own = next(c for c in type(smoother).__mro__ if {"smooth", "smooth_ahead"} & vars(c).keys())
    return "smooth_ahead" in vars(own)


def _refuse(own: Watched, method: str, level: Level, result: Any, like: State) -> NoReturn:
    refuse_result(level, own.named(method), result, f"a state like {vector.describe(like)}")


def carried(
    level: Level, method: str, u: State, to: Level | None = None, like: State | None = None
) -> State:
    """Apply a method of the transfer to u and check the result against a level or a state.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import gallery
    >>> carried(gallery.poisson(3)[0], "prolong", np.array([2.0]))
    array([1., 2., 1.])
    """
    own = level.watched.get("transfer")
    if own is None:
        return getattr(level.transfer, method)(u)
    result = own.method(method, level, u)
    if unfit(result, u if like is None else like, shape=like is not None):
        _refuse(own, method, level, result, u if like is None else like)
    if to is not None and to.unknowns:
        size = math.prod(vector.state_shape(result))
        if size != to.unknowns:
            wanted = f"a state of {to.unknowns} unknowns"
            refuse_result(level, own.named(method), result, wanted)
    return result


def descend(level: Level, coarse: Level, u: State, r: State) -> tuple[State, State, State]:
    """The coarse level's initial state, its injected part (or None), and its right-hand side.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import gallery
    >>> hierarchy = gallery.poisson(3)
    >>> descend(hierarchy[0], hierarchy[1], np.zeros(3), np.ones(3))
    (array([0.]), None, array([2.]))
    """
    transfer: Any = level.transfer
    f = carried(level, "restrict", r, coarse)
    if transfer.inject is None or level.recenter is not None:
        zero = vector.zeros_like(f)
        # A sweep that follows need not multiply.
        if vector.is_mat(coarse.operator) and coarse.residual is None:
            coarse.keep_residual(zero, f, f.copy())
        return zero, None, f
    v = carried(level, "inject", u, like=f)
    return v, v, f + coarse.apply(v)


def correct(
    level: Level, u: State, below: tuple[State, State | None], f: State | None, r: State
) -> tuple[State, float]:
    """Return u corrected by the coarse solution, and the step length; 0 for a refused correction.

    `below` contains the coarse solution and the state that `inject` gave.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import gallery
    >>> level = gallery.poisson(3)[0]
    >>> correct(level, np.zeros(3), (np.array([2.0]), None), np.ones(3), np.ones(3))
    (array([1., 2., 1.]), 1.0)
    """
    coarse, v = below
    transfer: Any = level.transfer
    own = level.watched.get("transfer")
    if v is not None and transfer.replace is not None and level.line_search is None:
        if own is None:
            return transfer.replace(u, coarse), 1.0
        return _corrected(own, "replace", level, u, coarse), 1.0
    w = coarse if v is None else coarse - v
    if level.line_search is None:
        if own is None:
            return transfer.correct(u, w), 1.0
        return _corrected(own, "correct", level, u, w), 1.0
    d = carried(level, "prolong", w, like=u)
    length = level.step_length(u, d, f, r)
    return (u + length * d if length else u), length


def _corrected(own: Watched, method: str, level: Level, u: State, coarse: State) -> State:
    new = own.method(method, level, u, coarse)
    if unfit(new, u):
        _refuse(own, method, level, new, u)
    return new


def interpolated(level: Level, coarse: State, f: State | None) -> State:
    """The coarse solution interpolated to the finer level.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import gallery
    >>> interpolated(gallery.poisson(3)[0], np.array([2.0]), None).shape
    (3,)
    """
    return vector.in_precision_of(f, carried(level, "interpolate", coarse, level, f))


def start(levels: list[Any], us: list[State], fs: list[State], given: bool) -> None:
    """Carry the problem to the coarsest level: f by restriction, and u, if given, by injection.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import gallery
    >>> us, fs = [np.zeros(3), None], [np.ones(3), None]
    >>> start(list(gallery.poisson(3)), us, fs, given=False)
    >>> us[1], fs[1]
    (array([0.]), array([2.]))
    """
    for l, level in enumerate(levels[:-1]):
        transfer, coarse = level.transfer, levels[l + 1]
        fs[l + 1] = None if fs[l] is None else carried(level, "restrict", fs[l], coarse)
        if given and transfer.inject is not None:
            us[l + 1] = carried(level, "inject", us[l], coarse, fs[l + 1])
        elif fs[l + 1] is None:
            us[l + 1] = vector.zeros_like(carried(level, "restrict", us[l], coarse))
        else:
            us[l + 1] = vector.zeros_like(fs[l + 1])


def carry_memory(memory: Memory, levels: Sequence[Any], l: int) -> None:
    """Initialize the memory of the smoothers of level l from that of the coarser level."""
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
