"""The damped Gauss-Newton system, `(J^T J + mu s D^2) x = b`, solved in a form that suits J."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from mgnet.limits import check_memory, written
from mgnet.training.least_squares.jacobian import Jacobian, columns_in, squared

__all__ = ["NormalEquations"]


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """`(J^T J + mu s D^2) d = f - J^T r`, where s is the mean of the diagonal of `D^-1 J^T J D^-1`.

    The system is solved for `D d`, with the Jacobian `J D^-1`, which is written J below. The primal
    form has a matrix with one row per parameter; the dual form, which is used if there are fewer
    residuals, has one row per residual, because `(J^T J + c I)^-1 J^T = J^T (J J^T + c I)^-1`. Both
    use Cholesky factors, or QR factors of the stacked matrix `[J; sqrt(c) I]` if Cholesky would
    lose too many digits.

    Parameters
    ----------
    J : Jacobian of shape (residuals, parameters)
        The Jacobian.
    r : tensor of shape (residuals,)
        The residuals.
    f : tensor of shape (parameters,) or None
        None stands for zero; otherwise the form is primal, since f need not be in the range of J^T.
    unit : tensor of shape (parameters,), optional
        The diagonal of `D^-1`; ones by default.
    """

    J: Jacobian
    r: torch.Tensor
    f: torch.Tensor | None = None
    unit: torch.Tensor | None = None

    def measured(self, unit: torch.Tensor | None) -> NormalEquations:
        """The same system in other units; products computed so far are kept."""
        other = replace(self, unit=unit)
        if not self.dual and "gram" in vars(self):
            vars(other)["gram"] = self.gram
        return other

    @cached_property
    def dual(self) -> bool:
        """Whether the matrix is `J J^T`."""
        rows, columns = self.J.shape
        return self.f is None and rows < columns

    @cached_property
    def gram(self) -> torch.Tensor:
        """`J^T J` without the units or, in the dual form, `J J^T` with them."""
        rows, columns = self.J.shape[0], columns_in(self.J)
        entries = rows * columns + rows**2 if self.dual else columns**2
        check_memory(
            8 * entries,
            f"LevenbergMarquardt got {rows} residuals and {columns} parameters: its direct solver "
            f"makes matrices of {written(entries)} numbers",
            "give it a linear_solver such as NewtonKrylov(mgnet.knots.KnotSolver()), or use LBFGS",
        )
        if not self.dual:
            return self.J.gram()
        return squared(self._scaled(self.J.dense()).T)

    @cached_property
    def matrix(self) -> torch.Tensor:
        """The same matrix, always with the units."""
        if self.dual or self.unit is None:
            return self.gram
        return self.gram * self.unit * self.unit.unsqueeze(1)

    @property
    def columns(self) -> torch.Tensor:
        """The squared column norms of the Jacobian, without the units."""
        return self.J.squares() if self.dual else self.gram.diagonal()

    def gram_of(self, held: torch.Tensor) -> torch.Tensor:
        """The block of `J^T J` for the unknowns with these indices, without the units."""
        if not self.dual:
            return self.gram[held][:, held]
        return squared(self.J.dense()[:, held])

    def _scaled(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the Jacobian, or vectors of parameters in the dual space, with the units."""
        return rows if self.unit is None else rows * self.unit

    def _pulled(self, y: torch.Tensor) -> torch.Tensor:
        return self._scaled(self.J.rmatvec(y))

    @cached_property
    def scale(self) -> float:
        """The mean of the diagonal of `J^T J`, whose trace equals that of `J J^T`."""
        return float(self.matrix.trace()) / self.J.shape[1]

    @cached_property
    def descent(self) -> torch.Tensor:
        """`f - J^T r`."""
        gradient = self.J.rmatvec(self.r)
        return -gradient if self.f is None else self.f - gradient

    def damped(self, mu: float) -> Callable[[torch.Tensor | None], torch.Tensor]:
        """A function of y that solves with `b = J^T y`; for None, with `b = f - J^T r`."""
        if not self.scale:  # a Jacobian of zeros
            return lambda y: torch.zeros_like(self.descent)
        shift = mu * self.scale
        inverse = self._by_cholesky(shift)
        if self.dual:
            solve = self._least_norm(shift) if inverse is None else _after(self._pulled, inverse)
            return lambda y: self._scaled(solve(-self.r if y is None else y))
        solve = self._by_qr(shift) if inverse is None else inverse
        return lambda y: self._scaled(
            solve(self._scaled(self.descent if y is None else self.J.rmatvec(y)))
        )

    def damped_unseen(
        self, mu: float, rows: bool
    ) -> tuple[Callable[[torch.Tensor | None], torch.Tensor], torch.Tensor]:
        """Like `damped`, for a device: the host does not read any number from it.

        Parameters
        ----------
        mu : float
            Damping parameter.
        rows : bool
            Whether to solve by QR of the rows of J instead of Cholesky.

        Returns
        -------
        callable
            The function that `damped` returns.
        tensor of shape ()
            Least diagonal entry of the Cholesky factor, for `enough`; 0 if there is no factor.
        """
        shift = mu * (self.matrix.trace() / self.J.shape[1])
        inverse, factor, fault = self._cholesky(shift)
        left = torch.where(fault == 0, factor.diagonal().min(), 0.0)
        if self.dual:
            solve = self._least_norm(shift) if rows else _after(self._pulled, inverse)
            return lambda y: self._scaled(solve(-self.r if y is None else y)), left
        solve = self._by_qr(shift) if rows else inverse
        return lambda y: self._scaled(
            solve(self._scaled(self.descent if y is None else self.J.rmatvec(y)))
        ), left

    def enough(self, left: float) -> bool:
        """Whether a Cholesky factor with this least entry of its diagonal keeps enough digits."""
        return not left**2 <= 1e2 * torch.finfo(self.matrix.dtype).eps

    def _by_cholesky(self, shift: float) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """The inverse of `matrix + shift I`; None if too few digits would be left."""
        inverse, factor, fault = self._cholesky(shift)
        if int(fault) or not self.enough(float(factor.diagonal().min())):
            return None
        return inverse

    def _cholesky(
        self, shift: Any
    ) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor, torch.Tensor]:
        """The same inverse, the Cholesky factor for unit row norms, and LAPACK's return code."""
        matrix = self.matrix.clone()
        matrix.diagonal().add_(shift)
        # Scaled to a unit diagonal, so that the factor's diagonal shows the conditioning.
        unit = matrix.diagonal().rsqrt()
        matrix.mul_(unit).mul_(unit.unsqueeze(1))
        factor, fault = torch.linalg.cholesky_ex(matrix)
        solve = lambda b: unit * torch.cholesky_solve((unit * b).unsqueeze(1), factor).squeeze(1)  # noqa: E731
        return solve, factor, fault

    @cached_property
    def triangle(self) -> torch.Tensor:
        """R of a QR factorization of J with the units; J itself if it is not taller than wide."""
        root = self._scaled(self.J.root())
        if root.shape[0] <= root.shape[1]:
            return root
        return torch.linalg.qr(root, mode="r").R

    def _by_qr(self, shift: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        """The same inverse from R^T R = J^T J + shift I; R comes from J, with twice the digits."""
        unit = (self.matrix.diagonal() + shift).rsqrt()
        R = torch.linalg.qr(_stacked(self.triangle, shift, unit), mode="r").R

        def inverse(b: torch.Tensor) -> torch.Tensor:
            half = torch.linalg.solve_triangular(R.T, (unit * b).unsqueeze(1), upper=False)
            return unit * torch.linalg.solve_triangular(R, half, upper=True).squeeze(1)

        return inverse

    def _least_norm(self, shift: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        """`J^T (J J^T + shift I)^-1`: part of the least-norm solution of `[J, sqrt(shift) I]`."""
        unit = (self.matrix.diagonal() + shift).rsqrt()
        Q, R = torch.linalg.qr(_stacked(self._scaled(self.J.dense()).T, shift, unit))
        top = Q[: self.J.shape[1]]

        def solve(y: torch.Tensor) -> torch.Tensor:
            half = torch.linalg.solve_triangular(R.T, (unit * y).unsqueeze(1), upper=False)
            return (top @ half).squeeze(1)

        return solve


def _stacked(tall: torch.Tensor, shift: Any, unit: torch.Tensor) -> torch.Tensor:
    """`[tall; sqrt(shift) I]` with scaled columns."""
    return torch.cat([tall * unit, torch.diag(shift**0.5 * unit)])


def _after(
    outer: Callable[[torch.Tensor], torch.Tensor], inner: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda y: outer(inner(y))
