"""The damped Gauss-Newton system from singular values: one factorization serves every damping."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from mgnet.training.least_squares.jacobian import Jacobian, squared

__all__ = ["SingularEquations"]

CLOSE = 0.1  # relative accuracy of the length of a step as the radius, as in MINPACK
NEWTON = 30  # limit on Newton steps to find that damping


@dataclass(frozen=True, eq=False)
class SingularEquations:
    """`(J^T J + mu s D^2) d = -J^T r`, like `NormalEquations`, to full accuracy for any damping.

    With `J D^-1 = U S V^T`, `D d = -V S (S^2 + mu s)^-1 U^T r`. mu may be zero; d is then the
    Gauss-Newton step of least length `|D d|`. This costs several times a Cholesky factorization.

    Parameters
    ----------
    J : Jacobian of shape (residuals, parameters)
        The Jacobian.
    r : tensor of shape (residuals,)
        The residuals.
    unit : tensor of shape (parameters,), optional
        The diagonal of `D^-1`; ones by default.

    Examples
    --------
    >>> from mgnet.training.least_squares.jacobian import DenseJacobian
    >>> J, r = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double(), torch.tensor([4.0, 3.0]).double()
    >>> system = SingularEquations(DenseJacobian(J), r)
    >>> [round(float(x), 9) for x in system.damped(0.0)(None)]
    [-2.0, -3.0]
    >>> round(float(system.damped(system.damping_at(1.0, 0.0))(None).norm()), 1)
    1.0
    """

    J: Jacobian
    r: torch.Tensor
    unit: torch.Tensor | None = None

    def measured(self, unit: torch.Tensor | None) -> SingularEquations:
        """The same system in other units."""
        return replace(self, unit=unit)

    @cached_property
    def columns(self) -> torch.Tensor:
        """The squared column norms of the Jacobian, without the units."""
        return self.J.squares()

    def gram_of(self, held: torch.Tensor) -> torch.Tensor:
        """The block of `J^T J` for the unknowns with these indices, without the units."""
        return squared(self.J.dense()[:, held])

    @cached_property
    def factors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """U, S and V, without the singular values that are zero up to rounding."""
        matrix = self.J.dense() if self.unit is None else self.J.dense() * self.unit
        U, S, rows = torch.linalg.svd(matrix, full_matrices=False)
        kept = S > max(matrix.shape) * torch.finfo(S.dtype).eps * S[:1]
        return U[:, kept], S[kept], rows[kept].T

    @cached_property
    def image(self) -> torch.Tensor:
        """`-U^T r`."""
        return -(self.factors[0].T @ self.r)

    @cached_property
    def scale(self) -> float:
        """The mean of the diagonal of `D^-1 J^T J D^-1`."""
        return float(self.factors[1].square().sum()) / self.J.shape[1]

    @cached_property
    def descent(self) -> torch.Tensor:
        """`-J^T r`."""
        return -self.J.rmatvec(self.r)

    def damped(self, mu: float) -> Callable[[torch.Tensor | None], torch.Tensor]:
        """A function of y that solves with `b = J^T y`; for None, with `b = -J^T r`."""
        U, S, V = self.factors
        weights = S / (S.square() + mu * self.scale)

        def solve(y: torch.Tensor | None) -> torch.Tensor:
            d = V @ (weights * (self.image if y is None else U.T @ y))
            return d if self.unit is None else self.unit * d

        return solve

    def length(self, mu: float) -> tuple[float, float]:
        """`|D d|` for a damping, and its derivative with respect to the damping."""
        S = self.factors[1]
        shifted = S.square() + mu * self.scale
        d = S * self.image / shifted
        size = float(d.norm())
        slope = -self.scale * float((d.square() / shifted).sum()) / size if size else 0.0
        return size, slope

    def damping_at(self, radius: float, guess: float) -> float:
        """The mu for which `|D d|` equals the radius to within a tenth; 0 if no step exceeds it.

        Newton's method is applied to `1 / |D d|`, which is nearly linear in mu. Source: Moré
        (1978), section 5.

        Parameters
        ----------
        radius : float
            Radius of the trust region.
        guess : float
            The previous damping, from which the search starts; 0 if there is none.
        """
        size, slope = self.length(0.0)
        if size <= (1.0 + CLOSE) * radius or not self.scale:
            return 0.0
        # Between these bounds: |D d| is convex in mu, and at most |S U^T r| / (mu s).
        low = (size - radius) / -slope if -slope * radius > 0.0 else 0.0
        high = float((self.factors[1] * self.image).norm()) / (radius * self.scale)
        mu = guess if low < guess < high else max(1e-3 * high, math.sqrt(low * high))
        for _ in range(NEWTON):
            size, slope = self.length(mu)
            if abs(size - radius) <= CLOSE * radius:
                break
            low, high = (mu, high) if size > radius else (low, mu)
            if slope:  # otherwise it underflowed
                mu -= (size - radius) / radius * size / slope
            if not low < mu < high:
                mu = max(1e-3 * high, math.sqrt(low * high))
        return mu

    def weakest(self, count: int, free: torch.Tensor | None = None) -> list[Any]:
        """Directions `D^-1 v` of unit length `|v|` along which residuals change least.

        Parameters
        ----------
        count : int
            Number of directions.
        free : tensor of bool, optional
            Unknowns that may change; all by default.
        """
        matrix = self.J.dense() if self.unit is None else self.J.dense() * self.unit
        every = torch.arange(matrix.shape[1], device=matrix.device)
        places = every if free is None else free.nonzero()[:, 0]
        rows = torch.linalg.svd(matrix[:, places], full_matrices=True)[2].flip(0)[:count]
        found = [torch.zeros_like(matrix[0]).index_copy(0, places, v) for v in rows]
        return found if self.unit is None else [self.unit * v for v in found]
