"""Coarse levels with fewer samples: only as many as their parameters need."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from mgnet.hierarchy import Hierarchy
from mgnet.level import Level
from mgnet.limits import is_number, shown
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.levels import Recenter
from mgnet.training.loss.objective import Objective

__all__ = ["coarse_rows", "unseen"]

ROWS = 10.0  # samples per parameter on coarse levels by default
# At least this many samples in all: a sweep of Levenberg-Marquardt with 2000 took 10 to 20 % longer
# than with 1000 or 400, since the fixed cost of a sweep dominates.
LEAST = 2000


def coarse_rows(hierarchy: Hierarchy, rows: float | str | None = "auto") -> Hierarchy:
    """The same hierarchy with fewer samples on its coarse levels; the finest level has them all.

    A level with p parameters has `min(all, rows * p)` samples. All levels use the first samples of
    the same random order, so each level contains the samples of all coarser levels, however the
    data are sorted. Class labels keep their proportions, and sample weights are taken into account
    (`Objective.split`). For a `Collocation` the points are the samples; its terms with few points
    keep all of them.

    With batches (`with_data`), coarse levels also use fewer samples of each batch.

    The cost of a level decreases with its number of samples. The coarse objective then differs from
    the fine one, so the hierarchy is no longer `nested`, and the initial value on a finer level may
    exceed the final value on the coarser one.

    Parameters
    ----------
    hierarchy : Hierarchy
        Levels with an `Objective` as their operator.
    rows : float, "auto" or None
        Samples per parameter, at least 1. "auto" means 10, and at least 2000 in all (fewer save
        hardly any time), for objectives that have samples. None or inf means all samples.

    Raises
    ------
    TypeError
        If a level has no samples, for example with `from_torch`, and rows is a number.

    Examples
    --------
    >>> import torch
    >>> from mgnet.knots import KAN, knot_hierarchy
    >>> from mgnet.training import LeastSquares, LevenbergMarquardt
    >>> x = torch.linspace(-1, 1, 1000, dtype=torch.float64).unsqueeze(1)
    >>> kan = KAN([1, 3, 1])
    >>> problem = LeastSquares(kan, (x, torch.sin(8 * x)))
    >>> hierarchy = knot_hierarchy(kan, problem, 3, LevenbergMarquardt())
    >>> [level.operator.samples for level in coarse_rows(hierarchy, 10.0)]
    [1000, 660, 420]
    """
    automatic = isinstance(rows, str) and rows == "auto"
    if not (automatic or rows is None or is_number(rows, 1.0, math.inf)):
        raise ValueError(
            f"coarse_rows got rows {shown(rows)}; give samples per parameter, at least 1, or None "
            "for all"
        )
    if rows is None or rows == math.inf:
        return hierarchy
    for level in () if automatic else hierarchy[1:]:
        if not _has_samples(level):
            raise TypeError(
                f"coarse_rows got rows {shown(rows)}, but {level} has no samples; leave rows out, "
                "or give it an objective of data"
            )
    wanted, least = (ROWS, LEAST) if automatic else (float(rows), 1)
    made = hierarchy.with_levels(
        lambda levels: [levels[0], *(_thinned(level, wanted, least) for level in levels[1:])]
    )
    if all(old is new for old, new in zip(hierarchy, made, strict=True)):
        return hierarchy
    return Hierarchy(list(made), norm=made.norm, dot=made.dot, bind=made.bind, network=made.network)


def unseen(whole: Level, thinned: Level) -> tuple[Objective | None, float]:
    """The objective on the samples that a thinned level leaves out, and their share of all samples.

    The objective is None if the level uses all samples, or if it leaves out fewer samples than it
    has parameters, which are too few to be useful.
    """
    if thinned is whole:
        return None, 1.0
    problem, seen = whole.operator, thinned.operator.samples
    left = problem.samples - seen
    if left < _parameters(problem):
        return None, 1.0
    return problem.split(seen)[1], left / problem.samples


def _thinned(level: Level, rows: float, least: int) -> Level:
    """The level with this many samples per parameter; the same level if it has no more."""
    problem: Any = level.operator
    if not _has_samples(level):
        return level
    count = _worth(max(least, math.ceil(rows * _parameters(problem))), problem)
    if count >= problem.samples:
        return level
    few = problem.split(count)[0]
    cost = level.evaluation_cost * few.samples / problem.samples
    recenter = level.recenter
    if isinstance(recenter, Recenter):
        recenter = replace(recenter, fine=few, cost=cost)
    objective = few.value if level.objective == problem.value else level.objective
    name = level.name and f"{level.name}, {few.samples} of {problem.samples} samples"
    return replace(
        level, operator=few, objective=objective, recenter=recenter, cost=cost, name=name
    )


def _has_samples(level: Level) -> bool:
    """Whether the level has samples, and no residual or Jacobian of its own that uses them all."""
    own = level.residual is not None or level.linearize is not None
    return not own and isinstance(level.operator, Objective) and level.operator.samples > 0


def _worth(count: int, problem: Objective) -> int:
    """Number of samples that carry as much information as `count` samples of equal weight.

    The mean of samples with weights w is as accurate as the mean of `(sum w)^2 / sum w^2` samples
    of equal weight. Source: Kish, Survey Sampling (Wiley, 1965), section 11.7.
    """
    weights = problem.sample_weight if isinstance(problem, LeastSquares) else None
    if weights is None:
        return count
    relative = weights / weights.max()
    alike = float(relative.sum() ** 2 / relative.square().sum())
    return math.ceil(count * problem.samples / alike)


def _parameters(problem: Objective) -> int:
    return sum(shape.numel() for shape in problem.shapes.values())
