"""Weights that make a fourth-kind Chebyshev smoother optimal for V-cycles."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["MOST_OPTIMAL", "optimal_weights"]

#: The highest degree whose weights are computed; up to it their equations hold to 1e-12.
MOST_OPTIMAL = 100


@lru_cache
def optimal_weights(degree: int) -> tuple[float, ...]:
    """Compute the weights beta of the steps of an optimal fourth-kind Chebyshev polynomial.

    Let p be the error polynomial of a smoother, with `p(0) = 1`, on eigenvalues x in (0, 1]. The
    contraction of a V-cycle is then bounded by a function of the largest `x p(x)^2 / (1 - p(x)^2)`.
    The optimal p of a given degree attains this maximum at x = 0, at x = 1 and between any two
    adjacent roots. Source: Lottes, Optimal polynomial smoothers for multigrid V-cycles, Numer.
    Linear Algebra Appl. 30 (2023) e2518, arXiv 2202.08830.

    Parameters
    ----------
    degree : int
        Degree of the polynomial, from 1 to `MOST_OPTIMAL`.

    Returns
    -------
    tuple of float
        Weights of the steps, the first step first.

    Examples
    --------
    >>> optimal_weights(1)
    (1.125,)
    >>> [round(weight, 6) for weight in optimal_weights(2)]
    [1.023873, 1.264089]
    """
    roots = _optimal_roots(degree)
    # p in the polynomials W_j(1 - 2 x) of the fourth kind: the steps without weights leave
    # W_j / (2 j + 1) of the error, so beta_j is 1 less the coefficients before it.
    angles = (np.arange(degree + 1) + 0.5) * np.pi / (degree + 1)
    orders = np.arange(degree + 1)
    basis = np.sin((orders + 0.5) * angles[:, None]) / np.sin(0.5 * angles)[:, None]
    p = np.prod(1.0 - 0.5 * (1.0 - np.cos(angles))[:, None] / roots, axis=1)
    coefficients = np.linalg.solve(basis, p) * (2 * orders + 1)
    return tuple((1.0 - np.cumsum(coefficients[:-1])).tolist())


def _optimal_roots(degree: int) -> np.ndarray:
    """Roots of the optimal p, by Newton's method from those of the fourth-kind polynomial."""
    roots = 0.5 - 0.5 * np.cos(np.arange(1, degree + 1) / (degree + 0.5) * np.pi)
    for _ in range(50):
        x = np.append(_maxima(roots), 1.0)
        p = np.prod(1.0 - x[:, None] / roots, axis=1)
        w = x / (1.0 - p**2)
        values = np.sqrt(w) * abs(p)
        at_zero = np.sqrt(0.5 / (1.0 / roots).sum())
        slopes = at_zero**3 / roots**2 + (w * values)[:, None] / (roots * (x[:, None] - roots))
        step = np.linalg.solve(slopes, values - at_zero)
        roots = roots + step
        if abs(step).max() < 1e-14:
            break
    return roots


def _maxima(roots: np.ndarray) -> np.ndarray:
    """Points between adjacent roots where `x p^2 / (1 - p^2)` is largest, by bisection."""
    low, high = roots[:-1], roots[1:]
    for _ in range(60):
        x = 0.5 * (low + high)
        p = np.prod(1.0 - x[:, None] / roots, axis=1)
        rising = 0.5 * (1.0 - p**2) + x * (1.0 / (x[:, None] - roots)).sum(axis=1) > 0.0
        low, high = np.where(rising, x, low), np.where(rising, high, x)
    return 0.5 * (low + high)
