"""Uniform B-splines by local evaluation.

Order r = degree + 1. On n intervals of [a, b] there are n + degree splines, numbered from the left;
on one interval degree + 1 of them do not vanish, and they are polynomials in the local coordinate.
"""

from __future__ import annotations

from functools import cache
from math import comb, factorial

import numpy as np
import torch

__all__ = [
    "dense_basis",
    "local_basis",
    "polynomial_coefficients",
    "roughness_factor",
    "spline_layer",
]


@cache
def _pieces(degree: int) -> np.ndarray:
    """Coefficients (spline, power of s) of the degree + 1 splines on one interval, s in [0, 1].

    The j-th is the cardinal B-spline of order r at s + degree - j, expanded from truncated powers.
    """
    pieces = np.zeros((degree + 1, degree + 1))
    for j in range(degree + 1):
        for k in range(degree - j + 1):
            shift = degree - j - k
            sign = (-1) ** k * comb(degree + 1, k)
            for power in range(degree + 1):
                pieces[j, power] += sign * comb(degree, power) * float(shift) ** (degree - power)
    return pieces / factorial(degree)


def local_basis(
    x: torch.Tensor, intervals: int, degree: int, domain: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The splines that do not vanish at x, and their first derivatives.

    Outside the domain each spline is continued linearly, from its boundary value and slope.

    Parameters
    ----------
    x : tensor of any shape
    intervals, degree : int
    domain : (float, float)

    Returns
    -------
    (first, values, slopes)
        `first`: number of the first of these splines, shape of x (int64). `values`, `slopes`:
        shape of x + (degree + 1,).

    Examples
    --------
    >>> first, values, slopes = local_basis(torch.tensor([0.5]), 2, 1, (0.0, 1.0))
    >>> first.tolist(), values.tolist(), slopes.tolist()
    ([1], [[1.0, 0.0]], [[-2.0, 2.0]])
    """
    a, b = domain
    scale = intervals / (b - a)
    inside = x.clamp(a, b)
    position = (inside - a) * scale
    first = position.detach().nan_to_num().floor().clamp(0, intervals - 1)  # NaN stays in `s`
    s = position - first
    pieces = torch.as_tensor(_pieces(degree), dtype=x.dtype, device=x.device)
    powers = [torch.ones_like(s)]
    for _ in range(degree):
        powers.append(powers[-1] * s)
    values = torch.stack(powers, -1) @ pieces.T
    steps = torch.stack([k * powers[k - 1] for k in range(1, degree + 1)], -1)
    slopes = (steps @ pieces[:, 1:].T) * scale
    return first.long(), values + slopes * (x - inside).unsqueeze(-1), slopes


def dense_basis(
    x: torch.Tensor, intervals: int, degree: int, domain: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """All splines at x, shape of x + (intervals + degree,), and their first derivatives.

    Examples
    --------
    >>> dense_basis(torch.tensor([0.5]), 2, 1, (0.0, 1.0))[0].tolist()
    [[0.0, 1.0, 0.0]]
    """
    first, values, slopes = local_basis(x, intervals, degree, domain)
    index = first.unsqueeze(-1) + torch.arange(degree + 1, device=x.device)
    zeros = values.new_zeros(*x.shape, intervals + degree)
    return zeros.scatter(-1, index, values), zeros.scatter(-1, index, slopes)


def spline_layer(
    x: torch.Tensor,
    coefficients: torch.Tensor,
    intervals: int,
    degree: int,
    domain: tuple[float, float],
) -> torch.Tensor:
    """One KAN layer: `sum_p sum_i coefficients[p, i, q] b_i(x_p)`.

    Only the degree + 1 splines that do not vanish at x_p are evaluated, so the cost does not grow
    with the number of intervals.

    Parameters
    ----------
    x : tensor of shape (..., inputs)
    coefficients : tensor of shape (inputs, intervals + degree, outputs)

    Returns
    -------
    tensor of shape (..., outputs)

    Examples
    --------
    >>> hat = torch.tensor([[[0.0], [1.0], [0.0]]])
    >>> spline_layer(torch.tensor([[0.25]]), hat, 2, 1, (0.0, 1.0)).tolist()
    [[0.5]]
    """
    inputs, splines, outputs = coefficients.shape
    first, values, _ = local_basis(x, intervals, degree, domain)
    row = first + splines * torch.arange(inputs, device=x.device)
    index = row.unsqueeze(-1) + torch.arange(degree + 1, device=x.device)
    picked = coefficients.reshape(inputs * splines, outputs)[index.flatten(-2)]
    return (values.flatten(-2).unsqueeze(-2) @ picked).squeeze(-2)


def roughness_factor(intervals: int, degree: int) -> np.ndarray:
    """G with `|G u|^2 = integral of phi''^2` over [-1, 1], for a spline with coefficients u.

    Exact by Gauss quadrature, so the value does not change under refinement. Zero for degree 1.

    Returns
    -------
    array of shape (intervals + degree, intervals + degree)

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


def polynomial_coefficients(
    powers: np.ndarray, intervals: int, degree: int, domain: tuple[float, float]
) -> np.ndarray:
    """Spline coefficients of polynomials: the same functions on any number of intervals.

    By blossoming: the coefficient of spline i is the polar form at its degree inner knots.

    Parameters
    ----------
    powers : array of shape (..., degree + 1)
        Coefficients of 1, x, x^2, ...

    Returns
    -------
    array of shape (..., intervals + degree)

    Examples
    --------
    >>> polynomial_coefficients(np.array([0.0, 1.0]), 2, 1, (0.0, 1.0))
    array([0. , 0.5, 1. ])
    """
    a, b = domain
    h = (b - a) / intervals
    weights = np.zeros((degree + 1, intervals + degree))
    for i in range(intervals + degree):
        # Elementary symmetric polynomials of the inner knots of spline i, from prod (1 + t z).
        symmetric = np.zeros(degree + 1)
        symmetric[0] = 1.0
        for k in range(1, degree + 1):
            knot = a + (i - degree + k) * h
            symmetric[1:] += knot * symmetric[:-1].copy()
        weights[:, i] = symmetric / [comb(degree, m) for m in range(degree + 1)]
    return powers @ weights
