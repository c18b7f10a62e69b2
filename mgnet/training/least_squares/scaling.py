"""Least squares in a unit as large as its residuals, whose squares might overflow or underflow.

A residual of 1e-170 or 1e160 is an ordinary number, but its square is not representable.
Levenberg-Marquardt only compares squares, so a unit that is a power of two yields the same steps,
bit for bit.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from mgnet import norms

__all__ = ["Rescaled", "norm", "power_of_two", "precision", "unit_of"]

# Range of a sum of squares in which its terms, differences and products with 1e-16 are
# representable.
LEAST, MOST = 1e-200, 1e200


def power_of_two(size: float) -> float:
    """The power of two at or below a positive number; 1 for zero, NaN and Inf.

    Examples
    --------
    >>> power_of_two(5.0), power_of_two(0.0)
    (4.0, 1.0)
    """
    return math.ldexp(1.0, math.frexp(size)[1] - 1) if 0.0 < size < math.inf else 1.0


def norm(v: torch.Tensor) -> float:
    """The Euclidean norm, correct even if squares overflow or underflow.

    Examples
    --------
    >>> norm(torch.tensor([3e-200, 4e-200], dtype=torch.float64))
    5e-200
    """
    found = float(v.norm())  # in the precision of v
    return found if 1e-150 < found < 1e150 else norms.norm(v)


def unit_of(problem: Any, r: torch.Tensor, half_square: float, u: torch.Tensor) -> float:
    """The unit in which to measure residuals r: 1 if half their squared norm is safely in range.

    Parameters
    ----------
    problem : LeastSquares
        Problem of the residuals.
    r : tensor
        Result of `problem.residuals`: all residuals, or those of this rank.
    half_square : float
        Result of `problem.half_square(r)`.
    u : tensor
        State at which the residuals were evaluated; it is measured in the same unit.
    """
    if LEAST < half_square < MOST:
        return 1.0
    unit = power_of_two(problem.largest(r))
    # Parameters of ordinary size overflow in the unit of residuals of 1e-310.
    return unit if bool(torch.isfinite(u / unit).all()) else 1.0


def precision(problem: Any) -> float:
    """The machine epsilon of the network of a problem: the largest among its parameters.

    Examples
    --------
    >>> from mgnet.training import LeastSquares
    >>> precision(LeastSquares.from_torch(torch.nn.Linear(1, 1), lambda m: m.weight))
    1.1920928955078125e-07
    """
    return max(torch.finfo(p.dtype).eps for p in problem.flat.trainable.values())


class Rescaled:
    """A least-squares problem in another unit: `r(unit v) / unit` over v.

    Parameters
    ----------
    problem : LeastSquares
        Problem in the original unit.
    unit : float
        Unit, a power of two.
    """

    def __init__(self, problem: Any, unit: float):
        self.problem = problem
        self.unit = unit

    #: Subtrahend of the coarse problem of a descent, as for `LeastSquares`; it is contained in f.
    shift = None

    @property
    def flat(self) -> Any:
        """The parameters, like those of `LeastSquares`."""
        return self.problem.flat

    @property
    def tells_units(self) -> bool:
        """Whether column norms reveal the units of unknowns, as for `LeastSquares`."""
        return self.problem.tells_units

    @property
    def shapes(self) -> Any:
        """Shapes of the parameters, like those of `LeastSquares`."""
        return self.problem.shapes

    def residuals(self, v: torch.Tensor) -> torch.Tensor:
        """The residual vector in this unit."""
        return self.problem.residuals(self.unit * v) / self.unit

    def half_square(self, r: torch.Tensor) -> float:
        """`1/2 |r|^2`, in multiples of the squared unit."""
        return self.problem.half_square(r)
