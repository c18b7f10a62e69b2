"""Levenberg-Marquardt without a matrix: its linear systems by preconditioned conjugate gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch

from mgnet.training.jacobian import Jacobian

__all__ = ["Gradients", "KrylovEquations", "Preconditioner", "Prepared", "conjugate_gradients"]

Product = Callable[[torch.Tensor], torch.Tensor]


class Prepared(Protocol):
    """What a preconditioner knows of one Jacobian, for any damping."""

    @property
    def scale(self) -> float:
        """The mean of the diagonal of `J^T J`."""
        ...

    def shifted(self, shift: float) -> tuple[Product, Product]:
        """Products with `J^T J + shift I`, and with an approximation of its inverse."""
        ...


class Preconditioner(Protocol):
    """Makes approximate inverses; `mgnet.knots.KnotMultigrid` is one."""

    def prepare(self, J: Jacobian) -> Prepared:
        """The part of the set-up that does not depend on the damping."""
        ...


class Gradients(NamedTuple):
    """What conjugate gradients found.

    Attributes
    ----------
    value : tensor
    iterations : int
    residual_norm : float
        Relative to that of b.
    converged : bool
        False also after a breakdown: the matrix or the preconditioner was not positive definite to
        rounding, or a number not finite. The value is then the last good one.
    """

    value: torch.Tensor
    iterations: int
    residual_norm: float
    converged: bool


def conjugate_gradients(
    product: Product,
    b: torch.Tensor,
    precondition: Product,
    rtol: float = 1e-6,
    max_iterations: int = 1000,
) -> Gradients:
    """Solve `A x = b` from x = 0; ends when `|b - A x| <= rtol |b|`.

    Parameters
    ----------
    product, precondition : callable
        A x, and B r with B symmetric positive definite, near the inverse of A.
    b : tensor of shape (unknowns,)
    rtol : float
    max_iterations : int

    Examples
    --------
    >>> A = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    >>> found = conjugate_gradients(A.matmul, A.sum(1), lambda r: r / 2.0)
    >>> found.value.tolist(), found.iterations
    ([1.0, 1.0], 2)
    """
    x, r, first = torch.zeros_like(b), b, float(b.norm())
    if first == 0.0:
        return Gradients(x, 0, 0.0, True)
    p, energy, norm = torch.zeros_like(b), 1.0, 1.0
    for iteration in range(max_iterations):
        z = precondition(r)
        energy, before = float(r @ z), energy
        if not 0.0 < energy < math.inf:
            return Gradients(x, iteration, norm, False)
        p = z + (energy / before) * p
        Ap = product(p)
        curvature = float(p @ Ap)
        if not 0.0 < curvature < math.inf:
            return Gradients(x, iteration, norm, False)
        x = x + (energy / curvature) * p
        r = r - (energy / curvature) * Ap
        norm = float(r.norm()) / first
        if norm <= rtol:
            return Gradients(x, iteration + 1, norm, True)
    return Gradients(x, max_iterations, norm, False)
