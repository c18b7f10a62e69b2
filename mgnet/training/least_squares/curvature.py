"""Corrections of a step with the same Jacobian: geodesic acceleration and repeated corrections.

Sources: Transtrum and Sethna, arXiv 1201.5885 (geodesic acceleration). For several steps per
Jacobian, which however aim at residuals of zero, see Fan, Math. Comp. 81 (2012) 447-466, and Fan,
Huang and Pan, J. Sci. Comput. 78 (2019) 531-548.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from mgnet.training.least_squares.scaling import precision
from mgnet.training.least_squares.units import size_of

__all__ = ["bent", "corrected"]

AHEAD = 0.1  # part of the step at which the curvature of the residuals is measured
# Factor of the damping in corrections; up to 1e5 the results are alike, smaller ones are worse.
STRONGER = 1e3
CLOSE = 1e-2  # a gap counts as closed when it is this much smaller than the residuals, in squares
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
    """The step with geodesic acceleration, and the ratio of twice the acceleration to the step.

    Parameters
    ----------
    told : Linearized
        Linearization at the start of the step.
    d, image : tensor
        The step, of shape (parameters,), and `J d`.
    solve : callable
        Solver of the damped system: it maps y to the solution for `J^T y`.
    system : NormalEquations, KrylovEquations or SingularEquations
        System of the step.
    most : float
        Largest allowed ratio; the step is None if the ratio exceeds it.
    before : float
        Ratio of the last step, returned if the ratio of this one is too large. In that case a step
        so short that its curvature is only rounding is returned without acceleration.
    """
    ahead = told.problem.residuals(told.u + (AHEAD * d).to(told.u.dtype))
    a = solve(((ahead - told.r) / AHEAD - image) * (-2.0 / AHEAD))
    longer, length = 2.0 * size_of(a, system.unit), size_of(d, system.unit)
    if not longer <= most * length:
        # For a step this short, only rounding is left of the curvature.
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
    """The end of a step after corrections, its residuals, and the number of evaluations.

    In a long curved valley the residuals at the end of a step differ from the prediction of the
    linear model, `goal = r + J d`, because the residuals are curved. The difference lies mainly in
    directions with large singular values, so it can be removed with the Jacobian from the start of
    the step. The correction `c = (J^T J + 1000 mu s D^2)^-1 J^T (goal - r(u + d))` is added
    repeatedly. Each correction costs an evaluation of the residuals and a back substitution.

    Parameters
    ----------
    told : Linearized
        Linearization at the start of the step.
    image : tensor
        `J d` for the step of the linear model.
    new, r : tensor
        End of the step with acceleration, and the residuals there.
    system : NormalEquations or SingularEquations
        System of the step.
    mu : float
        Damping of the step.
    most : int
        Largest number of corrections.
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
