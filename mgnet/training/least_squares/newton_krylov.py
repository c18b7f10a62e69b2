"""Matrix-free Levenberg-Marquardt with preconditioned conjugate gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch

from mgnet.training.least_squares.device_reads import is_far
from mgnet.training.least_squares.jacobian import Jacobian, columns_in
from mgnet.training.least_squares.normal_equations import NormalEquations
from mgnet.training.least_squares.scaling import power_of_two

__all__ = [
    "Diagonal",
    "Gradients",
    "KrylovEquations",
    "NewtonKrylov",
    "OwnSolver",
    "Preconditioner",
    "Prepared",
    "conjugate_gradients",
    "forcing_term",
]

Product = Callable[[torch.Tensor], torch.Tensor]


class Prepared(Protocol):
    """The setup of a preconditioner for one Jacobian, for any damping."""

    @property
    def scale(self) -> float:
        """The mean of the diagonal of `J^T J`."""
        ...

    def shifted(self, shift: float) -> tuple[Product, Product]:
        """Products with `J^T J + shift I`, and with an approximation of its inverse."""
        ...


@runtime_checkable
class OwnSolver(Protocol):
    """A `Prepared` that runs conjugate gradients itself, in order to change the preconditioner."""

    def solver(self, shift: float) -> Solve:
        """A solver for systems with `J^T J + shift I`, called like `conjugate_gradients`."""
        ...


class Preconditioner(Protocol):
    """Creates approximate inverses; `mgnet.knots.KnotMultigrid` is an example."""

    def prepare(self, J: Jacobian) -> Prepared:
        """The part of the setup that does not depend on the damping."""
        ...


Solve = Callable[[torch.Tensor, float, int], "Gradients"]


@dataclass(frozen=True)
class Diagonal:
    """The diagonal of `J^T J + shift I` as its preconditioner, for any Jacobian."""

    def prepare(self, J: Jacobian) -> PreparedDiagonal:
        """The diagonal of `J^T J`."""
        return PreparedDiagonal(J, J.squares())


@dataclass(frozen=True, eq=False)
class PreparedDiagonal:
    """The setup of `Diagonal` for one Jacobian."""

    J: Jacobian
    diagonal: torch.Tensor

    @property
    def scale(self) -> float:
        """The mean of the diagonal."""
        return float(self.diagonal.mean())

    def shifted(self, shift: float) -> tuple[Product, Product]:
        """Products with `J^T J + shift I`, and with the inverse of its diagonal."""
        J, diagonal = self.J, self.diagonal + shift
        return lambda d: J.rmatvec(J.matvec(d)) + shift * d, lambda r: r / diagonal


class Gradients(NamedTuple):
    """The result of conjugate gradients.

    Attributes
    ----------
    value : tensor
        Last iterate.
    iterations : int
        Number of iterations.
    residual_norm : float
        Norm of the residual relative to that of b.
    converged : bool
        Whether the tolerance was met. `converged` is False after a breakdown (matrix or
        preconditioner not positive definite up to rounding, or NaN), and `value` is then the last
        valid iterate.
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
    """Solve `A x = b` from x = 0, until `|b - A x| <= rtol |b|`.

    Parameters
    ----------
    product, precondition : callable
        Functions that return A x and B r, where B is symmetric positive definite and approximates
        the inverse of A.
    b : tensor of shape (unknowns,)
        Right-hand side.
    rtol : float
        Tolerance of the residual norm relative to that of b.
    max_iterations : int
        Limit on the number of iterations.

    Examples
    --------
    >>> A = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    >>> found = conjugate_gradients(A.matmul, A.sum(1), lambda r: r / 2.0)
    >>> found.value.tolist(), found.iterations
    ([1.0, 1.0], 2)
    """
    x, r, first = torch.zeros_like(b), b, float(b.norm())
    if not 1e-150 < first < 1e150:  # squares would underflow or overflow
        unit = power_of_two(float(b.abs().max()))
        if unit == 1.0:
            return Gradients(x, 0, 0.0, first == 0.0)
        found = conjugate_gradients(product, b / unit, precondition, rtol, max_iterations)
        return found._replace(value=unit * found.value)
    p, energy, norm = torch.zeros_like(b), 1.0, 1.0
    for iteration in range(max_iterations):
        z = precondition(r)
        energy, before = float(r @ z), energy
        if not 0.0 < energy < math.inf:
            return Gradients(x, iteration, norm, False)
        p = z + (energy / before) * p
        image = product(p)
        curvature = float(p @ image)
        if not 0.0 < curvature < math.inf:
            return Gradients(x, iteration, norm, False)
        x = x + (energy / curvature) * p
        r = r - (energy / curvature) * image
        norm = float(r.norm()) / first
        if norm <= rtol:
            return Gradients(x, iteration + 1, norm, True)
    return Gradients(x, max_iterations, norm, False)


def forcing_term(now: float, before: float, last: float, loosest: float) -> float:
    """The tolerance for the next linear system, from the gradient norms and the last tolerance.

    Source: Eisenstat and Walker, SIAM J. Sci. Comput. 17 (1996) 16-32, choice 2 with its safeguard,
    gamma = 0.9, and the golden ratio as alpha.

    Examples
    --------
    >>> forcing_term(1.0, 0.0, 0.0, 0.1)  # nothing is known yet
    0.1
    >>> round(forcing_term(1e-2, 1.0, 0.1, 0.1), 6)
    0.000523
    """
    if before == 0.0:
        return loosest
    golden = 0.5 * (1.0 + 5.0**0.5)
    guard = 0.9 * last**golden
    term = max(0.9 * (now / before) ** golden, guard if guard > 0.1 else 0.0)
    return min(loosest, max(term, 1e-10))


@dataclass(frozen=True)
class NewtonKrylov:
    """The linear systems of Levenberg-Marquardt by preconditioned conjugate gradients.

    The tolerance of each solve follows the history of the gradient norms (`forcing_term`). After a
    breakdown, the last valid iterate is used; if it does not lower the objective, the damping is
    raised as usual.

    Parameters
    ----------
    preconditioner : Preconditioner
        `mgnet.knots.KnotSolver()` for a KAN; the default, the diagonal, works for any module.
    direct : int
        Largest number of parameters for which the systems are solved directly, which is faster.
    loosest : float
        Largest relative residual of a linear system, dimensionless.
    max_iterations : int
        Limit on the iterations per system; the iterate at the limit is used.

    Raises
    ------
    TypeError, ValueError
        If the preconditioner has no method `prepare`, or a number is out of range.

    Examples
    --------
    >>> from mgnet.knots import KAN, KnotMultigrid
    >>> from mgnet.training import levenberg_marquardt
    >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    >>> kan, solver = KAN([1, 3, 1], 8), NewtonKrylov(KnotMultigrid(), direct=0)
    >>> solution = levenberg_marquardt(
    ...     lambda kan: kan(x) - torch.sin(8 * x), kan, max_cycles=40, linear_solver=solver
    ... )
    >>> solution.values[-1] < 1e-3
    True
    """

    preconditioner: Preconditioner = Diagonal()
    direct: int = 4000
    loosest: float = 0.1
    max_iterations: int = 200

    def __post_init__(self) -> None:
        if not callable(getattr(self.preconditioner, "prepare", None)):
            raise TypeError(
                f"NewtonKrylov got the preconditioner {self.preconditioner!r}, which has no "
                "method `prepare`; give one such as mgnet.knots.KnotSolver()"
            )
        if self.direct < 0 or not 0.0 < self.loosest < 1.0 or self.max_iterations < 1:
            raise ValueError(
                f"{self} needs a direct that is not negative, a loosest tolerance between 0 and 1, "
                "and at least one iteration"
            )

    def system(
        self, J: Jacobian, r: torch.Tensor, f: torch.Tensor | None, tolerance: float
    ) -> NormalEquations | KrylovEquations:
        """The damped systems of one Jacobian.

        Raises
        ------
        TypeError
            If the residuals are on a device and the preconditioner runs only on the CPU.
        """
        if columns_in(J) <= self.direct:
            return NormalEquations(J, r, f)
        try:
            prepared = self.preconditioner.prepare(J)
        except (TypeError, RuntimeError) as error:
            if not is_far(r):
                raise
            raise TypeError(
                f"NewtonKrylov got residuals on {r.device} and the preconditioner "
                f"{type(self.preconditioner).__name__}, which computes on the CPU alone; move the "
                "network and its data to the CPU, or give NewtonKrylov() or no linear_solver"
            ) from error
        return KrylovEquations(J, r, f, prepared, tolerance, self.max_iterations)


@dataclass(frozen=True, eq=False)
class KrylovEquations:
    """`(J^T J + mu s I) d = f - J^T r` by conjugate gradients; otherwise like `NormalEquations`."""

    J: Jacobian
    r: torch.Tensor
    f: torch.Tensor | None
    prepared: Prepared
    tolerance: float
    max_iterations: int
    #: Unit of the unknowns: one for all.
    unit: ClassVar[None] = None

    @property
    def scale(self) -> float:
        """The mean of the diagonal of `J^T J`."""
        return self.prepared.scale

    @cached_property
    def descent(self) -> torch.Tensor:
        """`f - J^T r`."""
        gradient = self.J.rmatvec(self.r)
        return -gradient if self.f is None else self.f - gradient

    def damped(self, mu: float) -> Callable[[torch.Tensor | None], torch.Tensor]:
        """A function of y that solves with `b = J^T y`; for None, with `b = f - J^T r`."""
        shift = mu * self.scale
        if isinstance(self.prepared, OwnSolver):
            found = self.prepared.solver(shift)
        else:
            found = _by_gradients(*self.prepared.shifted(shift))

        def solve(y: torch.Tensor | None) -> torch.Tensor:
            b = self.descent if y is None else self.J.rmatvec(y)
            return found(b, self.tolerance, self.max_iterations).value

        return solve


def _by_gradients(product: Product, precondition: Product) -> Solve:
    return lambda b, rtol, most: conjugate_gradients(product, b, precondition, rtol, most)
