"""Schedules as text: `V(1,1)`, `nested F(2,1)`, `cascade 32,16,8`, or a list of steps."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NoReturn

from mgnet.cycles import cascade, cycle, nested
from mgnet.limits import MOST_STEPS, is_whole, shown
from mgnet.schedule import ACTIONS, COUNTED, Schedule, Step, find_fault

__all__ = ["parse"]

MOST_DIGITS = 9
LONGEST = 300  # characters of a text in an error message; of a longer text, its beginning and end


@lru_cache
def _past_blanks(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\s*({pattern})")


class Scanner:
    """Reads a text from left to right; every error gives its position (characters count from 1)."""

    def __init__(self, text: str):
        self.text = text
        self.position = 0

    def take(self, pattern: str) -> str | None:
        """The next text that matches the pattern, after blanks; None if it does not match."""
        found = _past_blanks(pattern).match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found.group(1)

    def expect(self, pattern: str, what: str) -> str:
        """Like `take`, but raise an error that names the expected text if it is missing."""
        taken = self.take(pattern)
        return taken if taken is not None else self.refuse(f"{self.here()}; expected {what}")

    def here(self) -> str:
        """The text at the current position, for an error message."""
        rest = self.text[self.position :].strip()
        return f"got '{' '.join(rest[:20].split())}'" if rest else "the text ends there"

    def refuse(self, why: str) -> NoReturn:
        """Raise a ValueError with the text and the position."""
        blank = len(self.text[self.position :]) - len(self.text[self.position :].lstrip())
        at = self.position + blank + 1
        raise ValueError(f"cycle {shown(self.text, LONGEST)}, character {at}: {why}")

    def end(self) -> None:
        """Raise an error unless the whole text was read."""
        if self.text[self.position :].strip():
            self.refuse(f"{self.here()}; expected the end")


def parse(text: str, levels: int) -> Schedule:
    """Read a schedule from its text, for a given number of levels.

    Parameters
    ----------
    text : str
        `[nested] (V|F|W|K<kappa>)(pre,post[,coarsest])`; or `cascade 32,16,8` with one count per
        level, coarsest first; or `cascade 20`, that many sweeps on every level; or a list of steps
        such as `pre 2, down, solve, up, post 1` (also `start` and `interpolate`). Numbers have at
        most nine digits.
    levels : int
        Number of levels.

    Raises
    ------
    TypeError
        If the text is not a string.
    ValueError
        If the text is malformed or empty, or if the schedule goes beyond the levels, does not end
        on level 0, or has more than half a million steps. The message gives the position.

    Examples
    --------
    >>> parse("F(2,1)", 4) == cycle(4, kappa=2, pre=2)
    True
    >>> parse("cascade 8", 3).text
    'start, solve 8, interpolate, post 8, interpolate, post 8'
    >>> parse("pre 2, down, pre 1", 2)
    Traceback (most recent call last):
    ValueError: cycle 'pre 2, down, pre 1', character 14: 'pre' ends the schedule on level 1; it
    must end on the finest level 0
    """
    if not isinstance(text, str):
        raise TypeError(f"parse got a {type(text).__name__}; give a text such as 'V(1,1)'")
    if not is_whole(levels, 1, math.inf):
        raise ValueError(f"parse got levels = {shown(levels)}; it must be an integer of at least 1")
    levels = int(levels)
    scanner = Scanner(text)
    if not text.strip():
        scanner.refuse(
            "the text is empty; give a cycle such as 'V(1,1)', 'nested F(1,1)', 'cascade 8,4,2' or "
            "a list of steps"
        )
    if scanner.take(r"cascade\b"):
        return _parse_cascade(scanner, levels)
    is_nested = scanner.take(r"nested\b") is not None
    letter = scanner.take(r"[VFW](?![a-z])|K(?=\s*\d)")
    if letter is None:
        if is_nested:
            scanner.refuse(f"{scanner.here()}; expected V, F, W or K<kappa> after 'nested'")
        return _parse_steps(scanner, levels)
    kappa = {"V": 1, "F": 2, "W": math.inf}.get(letter, 0) or _number(scanner, "kappa", 1)
    scanner.expect(r"\(", "'(' and the sweeps, such as V(1,1)")
    pre = _number(scanner, "the number of pre-sweeps", 0)
    scanner.expect(",", "',' and the number of post-sweeps")
    post = _number(scanner, "the number of post-sweeps", 0)
    coarsest = _number(scanner, "the number of coarse sweeps", 1) if scanner.take(",") else 1
    scanner.expect(r"\)", "')'")
    scanner.end()
    make = nested if is_nested else cycle
    return make(levels, kappa, pre, post, coarsest=coarsest)


_ACTION = "|".join(rf"{action}\b" for action in ACTIONS)
_WHOLE = "V, F, W, K<kappa>, nested, cascade, "  # the possible beginnings of a text
_TOO_MANY = f"at most {MOST_STEPS} steps are allowed"


def _number(scanner: Scanner, what: str, least: int) -> int:
    before = scanner.position
    digits = scanner.expect(r"-?\d+", f"{what}, an integer")
    few = len(digits.removeprefix("-")) <= MOST_DIGITS
    if few and digits[0] != "-" and int(digits) >= least:
        return int(digits)
    scanner.position = before
    if few:
        scanner.refuse(f"{what} is {digits}; it must be at least {least}")
    scanner.refuse(f"{scanner.here()}; {what} has at most {MOST_DIGITS} digits")


def _parse_cascade(scanner: Scanner, levels: int) -> Schedule:
    counts = [_number(scanner, "the sweeps of the coarsest level", 1)]
    while scanner.take(","):
        if len(counts) > MOST_STEPS:
            scanner.refuse(_TOO_MANY)
        counts.append(_number(scanner, "the sweeps of the next level", 0))
    scanner.end()
    if len(counts) not in (1, levels):
        scanner.refuse(
            f"{len(counts)} counts for {levels} levels; give one per level, coarsest first, or one "
            "for all"
        )
    if levels > MOST_STEPS:
        scanner.refuse(f"there are {shown(levels)} levels, and each needs a step; {_TOO_MANY}")
    return cascade(counts if len(counts) == levels else levels * counts)


def _parse_steps(scanner: Scanner, levels: int) -> Schedule:
    steps: list[Step] = []
    starts: list[int] = []  # position of each step in the text
    position = 0
    known: dict[Step, Step] = {}  # equal steps are one object
    while True:
        if len(steps) == MOST_STEPS:
            scanner.refuse(_TOO_MANY)
        action = scanner.expect(_ACTION, f"one of {'' if steps else _WHOLE}{', '.join(ACTIONS)}")
        starts.append(scanner.position - len(action))
        count = (
            _number(scanner, "sweeps", 1)
            if action in COUNTED and scanner.take(r"(?=-?\d)") is not None
            else 1
        )
        if action == "start":
            position = levels - 1
        level = position - (action in ("up", "interpolate"))
        step = Step(action, level, count)
        steps.append(known.setdefault(step, step))
        position = level + (action == "down")
        if not scanner.take(","):
            break
    scanner.end()
    fault = find_fault(steps, levels)
    if fault is not None:
        scanner.position = starts[fault[0] - 1]
        scanner.refuse(fault[1])
    return Schedule(steps)
