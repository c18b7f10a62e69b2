"""A cycle is data: a tuple of steps that can be printed and checked, with a predicted cost.

    pre, post    `count` sweeps of the level's smoother before and after the coarse correction
    solve        the coarsest level's smoother, `count` times
    down         move residual and solution to the next coarser level
    up           move the coarse correction back to `level`
    start        carry the problem from level 0 to the coarsest level
    interpolate  interpolate the solution from the next coarser level to `level`

`cycle`, `nested`, `cascade` and `parse` build schedules; `Schedule([Step("pre", 0, 2), Step("down",
0), ...])` builds one from steps. A schedule has at most `mgnet.limits.MOST_STEPS` steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from mgnet.limits import MOST_STEPS, MOST_SWEEPS, is_whole, shown
from mgnet.step_count import check_steps

if TYPE_CHECKING:
    from mgnet.hierarchy import Hierarchy

__all__ = ["Schedule", "Step", "Work"]

ACTIONS = ("pre", "post", "solve", "down", "up", "start", "interpolate")
COUNTED = ("pre", "post", "solve")
MOST_CHARACTERS = 10**6  # of a picture


class Step(NamedTuple):
    """One step. A move has the number of its finer level, and `start` that of the coarsest level.

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
    r"""Steps in the order in which they run; `str()` draws them.

    A schedule begins on level 0, or on the coarsest level with `start`, and ends on level 0.

    Raises
    ------
    TypeError
        If a step has the wrong type.
    ValueError
        If a step cannot be taken (the message names the first one), or there are more than half a
        million steps.

    Examples
    --------
    >>> down, up = [Step("pre", 0), Step("down", 0)], [Step("up", 0), Step("post", 0, 2)]
    >>> schedule = Schedule([*down, Step("solve", 1), *up])
    >>> schedule.text
    'pre 1, down, solve 1, up, post 2'
    >>> from mgnet import cycle
    >>> print(cycle(3, kappa=2))
    level 0  o                       o
               \                   /
    level 1      o       o       o
                   \   /   \   /
    level 2          #       #
    """

    def __new__(cls, steps: Iterable[Step | tuple[Any, ...]]) -> Schedule:
        if isinstance(steps, str):
            raise TypeError(f"Schedule got the text {shown(steps)}; give it to parse(text, levels)")
        if not isinstance(steps, Iterable):
            raise TypeError(
                f"Schedule got a {type(steps).__name__}; give a list of steps, such as "
                '[Step("pre", 0, 2)]'
            )
        # The iterable may be infinite.
        made = tuple(map(_step, islice(steps, MOST_STEPS + 1)))
        if len(made) > MOST_STEPS:
            raise ValueError(f"schedule has more than {MOST_STEPS} steps, which is the maximum")
        if not made:
            raise ValueError(
                "schedule has no steps; the shortest one is a 'solve' on the only level"
            )
        fault = find_fault(made)
        if fault is not None:
            raise ValueError("schedule: step {} {}".format(*fault))
        return super().__new__(cls, made)

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
        """Number of steps of the opening, before the cycle that `Solver` repeats on level 0."""
        lifts = [
            number
            for number, step in enumerate(self)
            if step.action == "interpolate" and step.level == 0
        ]
        return lifts[-1] + 1 if lifts else 0

    def split(self) -> Schedule:
        """The same schedule with one sweep per step, for a record or checkpoint of every sweep.

        Examples
        --------
        >>> from mgnet import cascade
        >>> cascade([2, 1]).split().text
        'start, solve 1, solve 1, interpolate, post 1'
        """
        sweeps = sum(step.count for step in self)
        check_steps(sweeps, "this schedule, with one sweep per step,", "do not split it")
        return Schedule(Step(action, level) for action, level, count in self for _ in range(count))

    def work(self, hierarchy: Hierarchy) -> Work:
        """Predicted work of one run on `hierarchy`; transfers are not counted.

        The prediction is exact if all smoothers have fixed work and no level has a line search or
        `recenter`.

        Examples
        --------
        >>> from mgnet import cycle, gallery
        >>> print(cycle(2).work(gallery.poisson(63, levels=2)))
        3.492 work units
        """
        self.fit(hierarchy)
        units, exact = 0.0, True
        for step, times in Counter(self).items():
            cost, known = _cost(step, hierarchy)
            units += times * cost
            exact &= known
        return Work(units / hierarchy[0].evaluation_cost, exact)

    def fit(self, hierarchy: Hierarchy) -> None:
        """Check that the schedule can run on `hierarchy`.

        Raises
        ------
        ValueError
            If it does not fit; the message names the first step that cannot be taken.
        """
        levels = len(hierarchy)
        if levels not in self._fitting and (fault := find_fault(self, levels)):
            raise ValueError("schedule does not fit this hierarchy: step {} {}".format(*fault))
        self._fitting.add(levels)  # this test is repeated in every cycle

    @cached_property
    def _fitting(self) -> set[int]:
        return set()

    def picture(self, width: int = 100) -> str:
        r"""The cycle as text, in blocks of at most `width` columns.

        `o` means sweeps, `#` coarse solve, `.` no work; `\` restrict, `/` correct, `:` interpolate
        the solution. If a picture has more than a million characters, only the first blocks are
        drawn, and a last line counts the moves that are omitted.

        Parameters
        ----------
        width : int
            Largest number of columns.

        Raises
        ------
        ValueError
            If the width is not a positive integer.

        Examples
        --------
        >>> from mgnet import cascade
        >>> print(cascade([1, 1]).picture())
        level 0    o
                 :
        level 1  #
        """
        if not is_whole(width, 1):
            raise ValueError(f"picture got width {shown(width)}; give the number of columns")
        nodes, moves = self.path()
        rows, columns = 2 * self.levels - 1, max(width - 9, 5)  # without the labels
        step = 4 if 4 * len(moves) < columns else 2
        fitting = max(MOST_CHARACTERS // (rows * step) - 10, 1)
        per_block = min((columns - 1) // step, max(len(moves), 1), fitting)
        most = MOST_CHARACTERS // (rows * (step * per_block + 10)) * per_block
        drawn = moves[:most]
        blocks = []
        for first in range(0, max(len(drawn), 1) if most else 0, per_block):
            stops = nodes[first : min(first + per_block, len(drawn)) + 1]
            blocks.append(_block(stops, moves[first : first + len(stops) - 1], rows, step))
        if most < len(moves):
            left = len(moves) - most
            blocks.append(f"({left} of {len(moves)} moves on {self.levels} levels are not drawn)")
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


def _step(given: Any) -> Step:
    """Convert a user's step, a Step or a tuple, to a Step."""
    if type(given) is Step and type(given.level) is type(given.count) is int:
        return given
    if not isinstance(given, tuple | list) or not 2 <= len(given) <= 3:
        raise TypeError(
            f"schedule got the step {shown(given)}; give an action, a level and for sweeps their "
            'number, such as Step("pre", 0, 2)'
        )
    action, *numbers = given
    return Step(action, *(int(k) if is_whole(k, -math.inf, math.inf) else k for k in numbers))


def _cost(step: Step, hierarchy: Hierarchy) -> tuple[float, bool]:
    """Cost of one step in the unit of the levels, and whether it is exact."""
    action, number, count = step
    level = hierarchy[number]
    if action in COUNTED:
        smoother = (level.post_smoother or level.smoother) if action == "post" else level.smoother
        return level.evaluation_cost * smoother.work(level, count), smoother.fixed_work
    if action == "down":
        units = level.evaluation_cost * level.residual_work
        injects = level.transfer is not None and level.transfer.inject is not None
        if injects and level.recenter is None:
            units += hierarchy[number + 1].evaluation_cost
        return units, level.recenter is None
    return 0.0, action != "up" or level.line_search is None


def _block(
    stops: list[tuple[int, list[tuple[str, int]]]], moves: list[str], rows: int, step: int
) -> str:
    """The picture of some stops and of the moves between them."""
    signs = {"down": "\\", "up": "/", "interpolate": ":"}
    drawing = [[" "] * (step * len(stops)) for _ in range(rows)]
    for k, (level, counts) in enumerate(stops):
        solved = any(action == "solve" for action, _ in counts)
        drawing[2 * level][step * k] = "#" if solved else "o" if counts else "."
    for k, move in enumerate(moves):
        upper = min(stops[k][0], stops[k + 1][0])
        drawing[2 * upper + 1][step * k + step // 2] = signs[move]
    labels = [f"level {row // 2}" if row % 2 == 0 else "" for row in range(rows)]
    return "\n".join(
        f"{label:<9}{''.join(row)}".rstrip() for label, row in zip(labels, drawing, strict=True)
    )


def find_fault(steps: Sequence[Step], levels: int | None = None) -> tuple[int, str] | None:
    """The number of the first step (from 1) that cannot be taken, and the reason.

    With `levels`, the schedule must also fit a hierarchy with that many levels.
    """
    position = 0
    lifted = False  # whether there was a `start`
    depth = 0  # levels left by `down` without a matching `up`
    for number, step in enumerate(steps, 1):
        action, level, count = step
        if not isinstance(action, str) or action not in ACTIONS:
            return number, f"{shown(action)} is not an action; use one of {', '.join(ACTIONS)}"
        if not is_whole(count, 1, MOST_SWEEPS if action in COUNTED else 1):
            return (
                number,
                f"'{action}' has count {shown(count)}; sweeps need an integer of at least 1 and "
                f"at most {MOST_SWEEPS}, moves have none",
            )
        if action == "start":
            if number != 1:
                return number, "'start' comes after other steps; it can only be the first"
            if not is_whole(level):
                return number, f"'start' has level {shown(level)}; give the coarsest level, like 3"
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
        if not is_whole(level) or level != expected:
            return (
                number,
                f"'{action}' has level {shown(level)}, but the steps before it lead to level "
                f"{shown(expected)}",
            )
        if levels is not None:
            if level + (action == "down") >= levels:
                left = f"'{action}' on level {shown(level)} leaves the levels 0 to {levels - 1}"
                return number, left
            if action in ("solve", "start") and level != levels - 1:
                return (
                    number,
                    f"'{action}' is on level {shown(level)}, but the coarsest level is "
                    f"{levels - 1}; use pre or post there",
                )
        position = expected + (action == "down")
        depth += {"down": 1, "up": -1}.get(action, 0)
    if position != 0:
        return (
            len(steps),
            f"'{steps[-1].action}' ends the schedule on level {shown(position)}; "
            "it must end on the finest level 0",
        )
    return None
