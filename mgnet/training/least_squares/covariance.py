"""Errors of the parameters at a minimum that noise in the data causes, to first order.

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
    """The result of `covariance`.

    Attributes
    ----------
    errors : dict of str to tensor
        Standard errors, by the names of the module's trained parameters and with their shapes.
    matrix : tensor of shape (parameters, parameters)
        Covariances in the order of the flat vector.

    Examples
    --------
    >>> Covariance({"a": torch.tensor(2.0)}, torch.tensor([[4.0]])).errors["a"].item()
    2.0
    """

    errors: dict[str, torch.Tensor]
    matrix: torch.Tensor


def covariance(
    problem: LeastSquares, u: torch.Tensor | None = None, absolute_sigma: bool = False
) -> Covariance:
    """The covariance of the parameters at a minimum, like that of `scipy.optimize.curve_fit`.

    The covariance is `s^2 (J^T J)^-1`, where `s^2` is the sum of squares divided by the number of
    residuals minus the number of parameters. The formula holds for independent residuals of equal
    variance that are nearly linear in the parameters over the range of the errors.

    Parameters
    ----------
    problem : LeastSquares
        Problem without penalty and robust loss. Weights are 1 / variance of the samples, or
        proportional to it.
    u : tensor of shape (parameters,), optional
        Parameters at the minimum, such as `solution.value`; by default the current parameters of
        the network.
    absolute_sigma : bool
        Whether every residual has variance 1 (with weights: every sample has variance 1 / weight),
        so that `s^2` is 1.

    Returns
    -------
    Covariance
        Standard errors and covariances; infinite for parameters that the residuals do not
        determine.

    Warns
    -----
    UserWarning
        If the residuals do not determine all parameters, or do not outnumber the parameters.

    Raises
    ------
    ValueError
        If the problem has a penalty or a robust loss, or values that are not finite.

    Examples
    --------
    The mean of four measurements:

    >>> module = torch.nn.ParameterDict({"mean": torch.tensor([2.5])})
    >>> measured = torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> problem = LeastSquares.from_torch(module, lambda module: module["mean"] - measured)
    >>> round(covariance(problem).errors["mean"].item(), 6)  # s / sqrt(4)
    0.645497
    """
    _check(problem)
    r, J = problem.linearize(problem.start() if u is None else u)
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
    # Multiply by the factor first: its square may overflow when the product does not.
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
    """Factors of `J^+ = V U^T`, and the unknowns that J does not determine.

    Columns are scaled to norm 1 before singular values are compared, so that the result does not
    depend on the units of the unknowns. Singular values below the machine epsilon times the larger
    side of J, relative to the largest one, count as zero.

    Parameters
    ----------
    J : tensor of shape (residuals, parameters)
        Matrix to decompose.

    Returns
    -------
    U : tensor of shape (residuals, rank)
        Orthonormal columns.
    V : tensor of shape (parameters, rank)
        Matrix such that `V V^T` is the inverse of `J^T J`, if it exists.
    unknown : tensor of bool, of shape (parameters,)
        True for unknowns that J does not determine.

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
            "alone: for others, repeat the fit with resampled data (bootstrap)"
        )
