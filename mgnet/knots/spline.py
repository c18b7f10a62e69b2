"""Uniform B-splines by local evaluation.

The order is r = degree + 1. On n intervals of [a, b], there are n + degree splines, numbered from
the left. On one interval, degree + 1 of them are nonzero; they are polynomials in the local
coordinate.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import comb, factorial

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots.plain_operators import exact

__all__ = [
    "dense_basis",
    "derivative_pieces",
    "evaluate",
    "local_basis",
    "locate",
    "polynomial_coefficients",
    "polynomials",
    "roughness_factor",
    "roughness_rows",
]


@cache
def _pieces(degree: int) -> np.ndarray:
    """Coefficients (spline, power of s) of the degree + 1 splines on one interval, s in [0, 1].

    The j-th of them is the cardinal B-spline of order r at s + degree - j, expanded from truncated
    powers.
    """
    pieces = np.zeros((degree + 1, degree + 1))
    for j in range(degree + 1):
        for k in range(degree - j + 1):
            shift = degree - j - k
            sign = (-1) ** k * comb(degree + 1, k)
            for power in range(degree + 1):
                pieces[j, power] += sign * comb(degree, power) * float(shift) ** (degree - power)
    return pieces / factorial(degree)


def derivative_pieces(intervals: int, degree: int, domain: tuple[float, float], order: int):
    """The splines' derivatives on one interval as polynomials in s, and beyond the domain.

    Returns
    -------
    (powers, ends)
        `powers` is an array (spline, power of s), lowest power first. `ends` is an array (2,
        spline) with the slopes of the linear continuation of the functions in `powers`, beyond the
        left and the right end.

    Examples
    --------
    >>> powers, ends = derivative_pieces(2, 1, (0.0, 1.0), order=0)
    >>> powers.tolist(), ends.tolist()
    ([[1.0, -1.0], [0.0, 1.0]], [[-2.0, 2.0], [-2.0, 2.0]])
    """
    scale = intervals / (domain[1] - domain[0])
    powers = _pieces(degree)
    for _ in range(order):
        powers = np.pad(powers[:, 1:] * np.arange(1, degree + 1), [(0, 0), (0, 1)]) * scale
    slopes = powers[:, 1:] * np.arange(1, degree + 1) * scale
    ends = np.stack([slopes[:, 0], slopes.sum(1)])
    return powers, ends if order == 0 else np.zeros_like(ends)


@torch.compiler.assume_constant_result  # compilers and exporters need not trace NumPy
def polynomials(
    intervals: int, degree: int, domain: tuple[float, float], order: int
) -> tuple[tuple[float, ...], ...]:
    """The `powers` of `derivative_pieces`, without those that vanish for this order.

    Examples
    --------
    >>> polynomials(2, 1, (0.0, 1.0), order=1)
    ((-2.0,), (2.0,))
    """
    powers, _ = derivative_pieces(intervals, degree, domain, order)
    return tuple(map(tuple, powers[:, : max(degree - order, 0) + 1].tolist()))


def locate(
    x: torch.Tensor, intervals: int, domain: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The interval of x, the local coordinate s in it, and the distance beyond the domain.

    Examples
    --------
    >>> interval, s, beyond = locate(torch.tensor([0.75, 2.0]), 2, (0.0, 1.0))
    >>> interval.tolist(), s.tolist(), beyond.tolist()
    ([1, 1], [0.5, 1.0], [0.0, 1.0])
    """
    a, b = (exact(end, x) for end in domain)
    inside = torch.clamp(x, a, b)  # type: ignore[call-overload]
    position = (inside - a) * exact(intervals / (domain[1] - domain[0]), x)
    interval = (
        position.detach().nan_to_num(0.0, 0.0, 0.0).floor().clamp(0, intervals - 1)
    )  # NaN remains in s
    return interval.long(), position - interval, x - inside


def evaluate(
    powers: Sequence[Sequence[float]] | torch.Tensor, s: torch.Tensor
) -> list[torch.Tensor]:
    """Evaluate polynomials (spline, power), lowest power first, at s; one tensor for each spline.

    A tensor of powers has the precision and device of s.

    Examples
    --------
    >>> evaluate([[1.0, -1.0], [0.0, 1.0]], torch.tensor(0.25))
    [tensor(0.7500), tensor(0.2500)]
    """
    if not isinstance(powers, torch.Tensor):
        powers = torch.tensor(powers, dtype=torch.float64).to(s)
    degree, values = powers.shape[1] - 1, []
    for row in powers:
        value = row[degree].expand_as(s)
        for m in reversed(range(degree)):
            value = torch.addcmul(row[m], value, s)
        values.append(value)
    return values


def local_basis(
    x: torch.Tensor,
    intervals: int,
    degree: int,
    domain: tuple[float, float],
    derivatives: int = 1,
) -> tuple[torch.Tensor, ...]:
    """The splines that are nonzero at x, and their derivatives, in one pass.

    Outside the domain, each spline is continued linearly with its value and slope at the boundary.

    Parameters
    ----------
    x : tensor of any shape
        The points.
    intervals, degree : int
        Number of intervals, and degree of the splines.
    domain : (float, float)
        The interval of all splines.
    derivatives : int
        Number of derivatives: 0 for values only, 1 for slopes as well, 2 for second derivatives as
        well, ...

    Returns
    -------
    (first, values, slopes, ...)
        `first` contains the number of the first of these splines, with the shape of x (int64). The
        other tensors have the shape of x + (degree + 1,).

    Examples
    --------
    >>> first, values, slopes = local_basis(torch.tensor([0.5]), 2, 1, (0.0, 1.0))
    >>> first.tolist(), values.tolist(), slopes.tolist()
    ([1], [[1.0, 0.0]], [[-2.0, 2.0]])
    """
    first, s, beyond = locate(x, intervals, domain)
    bases = []
    for order in range(max(derivatives, 1) + 1):
        powers = polynomials(intervals, degree, domain, order)
        bases.append(torch.stack(evaluate(powers, s), -1))
    beyond = beyond.unsqueeze(-1)
    bases[0] = bases[0] + bases[1] * beyond
    # Beyond the ends, the second derivative is 0; NaN remains NaN.
    bases[2:] = [torch.where(beyond.abs() > 0.0, 0.0, basis) for basis in bases[2:]]
    return first, *bases[: derivatives + 1]


def dense_basis(
    x: torch.Tensor,
    intervals: int,
    degree: int,
    domain: tuple[float, float],
    derivatives: int = 1,
) -> tuple[torch.Tensor, ...]:
    """All splines at x, with the shape of x + (intervals + degree,), and their derivatives.

    Examples
    --------
    >>> dense_basis(torch.tensor([0.5]), 2, 1, (0.0, 1.0))[0].tolist()
    [[0.0, 1.0, 0.0]]
    """
    first, *bases = local_basis(x, intervals, degree, domain, derivatives)
    index = first.unsqueeze(-1) + torch.arange(degree + 1, device=x.device)
    zeros = bases[0].new_zeros(*x.shape, intervals + degree)
    return tuple(zeros.scatter(-1, index, basis) for basis in bases)


def roughness_factor(intervals: int, degree: int) -> np.ndarray:
    """The matrix G with `|G u|^2 = integral of phi''^2` over [-1, 1] for spline coefficients u.

    Gauss quadrature is exact, so the value does not change under refinement. G is zero for degree
    1.

    Returns
    -------
    array of shape (intervals + degree, intervals + degree)
        The factor G.

    Examples
    --------
    >>> G = roughness_factor(1, 2)
    >>> u = polynomial_coefficients(np.array([0.0, 0.0, 1.0]), 1, 2, (-1.0, 1.0))  # phi = x^2
    >>> round(float(np.sum((G @ u) ** 2)), 12)
    8.0
    """
    if degree == 1:
        return np.zeros((intervals + 1, intervals + 1))
    nodes, weights = np.polynomial.legendre.leggauss(degree - 1)
    s = 0.5 * (nodes + 1.0)
    powers = np.arange(2, degree + 1)
    scale = 0.5 * intervals  # intervals per unit length
    second = _pieces(degree)[:, 2:] * (powers * (powers - 1))
    values = second @ s ** (powers - 2)[:, None] * scale**2  # (spline, node)
    gram = np.zeros((intervals + degree,) * 2)
    local = (values * weights) @ values.T / (2.0 * scale)
    for cell in range(intervals):
        gram[cell : cell + degree + 1, cell : cell + degree + 1] += local
    size, vectors = np.linalg.eigh(gram)
    return np.ascontiguousarray(np.sqrt(np.clip(size, 0.0, None))[:, None] * vectors.T)


def roughness_rows(intervals: int, degree: int) -> sp.csr_matrix:
    """A sparse G with the same `|G u|^2` as `roughness_factor`: phi'' at the quadrature points.

    Returns
    -------
    csr_matrix of shape (intervals (degree - 1), intervals + degree)
        The factor G.

    Examples
    --------
    >>> u = polynomial_coefficients(np.array([0.0, 0.0, 1.0]), 3, 2, (-1.0, 1.0))  # phi = x^2
    >>> G = roughness_rows(3, 2)
    >>> G.shape, round(float(np.sum((G @ u) ** 2)), 12)
    ((3, 5), 8.0)
    """
    shape = intervals * (degree - 1), intervals + degree
    if degree == 1:
        return sp.csr_matrix(shape)
    nodes, weights = np.polynomial.legendre.leggauss(degree - 1)
    powers, scale = np.arange(2, degree + 1), 0.5 * intervals
    second = _pieces(degree)[:, 2:] * (powers * (powers - 1))
    values = second @ (0.5 * (nodes + 1.0)) ** (powers - 2)[:, None] * scale**2  # (spline, node)
    values = values * np.sqrt(weights / (2.0 * scale))
    columns = np.arange(intervals)[:, None, None] + np.arange(degree + 1)
    entries, columns = np.broadcast_arrays(values.T, columns)  # (interval, node, spline)
    start = np.arange(0, entries.size + 1, degree + 1)
    return sp.csr_matrix((entries.ravel(), columns.ravel(), start), shape=shape)


def polynomial_coefficients(
    powers: np.ndarray, intervals: int, degree: int, domain: tuple[float, float]
) -> np.ndarray:
    """Spline coefficients of polynomials: the same functions on any number of intervals.

    They are computed by blossoming: the coefficient of spline i is the polar form at its inner
    knots.

    Parameters
    ----------
    powers : array of shape (..., degree + 1)
        Coefficients of 1, x, x^2, ...
    intervals, degree : int
        Number of intervals, and degree of the splines.
    domain : (float, float)
        The interval of the splines.

    Returns
    -------
    array of shape (..., intervals + degree)
        The spline coefficients.

    Examples
    --------
    >>> polynomial_coefficients(np.array([0.0, 1.0]), 2, 1, (0.0, 1.0))
    array([0. , 0.5, 1. ])
    """
    a, b = domain
    h = (b - a) / intervals
    # Elementary symmetric polynomials of the inner knots of each spline, from prod (1 + t z).
    number = np.arange(intervals + degree)
    weights = np.zeros((degree + 1, intervals + degree))
    weights[0] = 1.0
    for k in range(1, degree + 1):
        knots = a + (number - degree + k) * h
        weights[1:] += knots * weights[:-1].copy()
    weights /= np.array([[comb(degree, m)] for m in range(degree + 1)])
    return powers @ weights
