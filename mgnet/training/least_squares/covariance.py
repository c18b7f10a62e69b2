"""How far noise in the data moves the parameters at a minimum, to first order.

Source: Bates and Watts, Nonlinear Regression Analysis and Its Applications (Wiley, 1988), chapter
2; the conventions are those of `scipy.optimize.curve_fit`.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch

from mgnet.training.least_squares.factorizations import singular_values
from mgnet.training.least_squares.problem import LeastSquares

__all__ = ["Covariance", "covariance", "pseudoinverse"]


class Covariance(NamedTuple):
    """What `covariance` gives.

    Attributes
    ----------
    errors : dict of str to tensor
        Standard errors, by the names of the module's trained parameters and in their shapes.
    matrix : tensor of shape (parameters, parameters)
        Covariances in the order of the flat vector.

    Examples
    --------
    >>> Covariance({"a": torch.tensor(2.0)}, torch.tensor([[4.0]])).errors["a"].item()
    2.0
    """

    errors: dict[str, torch.Tensor]
    matrix: torch.Tensor


def covariance(problem: LeastSquares, u: torch.Tensor, absolute_sigma: bool = False) -> Covariance:
    """The covariance of the parameters at a minimum, as `scipy.optimize.curve_fit` gives it.

    `s^2 (J^T J)^-1`, with `s^2` the sum of squares over the residuals more than parameters. For
    residuals that are independent, of equal variance, and nearly linear in the parameters over
    the errors.

    Parameters
    ----------
    problem : LeastSquares
        Without penalty and robust loss. Weights are 1 / variance of the samples, or in proportion.
    u : tensor of shape (parameters,)
        The parameters at the minimum; those of a module by `problem.start()`.
    absolute_sigma : bool
        Whether residuals have the variance 1, or samples 1 / weight, so that `s^2` is 1.

    Returns
    -------
    Covariance
        Infinite where the residuals do not determine a parameter.

    Warns
    -----
    UserWarning
        If they do not determine all, or there are no more residuals than parameters.

    Raises
    ------
    ValueError
        For a penalty or a robust loss, or where residuals or their Jacobian are not finite.

    Examples
    --------
    The mean of four measurements:

    >>> module = torch.nn.ParameterDict({"mean": torch.tensor([2.5])})
    >>> measured = torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> problem = LeastSquares.from_torch(module, lambda module: module["mean"] - measured)
    >>> round(covariance(problem, problem.start()).errors["mean"].item(), 6)  # s / sqrt(4)
    0.645497
    """
    _check(problem)
    r, J = problem.linearize(u)
    J = J.dense()
    if not bool(torch.isfinite(r).all()) or not bool(torch.isfinite(J).all()):
        raise ValueError(
            "covariance got residuals or a Jacobian that are not finite; give the parameters at "
            "a minimum"
        )
    rows, columns = J.shape
    _, inverse, unknown = pseudoinverse(J)
    if absolute_sigma:
        variance = problem.weight**2
    elif rows > columns:
        variance = 2.0 * problem.half_square(r) / (rows - columns)
    else:
        variance, unknown = 1.0, torch.ones_like(unknown)
    # The factor before the product: its square may overflow where the product does not.
    inverse = variance**0.5 * inverse
    matrix = inverse @ inverse.T
    if bool(unknown.any()):
        matrix[unknown] = math.inf
        matrix[:, unknown] = math.inf
        warnings.warn(
            f"covariance: {rows} residuals do not determine {int(unknown.sum())} of {columns} "
            "parameters and their errors; these are given as infinite",
            UserWarning,
            stacklevel=2,
        )
    named = problem.flat.named(matrix.diagonal().sqrt())
    return Covariance({name: part.double() for name, part in named.items()}, matrix)


def pseudoinverse(J: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Factors of `J^+ = V U^T`, and which unknowns J does not determine.

    Columns are scaled to the norm 1 before singular values are compared, so that the units of the
    unknowns play no role; singular values below the machine epsilon times the larger side of J,
    relative to the largest, count as zero.

    Parameters
    ----------
    J : tensor of shape (residuals, parameters)

    Returns
    -------
    U : tensor of shape (residuals, rank)
        Orthonormal columns.
    V : tensor of shape (parameters, rank)
        `V V^T` is the inverse of `J^T J`, where there is one.
    unknown : tensor of bool, of shape (parameters,)

    Examples
    --------
    >>> J = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    >>> U, V, unknown = pseudoinverse(J)
    >>> unknown.tolist(), round((V @ U.T)[0, 0].item(), 6)
    ([False, True], 0.5)
    """
    norms = J.norm(dim=0)
    scale = torch.where(norms > 0.0, norms, torch.ones_like(norms))
    U, sizes, V = singular_values(J / scale, max(J.shape) * torch.finfo(J.dtype).eps)
    unknown = V.square().sum(1) < 1.0 - 1e-6  # part of it is in the null space
    return U, V / sizes.T / scale.unsqueeze(1), unknown


def _check(problem: LeastSquares) -> None:
    if not isinstance(problem, LeastSquares):
        raise TypeError(
            f"covariance got a problem of type {type(problem).__name__}; give a LeastSquares, such "
            "as LeastSquares.from_torch(module, residual)"
        )
    if problem.penalty is not None or problem.bend is not None:
        found = "a penalty" if problem.penalty is not None else f"the loss {problem.bend.name!r}"  # type: ignore[union-attr]
        raise ValueError(
            f"covariance got a problem with {found}; its formula holds for plain squares of data "
            "alone: for others repeat the fit with data drawn anew (bootstrap)"
        )
