"""A training run from several starts, fewer of which continue on each finer level."""

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
    """One start and its progress.

    Attributes
    ----------
    number : int
        Number, counted from 0; 0 is the given start.
    u : state of the level at hand
        Current state.
    memory : dict
        Memory of the smoothers.
    part : Solution or None
        Result on the last level.
    reason : Reason or None
        Reason why the member left that level.
    """

    number: int
    u: State
    memory: Memory
    part: Solution | None = None
    reason: Reason | None = None


def members_on_levels(starts: int, keep: Sequence[int] | None, levels: int) -> list[int]:
    """Number of members to train on each level, coarsest first; by default it is halved each time.

    Raises
    ------
    ValueError
        If `starts` or `keep` are not positive integers, or `keep` increases.

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
            f"{levels - 1} positive integers, how many continue on each finer level, none larger "
            "than the one before"
        )
    return [int(number) for number in numbers]


def first_members(hierarchy: Hierarchy, u: State, starts: int, seed: int) -> list[Member]:
    """The given start and other random starts, as states of the coarsest level.

    Raises
    ------
    TypeError, ValueError
        If starts cannot be drawn, or the seed is out of range.

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
            f"train got {starts} starts, but {hierarchy[-1]} has no network for random "
            "starts; give it an Objective as its operator, or one start"
        )
    if starts > 1:
        _check_buffers(problem.network, starts)
    for number in range(1, int(starts)):
        # Seeds that a user is unlikely to choose, which would give the same networks.
        own = np.random.SeedSequence((int(seed), number)).generate_state(1, np.uint64)[0]
        members.append(Member(number, fresh_start("train", problem.network, int(own)).to(u), {}))
    return members


def _check_buffers(network: Any, starts: int) -> None:
    """Raise an error if training changes buffers, since all starts share one set of them."""
    for name, part in network.named_modules():
        if part.training and getattr(part, "track_running_stats", False):
            raise TypeError(
                f"train got {starts} starts, but the {type(part).__name__} {name!r} keeps running "
                "statistics, which all of them would share; call network.eval(), use a LayerNorm, "
                "or give one start"
            )


def parts_of_seconds(numbers: Sequence[int]) -> list[float]:
    """The fraction of the time limit at which each level is left, coarsest first.

    With one member, each level may take as long as all coarser levels together; with several
    members, these proportions hold for each of them.

    Parameters
    ----------
    numbers : sequence of int
        Number of members on each level, coarsest first.

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
    """The `count` members with the lowest scores, in the order of their numbers.

    Members that encountered NaN or Inf are excluded, so there may be fewer, or none.

    Parameters
    ----------
    members : list of Member
        Members to compare.
    count : int
        Number of members to keep.
    score : callable
        `state -> float`; not called if all members continue.

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
