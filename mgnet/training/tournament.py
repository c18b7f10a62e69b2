"""Several starts of one training, of which fewer go on to each finer level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgnet.hierarchy import Hierarchy
from mgnet.interpreter import Memory
from mgnet.limits import is_count, is_whole, shown
from mgnet.solution import Reason, Solution
from mgnet.training.loss.fresh_start import fresh_start
from mgnet.training.loss.objective import Objective

__all__ = ["Member", "best", "first_members", "members_on_levels", "parts_of_seconds"]

State = Any


@dataclass(eq=False)
class Member:
    """One start, and how far it has come.

    Attributes
    ----------
    number : int
        From 0 on; 0 is the start that was given.
    u : state of the level at hand
    memory : dict
        Of the smoothers.
    part : Solution or None
        What became of it on the last level.
    reason : Reason or None
        Why it left that level.
    """

    number: int
    u: State
    memory: Memory
    part: Solution | None = None
    reason: Reason | None = None


def members_on_levels(starts: int, keep: Sequence[int] | None, levels: int) -> list[int]:
    """How many members each level trains, coarsest first; by default half as many as the last.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> members_on_levels(8, None, 6), members_on_levels(8, None, 3)
    ([8, 4, 2, 1, 1, 1], [8, 4, 1])
    >>> members_on_levels(8, [3, 1], 3)
    [8, 3, 1]
    """
    if not is_count(starts):
        raise ValueError(f"train got starts {shown(starts)}; it must be a positive integer")
    if keep is None:
        halved = [max(1, int(starts) >> level) for level in range(levels - 1)]
        return [*halved, 1 if levels > 1 else int(starts)]
    listed = isinstance(keep, Sequence) and not isinstance(keep, str)
    numbers = [starts, *keep] if listed else []
    falls = all(map(is_count, numbers)) and numbers == sorted(numbers, reverse=True)
    if not falls or len(numbers) != levels:
        raise ValueError(
            f"train got keep {shown(keep)} for {shown(starts)} starts and {levels} levels; give "
            f"{levels - 1} positive integers, how many go on to each finer level, none larger than "
            "the one before"
        )
    return [int(number) for number in numbers]


def first_members(hierarchy: Hierarchy, u: State, starts: int, seed: int) -> list[Member]:
    """The given start and others, drawn anew: states of the coarsest level.

    Raises
    ------
    TypeError, ValueError
        Of what cannot be drawn anew.

    Examples
    --------
    >>> import torch
    >>> from mgnet import Level
    >>> from mgnet.training import LeastSquares, LevenbergMarquardt
    >>> x = torch.ones(3, 1)
    >>> problem = LeastSquares(torch.nn.Linear(1, 1), (x, x))
    >>> coarsest = Hierarchy([Level(problem, LevenbergMarquardt())])
    >>> [member.number for member in first_members(coarsest, problem.start(), 3, seed=0)]
    [0, 1, 2]
    """
    if not is_whole(seed) or seed < 0:
        raise ValueError(
            f"train got seed {shown(seed)}; it must be an integer at least 0 and less than 2**63"
        )
    members, problem = [Member(0, u, {})], hierarchy[-1].operator
    if starts > 1 and not isinstance(problem, Objective):
        raise TypeError(
            f"train got {starts} starts, but {hierarchy[-1]} has no network that it could draw "
            "anew; give it an Objective as its operator, or one start"
        )
    if starts > 1:
        _check_buffers(problem.network, starts)
    for number in range(1, int(starts)):
        # Seeds that no generator of a user is likely to have: their networks would be the same.
        own = np.random.SeedSequence((int(seed), number)).generate_state(1, np.uint64)[0]
        members.append(Member(number, fresh_start("train", problem.network, int(own)).to(u), {}))
    return members


def _check_buffers(network: Any, starts: int) -> None:
    """Raise if training moves buffers, of which there is one set for all starts."""
    for name, part in network.named_modules():
        if part.training and getattr(part, "track_running_stats", False):
            raise TypeError(
                f"train got {starts} starts, but the {type(part).__name__} {name!r} keeps running "
                "statistics, which all of them would share; call network.eval(), use a LayerNorm, "
                "or give one start"
            )


def parts_of_seconds(numbers: Sequence[int]) -> list[float]:
    """The part of the seconds after which each level is left, coarsest first.

    Of one member each level may take as long as all coarser ones together; a member of several has
    the same proportions.

    Parameters
    ----------
    numbers : sequence of int
        Of members on each level, coarsest first.

    Examples
    --------
    >>> parts_of_seconds([1, 1, 1])
    [0.25, 0.5, 1.0]
    >>> parts_of_seconds([4, 2, 1])
    [0.5, 0.75, 1.0]
    """
    finest = len(numbers) - 1
    own = [0.5 ** (finest - max(place - 1, 0)) for place in range(finest + 1)]
    times = np.cumsum([number * part for number, part in zip(numbers, own, strict=True)])
    return [float(time) for time in times / times[-1]]


def best(members: list[Member], count: int, score: Callable[[State], float]) -> list[Member]:
    """The `count` members with the least scores, in their order.

    Members that met NaN or Inf are left out, so there may be fewer, or none.

    Parameters
    ----------
    members : list of Member
    count : int
    score : callable
        `state -> float`; not asked where all go on.

    Examples
    --------
    >>> members = [Member(number, u, {}) for number, u in enumerate([3.0, 1.0, 2.0])]
    >>> [member.number for member in best(members, 2, lambda u: u)]
    [1, 2]
    """
    able = [member for member in members if member.reason is not Reason.NOT_FINITE]
    if len(able) <= count:
        return able
    scores = {member.number: score(member.u) for member in able}
    finite = [member for member in able if math.isfinite(scores[member.number])]
    first = sorted(finite, key=lambda member: scores[member.number])[:count]
    return sorted(first, key=lambda member: member.number)
