"""Residuals bend along a step: it is bent with them, and corrected with the same Jacobian.

Sources: Transtrum and Sethna, arXiv 1201.5885 (geodesic acceleration). Several steps per Jacobian,
though toward zero: Fan, Math. Comp. 81 (2012) 447-466; Fan, Huang and Pan, J. Sci. Comput. 78
(2019) 531-548.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from mgnet.training.least_squares.scaling import precision
from mgnet.training.least_squares.units import size_of

__all__ = ["bent", "corrected"]

AHEAD = 0.1  # of the step, where the residuals tell how they bend
STRONGER = 1e3  # dampings of corrections; up to 1e5 is alike, less ends higher
CLOSE = 1e-2  # a gap so much smaller than the residuals, in squares, is closed
CONTRACTS = 0.8  # a correction must leave less of the squared gap

Solve = Callable[[torch.Tensor | None], torch.Tensor]


def bent(
    told: Any,
    d: torch.Tensor,
    image: torch.Tensor,
    solve: Solve,
    system: Any,
    most: float,
    before: float,
) -> tuple[torch.Tensor | None, float]:
    """The step with its geodesic acceleration, None where that is too large; twice their ratio.

    Parameters
    ----------
    told : Linearized
    d, image : tensor
        The step, of shape (parameters,), and `J d`.
    solve : callable
        Of the damped system: y to the solution for `J^T y`.
    system : NormalEquations, KrylovEquations or SingularEquations
    most : float
        The largest ratio of twice the acceleration to the step.
    before : float
        The last ratio, for a step of which only rounding is left.
    """
    ahead = told.problem.residuals(told.u + (AHEAD * d).to(told.u.dtype))
    a = solve(((ahead - told.r) / AHEAD - image) * (-2.0 / AHEAD))
    longer, length = 2.0 * size_of(a, system.unit), size_of(d, system.unit)
    if not longer <= most * length:
        # Of a step this short rounding is all that is left of the curvature.
        short = length <= precision(told.problem) ** 0.5 * size_of(told.u, system.unit)
        return (d if short else None), before
    return d + 0.5 * a, longer / length if length else 0.0


def corrected(
    told: Any,
    image: torch.Tensor,
    new: torch.Tensor,
    r: torch.Tensor,
    system: Any,
    mu: float,
    most: int,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The end of a step after corrections, its residuals, and how many were evaluated.

    In a long curved valley a step misses what the linear model promises, `goal = r + J d`, because
    the residuals bend. The gap lies where singular values are large, so the Jacobian of the start
    closes it, `c = (J^T J + 1000 mu s D^2)^-1 J^T (goal - r(u + d))` again and again: each takes an
    evaluation of the residuals and a back substitution.

    Parameters
    ----------
    told : Linearized
    image : tensor
        `J d`, of the step of the linear model.
    new, r : tensor
        Where the bent step leads to, and the residuals there.
    system : NormalEquations or SingularEquations
    mu : float
        The damping of the step.
    most : int
        Corrections.
    """
    goal = told.r + image.to(told.r.dtype)
    size, solve, count = told.problem.half_square, None, 0
    gap, fair = size(r - goal), CLOSE * size(goal)
    while count < most and fair < gap < math.inf:
        solve = solve or system.damped(STRONGER * mu)
        end = new + solve(goal - r).to(new.dtype)
        there = told.problem.residuals(end)
        count, left = count + 1, size(there - goal)
        if not left < CONTRACTS * gap:
            break
        new, r, gap = end, there, left
    return new, r, count
