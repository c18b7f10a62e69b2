"""Multigrid schedules: `cycle`, `nested`, `cascade`.

The number of steps is computed before any step is built (`mgnet.step_count`), because the steps of
a W-cycle double with every level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mgnet.limits import MOST_STEPS, MOST_SWEEPS, is_whole, shown
from mgnet.schedule import Schedule, Step
from mgnet.step_count import check_steps, cycle_steps, nested_steps

__all__ = ["cascade", "cycle", "nested"]


class _Calls:
    """The calls of a kappa-cycle; equal steps on the same level are the same object."""

    def __init__(self, coarsest: int, kappa: float, pre: int, post: int, solves: int):
        self.coarsest = coarsest
        self.kappa = kappa
        self.solve = Step("solve", coarsest, solves)
        # The steps of a call before and after its own calls.
        self.before = [
            (*([Step("pre", level, pre)] if pre else []), Step("down", level))
            for level in range(coarsest)
        ]
        self.after = [
            (Step("up", level), *([Step("post", level, post)] if post else []))
            for level in range(coarsest)
        ]

    def steps(self, level: int) -> Iterator[Step]:
        """Steps of the cycle that begins on this level."""
        calls: list[tuple[int, float]] = [(level, self.kappa)]  # to be made, the next one last
        while calls:
            level, kappa = calls.pop()
            if level == self.coarsest:
                yield self.solve
            elif not kappa:  # back from below
                yield from self.after[level]
            else:
                yield from self.before[level]
                calls.append((level, 0))
                # A second call on the coarsest level would solve the same problem again.
                if kappa > 1 and level + 1 < self.coarsest:
                    calls.append((level + 1, kappa - 1))
                calls.append((level + 1, kappa))


def _checked(owner: str, counts: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a cycle as plain integers, after a check of their ranges."""
    for name, value in counts.items():
        least = int(name in ("levels", "coarsest", "cycles"))
        most = MOST_SWEEPS if name in ("pre", "post", "coarsest") else math.inf
        if name == "kappa":
            infinite = isinstance(value, float) and value == math.inf
            if not infinite and not is_whole(value, 1, math.inf):
                raise ValueError(
                    f"{owner} got kappa = {shown(value)}; it must be an integer of at least 1 (1 "
                    "is V, 2 is F) or math.inf (W)"
                )
        elif not is_whole(value, least, most):
            bound = f" and at most {most}" if is_whole(value, least, math.inf) else ""
            raise ValueError(
                f"{owner} got {name} = {shown(value)}; it must be an integer of at least {least}"
                + bound
            )
    return {name: value if value == math.inf else int(value) for name, value in counts.items()}


def _name(kappa: float, pre: int, post: int, coarsest: int) -> str:
    letters = {1: "V", 2: "F", math.inf: "W"}
    letter = letters.get(kappa) or f"K{shown(kappa)}"
    return f"{letter}({pre},{post}{'' if coarsest == 1 else f',{coarsest}'})"


REMEDY = "take fewer levels or a smaller kappa (V is 1, F is 2)"


def cycle(
    levels: int, kappa: float = 1, pre: int = 1, post: int = 1, coarsest: int = 1
) -> Schedule:
    """Build the kappa-cycle: V (kappa = 1), F (2), W (`math.inf`) and the cycles between them.

    A call with counter k makes one call with counter k and one with k - 1 on the level below.
    Source: Avnat and Yavneh, "On the recursive structure of multigrid cycles" (2020), algorithm 2.

    Parameters
    ----------
    levels : int
        Number of levels of the hierarchy, at least 1.
    kappa : int or math.inf
        Counter of the recursion, at least 1; it sets the type of the cycle.
    pre, post : int
        Sweeps before and after each coarse correction.
    coarsest : int
        Sweeps of the coarse solver per visit.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the schedule would have more than half a million
        steps.

    Examples
    --------
    >>> cycle(3, pre=2).text
    'pre 2, down, pre 2, down, solve 1, up, post 1, up, post 1'
    >>> [len(cycle(8, kappa)) for kappa in (1, 2, math.inf)]
    [29, 119, 572]
    >>> cycle(22, math.inf)
    Traceback (most recent call last):
    ValueError: the schedule W(1,1) on 22 levels has 9437180 steps; at most 500000 are allowed, so
    take fewer levels or a smaller kappa (V is 1, F is 2)
    """
    told = {"levels": levels, "kappa": kappa, "pre": pre, "post": post, "coarsest": coarsest}
    given = _checked("cycle", told)
    levels, kappa, pre, post, coarsest = given.values()
    what = f"the schedule {_name(kappa, pre, post, coarsest)} on {shown(levels)} levels"
    check_steps(cycle_steps(levels, kappa, pre, post), what, REMEDY)
    return Schedule(_Calls(levels - 1, kappa, pre, post, coarsest).steps(0))


def nested(
    levels: int, kappa: float = 1, pre: int = 1, post: int = 1, cycles: int = 1, coarsest: int = 1
) -> Schedule:
    """Full multigrid: solve on the coarsest level, then run `cycles` cycles on each finer level.

    Parameters
    ----------
    levels, kappa, pre, post, coarsest
        The same as for `cycle`.
    cycles : int
        Number of cycles on every level after the solution has been interpolated to it.

    Raises
    ------
    ValueError
        The same as for `cycle`.

    Examples
    --------
    >>> nested(2).text
    'start, solve 1, interpolate, pre 1, down, solve 1, up, post 1'
    """
    told = {"levels": levels, "kappa": kappa, "pre": pre, "post": post}
    given = _checked("nested", {**told, "cycles": cycles, "coarsest": coarsest})
    levels, kappa, pre, post, cycles, coarsest = given.values()
    what = f"the schedule nested {_name(kappa, pre, post, coarsest)} on {shown(levels)} levels"
    what += f" with {shown(cycles)} cycles on each" if cycles > 1 else ""
    check_steps(nested_steps(levels, kappa, pre, post, cycles), what, REMEDY)
    last = levels - 1
    calls = _Calls(last, kappa, pre, post, coarsest)
    steps = [Step("start", last), Step("solve", last, coarsest)]
    for level in range(last - 1, -1, -1):
        steps.append(Step("interpolate", level))
        steps += cycles * list(calls.steps(level))
    return Schedule(steps)


def cascade(counts: Sequence[int]) -> Schedule:
    """Sweeps on every level from the coarsest to the finest, without coarse corrections.

    Parameters
    ----------
    counts : sequence of int
        Sweeps per level, coarsest first; the last count is for level 0.

    Raises
    ------
    ValueError
        If the counts are not integers in their ranges, or the schedule would be too long.

    Examples
    --------
    >>> cascade([8, 4, 2]).text
    'start, solve 8, interpolate, post 4, interpolate, post 2'
    """
    sized = isinstance(counts, Sequence) and not isinstance(counts, str)
    if sized and len(counts) <= MOST_STEPS:
        whole = all(is_whole(count, 0, MOST_SWEEPS) for count in counts)
        sized = whole and bool(counts) and counts[0] >= 1
    if not sized:
        raise ValueError(
            f"cascade got the counts {shown(counts)}; it needs one integer per level, coarsest "
            f"first, the first at least 1, all at most {MOST_SWEEPS}"
        )
    steps = 1 + (len(counts) - 1) + sum(count > 0 for count in counts)
    check_steps(steps, f"the cascade over {len(counts)} levels", "take fewer levels")
    last = len(counts) - 1
    made = [Step("start", last), Step("solve", last, int(counts[0]))]
    for level, count in zip(range(last - 1, -1, -1), counts[1:], strict=True):
        made.append(Step("interpolate", level))
        if count:
            made.append(Step("post", level, int(count)))
    return Schedule(made)
