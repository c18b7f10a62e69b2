"""A cycle is data: a tuple of steps that can be printed, checked and costed before anything runs.

    pre, post    `count` sweeps of the level's smoother before and after the coarse correction
    solve        the coarsest level's smoother, `count` times
    down         residual and solution to the next coarser level
    up           the coarse correction back to `level`
    start        carry the problem from level 0 to the coarsest level
    interpolate  lift the solution from the next coarser level to `level`

`cycle`, `nested`, `cascade` and `parse` make schedules; by hand, `Schedule([Step("pre", 0, 2),
Step("down", 0), ...])`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mgnet.hierarchy import Hierarchy

__all__ = ["Schedule", "Step", "Work", "cascade", "cycle", "nested"]

ACTIONS = ("pre", "post", "solve", "down", "up", "start", "interpolate")
COUNTED = ("pre", "post", "solve")


class Step(NamedTuple):
    """One step. Moves are numbered by the finer of their two levels; `start` by the coarsest level.

    Examples
    --------
    >>> Step("pre", level=0, count=2)
    Step(action='pre', level=0, count=2)
    """

    action: str
    level: int
    count: int = 1

    def __str__(self) -> str:
        return f"{self.action} {self.count}" if self.action in COUNTED else self.action


class Work(NamedTuple):
    """Predicted work in work units: evaluations of the finest operator.

    Examples
    --------
    >>> str(Work(4.0, exact=False))
    'about 4 work units'
    """

    units: float
    exact: bool

    def __str__(self) -> str:
        return f"{'' if self.exact else 'about '}{self.units:.4g} work units"


class Schedule(tuple[Step, ...]):
    r"""Steps in the order in which they run; `str()` is the picture.

    A schedule begins on level 0, or on the coarsest level with `start`, and ends on level 0.

    Raises
    ------
    ValueError
        Names the first step that cannot be taken.

    Examples
    --------
    >>> down, up = [Step("pre", 0), Step("down", 0)], [Step("up", 0), Step("post", 0, 2)]
    >>> schedule = Schedule([*down, Step("solve", 1), *up])
    >>> schedule.text
    'pre 1, down, solve 1, up, post 2'
    >>> print(cycle(3, kappa=2))
    level 0  o                       o
               \                   /
    level 1      o       o       o
                   \   /   \   /
    level 2          #       #
    """

    def __new__(cls, steps: Iterable[Step | tuple[Any, ...]]) -> Schedule:
        steps = tuple(Step(*step) for step in steps)  # type: ignore
        if not steps:
            raise ValueError(
                "schedule has no steps; the shortest one is a 'solve' on the only level"
            )
        fault = find_fault(steps)
        if fault is not None:
            raise ValueError("schedule: step {} {}".format(*fault))
        return super().__new__(cls, steps)

    @property
    def levels(self) -> int:
        """Number of levels that the schedule visits."""
        return 1 + max(step.level + (step.action in ("down", "up", "interpolate")) for step in self)

    @property
    def text(self) -> str:
        """The step list that `parse` reads back."""
        return ", ".join(str(step) for step in self)

    @property
    def opening(self) -> int:
        """Number of steps up to the last lift to level 0, which `Solver` runs once; else 0."""
        lifts = [
            number
            for number, step in enumerate(self)
            if step.action == "interpolate" and step.level == 0
        ]
        return lifts[-1] + 1 if lifts else 0

    def split(self) -> Schedule:
        """The same with one sweep per step, so that a record or a checkpoint sees every sweep.

        Examples
        --------
        >>> cascade([2, 1]).split().text
        'start, solve 1, solve 1, interpolate, post 1'
        """
        return Schedule(Step(action, level) for action, level, count in self for _ in range(count))

    def work(self, hierarchy: Hierarchy) -> Work:
        """Predicted work of one run on `hierarchy`; transfers are not counted.

        Exact when all smoothers have fixed work and no level has a line search or `recenter`.

        Examples
        --------
        >>> from mgnet import gallery
        >>> print(cycle(2).work(gallery.poisson(63, levels=2)))
        3.492 work units
        """
        self.fit(hierarchy)
        units, exact = 0.0, True
        for action, number, count in self:
            level = hierarchy[number]
            if action in COUNTED:
                smoother = (
                    (level.post_smoother or level.smoother) if action == "post" else level.smoother
                )
                units += level.evaluation_cost * smoother.work(level, count)
                exact &= smoother.fixed_work
            elif action == "down":
                units += level.evaluation_cost * level.residual_work
                exact &= level.recenter is None
                injects = level.transfer is not None and level.transfer.inject is not None
                if injects and level.recenter is None:
                    units += hierarchy[number + 1].evaluation_cost
            elif action == "up":
                exact &= level.line_search is None
        return Work(units / hierarchy[0].evaluation_cost, exact)

    def fit(self, hierarchy: Hierarchy) -> None:
        """Raise a ValueError unless the schedule can run on `hierarchy`."""
        levels = len(hierarchy)
        if levels not in self._fitting and (fault := find_fault(self, levels)):
            raise ValueError("schedule does not fit this hierarchy: step {} {}".format(*fault))
        self._fitting.add(levels)  # every cycle asks again

    @cached_property
    def _fitting(self) -> set[int]:
        return set()

    def picture(self, width: int = 100) -> str:
        r"""The cycle as text, in blocks of at most `width` columns.

        `o` sweeps, `#` coarse solve, `.` no work; `\` restrict, `/` correct, `:` interpolate the
        solution.
        """
        nodes, moves = self.path()
        columns = max(width - 9, 5)  # beside the labels
        step = 4 if 4 * len(moves) < columns else 2
        per_block = (columns - 1) // step
        blocks = []
        for first in range(0, max(len(moves), 1), per_block):
            stops = nodes[first : first + per_block + 1]
            rows = [[" "] * (step * len(stops)) for _ in range(2 * self.levels - 1)]
            for k, (level, counts) in enumerate(stops):
                solved = any(action == "solve" for action, _ in counts)
                rows[2 * level][step * k] = "#" if solved else "o" if counts else "."
            for k, move in enumerate(moves[first : first + len(stops) - 1]):
                upper = min(stops[k][0], stops[k + 1][0])
                rows[2 * upper + 1][step * k + step // 2] = {
                    "down": "\\",
                    "up": "/",
                    "interpolate": ":",
                }[move]
            labels = [f"level {row // 2}" if row % 2 == 0 else "" for row in range(len(rows))]
            blocks.append(
                "\n".join(
                    f"{label:<9}{''.join(row)}".rstrip()
                    for label, row in zip(labels, rows, strict=True)
                )
            )
        return "\n\n".join(blocks)

    def path(self) -> tuple[list[tuple[int, list[tuple[str, int]]]], list[str]]:
        """The drawing as data: stops `(level, [(action, count), ...])`, and moves between them."""
        first = self[0]
        nodes: list[tuple[int, list[tuple[str, int]]]] = [
            (first.level if first.action == "start" else 0, [])
        ]
        moves = []
        for action, level, count in self:
            if action in COUNTED:
                nodes[-1][1].append((action, count))
            elif action != "start":
                moves.append(action)
                nodes.append((level + 1 if action == "down" else level, []))
        return nodes, moves

    def __str__(self) -> str:
        return self.picture()

    def __repr__(self) -> str:
        return f"<Schedule of {len(self)} steps on {self.levels} levels>"


def find_fault(steps: Sequence[Step], levels: int | None = None) -> tuple[int, str] | None:
    """The number of the first step (from 1) that cannot be taken, and why.

    With `levels`, the schedule must also fit a hierarchy of so many.
    """
    position = 0
    lifted = False  # whether there was a `start`
    depth = 0  # levels left by `down` and not yet back
    for number, step in enumerate(steps, 1):
        action, level, count = step
        if action not in ACTIONS:
            return number, f"'{action}' is no action; use one of {', '.join(ACTIONS)}"
        if not isinstance(count, Integral) or count < 1 or (action not in COUNTED and count != 1):
            return (
                number,
                f"'{action}' has count {count!r}; sweeps need an integer of at least 1, moves "
                "have none",
            )
        if action == "start":
            if number != 1:
                return number, "'start' comes after other steps; it can only be the first"
            position, lifted = level, True
        expected = position - (action in ("up", "interpolate"))
        if action == "up" and not depth:
            return (
                number,
                "'up' has no 'down' before it; on the way up from 'start' use interpolate",
            )
        if action == "interpolate" and (not lifted or depth or expected < 0):
            return (
                number,
                "'interpolate' is not on the way up from 'start'; "
                "begin with start, or use up after down",
            )
        if level != expected or not isinstance(level, Integral) or level < 0:
            return (
                number,
                f"'{action}' has level {level!r}, but the steps before it lead to level {expected}",
            )
        if levels is not None:
            if level + (action == "down") >= levels:
                return number, f"'{action}' on level {level} leaves the levels 0 to {levels - 1}"
            if action in ("solve", "start") and level != levels - 1:
                return (
                    number,
                    f"'{action}' is on level {level}, but the coarsest level is {levels - 1}; "
                    "use pre or post there",
                )
        position = expected + (action == "down")
        depth += {"down": 1, "up": -1}.get(action, 0)
    if position != 0:
        return (
            len(steps),
            f"'{steps[-1].action}' ends the schedule on level {position}; "
            "it must end on the finest level 0",
        )
    return None


def _cycle(level: int, coarsest: int, kappa: float, pre: int, post: int, solves: int) -> list[Step]:
    if level == coarsest:
        return [Step("solve", level, solves)]
    below = _cycle(level + 1, coarsest, kappa, pre, post, solves)
    # A second call on the coarsest level would solve the same problem again.
    if kappa > 1 and level + 1 < coarsest:
        below = below + _cycle(level + 1, coarsest, kappa - 1, pre, post, solves)
    before = [Step("pre", level, pre)] if pre else []
    after = [Step("post", level, post)] if post else []
    return [*before, Step("down", level), *below, Step("up", level), *after]


def _check_counts(
    levels: int, kappa: float, pre: int, post: int, coarsest: int, cycles: int = 1
) -> None:
    for name, value, least in (
        ("levels", levels, 1),
        ("pre", pre, 0),
        ("post", post, 0),
        ("coarsest", coarsest, 1),
        ("cycles", cycles, 1),
    ):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(
                f"cycle got {name} = {value!r}; it must be an integer of at least {least}"
            )
    if kappa != math.inf and (not isinstance(kappa, Integral) or kappa < 1):
        raise ValueError(
            f"cycle got kappa = {kappa!r}; it must be an integer of at least 1 (1 is V, 2 is F) "
            "or math.inf (W)"
        )


def cycle(
    levels: int, kappa: float = 1, pre: int = 1, post: int = 1, coarsest: int = 1
) -> Schedule:
    """The kappa-cycle: V (kappa 1), F (2), W (`math.inf`) and all between.

    A call with counter k makes one call with k and one with k - 1 on the level below. Source: Avnat
    and Yavneh, "On the recursive structure of multigrid cycles" (2020), algorithm 2.

    Parameters
    ----------
    levels : int
    kappa : int or math.inf
    pre, post : int
        Sweeps before and after each coarse correction.
    coarsest : int
        Sweeps of the coarse solver.

    Examples
    --------
    >>> cycle(3, pre=2).text
    'pre 2, down, pre 2, down, solve 1, up, post 1, up, post 1'
    >>> [len(cycle(8, kappa)) for kappa in (1, 2, math.inf)]
    [29, 119, 572]
    """
    _check_counts(levels, kappa, pre, post, coarsest)
    return Schedule(_cycle(0, levels - 1, kappa, pre, post, coarsest))


def nested(
    levels: int, kappa: float = 1, pre: int = 1, post: int = 1, cycles: int = 1, coarsest: int = 1
) -> Schedule:
    """Full multigrid: solve on the coarsest level, then `cycles` cycles on every level above.

    Parameters
    ----------
    levels, kappa, pre, post, coarsest : as in `cycle`
    cycles : int
        On every level, after the solution was interpolated to it.

    Examples
    --------
    >>> nested(2).text
    'start, solve 1, interpolate, pre 1, down, solve 1, up, post 1'
    """
    _check_counts(levels, kappa, pre, post, coarsest, cycles)
    last = levels - 1
    steps = [Step("start", last), Step("solve", last, coarsest)]
    for level in range(last - 1, -1, -1):
        steps += [
            Step("interpolate", level),
            *cycles * _cycle(level, last, kappa, pre, post, coarsest),
        ]
    return Schedule(steps)


def cascade(counts: Sequence[int]) -> Schedule:
    """Upward only: sweeps on every level, from the coarsest.

    Parameters
    ----------
    counts : sequence of int
        Sweeps per level, coarsest first; level 0 gets the last.

    Examples
    --------
    >>> cascade([8, 4, 2]).text
    'start, solve 8, interpolate, post 4, interpolate, post 2'
    """
    if (
        not isinstance(counts, Sequence)
        or not counts
        or any(not isinstance(count, Integral) or count < 0 for count in counts)
        or counts[0] < 1
    ):
        raise ValueError(
            f"cascade got the counts {counts!r}; "
            "it needs one integer per level, coarsest first, the first at least 1"
        )
    last = len(counts) - 1
    steps = [Step("start", last), Step("solve", last, counts[0])]
    for level, count in zip(range(last - 1, -1, -1), counts[1:], strict=True):
        steps += [Step("interpolate", level)] + ([Step("post", level, count)] if count else [])
    return Schedule(steps)
