"""The problems of Moré, Garbow and Hillstrom whose number of unknowns can be chosen.

Problems 20 to 35 of "Testing unconstrained optimization software", ACM TOMS 7 (1981) 17-41, as
residuals of n unknowns. The linear ones and Chebyquad may have more residuals, m.
"""

from __future__ import annotations

import math

import torch

from tests.training.least_squares.standard.problem import vector
from tests.training.least_squares.standard.small import count


def watson(x: torch.Tensor) -> torch.Tensor:
    t, n = count(1, 29) / 29.0, len(x)
    powers = t[:, None] ** count(0, n - 1)
    polynomial, slope = powers @ x, powers[:, :-1] @ (count(1, n - 1) * x[1:])
    last = torch.stack([x[0], x[1] - x[0] ** 2 - 1.0])
    return torch.cat([slope - polynomial**2 - 1.0, last])


def extended_rosenbrock(x: torch.Tensor) -> torch.Tensor:
    odd, even = x[0::2], x[1::2]
    return torch.stack([10.0 * (even - odd**2), 1.0 - odd], 1).flatten()


def extended_powell_singular(x: torch.Tensor) -> torch.Tensor:
    a, b, c, d = x[0::4], x[1::4], x[2::4], x[3::4]
    return torch.stack(
        [
            a + 10.0 * b,
            math.sqrt(5.0) * (c - d),
            (b - 2.0 * c) ** 2,
            math.sqrt(10.0) * (a - d) ** 2,
        ],
        1,
    ).flatten()


def penalty_1(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([math.sqrt(1e-5) * (x - 1.0), x.square().sum()[None] - 0.25])


def penalty_2(x: torch.Tensor) -> torch.Tensor:
    n = len(x)
    e, y = torch.exp(x / 10.0), torch.exp(count(1, n) / 10.0)
    pairs = e[1:] + e[:-1] - (y[1:] + y[:-1])
    weighted = (count(1, n).flip(0) * x**2).sum() - 1.0
    small = math.sqrt(1e-5) * torch.cat([pairs, e[1:] - math.exp(-0.1)])
    return torch.cat([x[:1] - 0.2, small, weighted[None]])


def variably_dimensioned(x: torch.Tensor) -> torch.Tensor:
    total = (count(1, len(x)) * (x - 1.0)).sum()[None]
    return torch.cat([x - 1.0, total, total**2])


def trigonometric(x: torch.Tensor) -> torch.Tensor:
    i, cosine = count(1, len(x)), torch.cos(x)
    return len(x) - cosine.sum() + i * (1.0 - cosine) - torch.sin(x)


def brown_almost_linear(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[:-1] + (x.sum() - (len(x) + 1.0)), x.prod()[None] - 1.0])


def boundary_value(x: torch.Tensor) -> torch.Tensor:
    h = 1.0 / (len(x) + 1.0)
    t, edge = count(1, len(x)) * h, torch.zeros(1, dtype=x.dtype)
    left, right = torch.cat([edge, x[:-1]]), torch.cat([x[1:], edge])
    return 2.0 * x - left - right + h**2 * (x + t + 1.0) ** 3 / 2.0


def integral_equation(x: torch.Tensor) -> torch.Tensor:
    h = 1.0 / (len(x) + 1.0)
    t = count(1, len(x)) * h
    kernel = torch.minimum(t, t[:, None]) * (1.0 - torch.maximum(t, t[:, None]))
    return x + h / 2.0 * (kernel @ (x + t + 1.0) ** 3)


def broyden_tridiagonal(x: torch.Tensor) -> torch.Tensor:
    edge = torch.zeros(1, dtype=x.dtype)
    left, right = torch.cat([edge, x[:-1]]), torch.cat([x[1:], edge])
    return (3.0 - 2.0 * x) * x - left - 2.0 * right + 1.0


def broyden_banded(x: torch.Tensor) -> torch.Tensor:
    ones = torch.ones(len(x), len(x), dtype=x.dtype)
    band = ones.tril(1).triu(-5) - torch.eye(len(x), dtype=x.dtype)
    return x * (2.0 + 5.0 * x**2) + 1.0 - band @ (x * (1.0 + x))


def linear_full_rank(m: int, x: torch.Tensor) -> torch.Tensor:
    first = torch.cat([x, torch.zeros(m - len(x), dtype=x.dtype)])
    return first - (2.0 / m * x.sum() + 1.0)


def linear_rank_1(m: int, x: torch.Tensor) -> torch.Tensor:
    return count(1, m) * (count(1, len(x)) * x).sum() - 1.0


def linear_rank_1_zeros(m: int, x: torch.Tensor) -> torch.Tensor:
    """With zero columns and rows."""
    inner = (count(2, len(x) - 1) * x[1:-1]).sum()
    return torch.cat([vector([0.0]), count(1, m - 2), vector([0.0])]) * inner - 1.0


def chebyquad(m: int, x: torch.Tensor) -> torch.Tensor:
    t = 2.0 * x - 1.0
    before, now, means = torch.ones_like(x), t, []
    for _ in range(m):
        means.append(now.mean())
        before, now = now, 2.0 * t * now - before
    integrals = [0.0 if i % 2 else -1.0 / (i**2 - 1.0) for i in range(1, m + 1)]
    return torch.stack(means) - vector(integrals)
