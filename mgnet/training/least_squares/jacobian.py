"""Jacobians as operators for Levenberg-Marquardt, dense only where necessary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.vector import as_scipy

if TYPE_CHECKING:
    from mgnet.transfer import Transfer

__all__ = [
    "DenseJacobian",
    "Jacobian",
    "ProlongedJacobian",
    "RowScaledJacobian",
    "SparseJacobian",
    "StackedJacobian",
    "columns_in",
    "squared",
]

PANEL, MANY = 64, 1000  # columns; for matrices with many columns, panels are twice as wide


def squared(matrix: torch.Tensor) -> torch.Tensor:
    """`A^T A`, whose upper half is computed in panels: up to twice as fast as the full product.

    Examples
    --------
    >>> squared(torch.tensor([[1.0, 2.0]])).tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """
    columns = matrix.shape[1]
    product = matrix.new_empty(columns, columns)
    width = PANEL if columns < MANY else 2 * PANEL
    for first in range(0, columns, width):
        panel = slice(first, first + width)
        product[panel, first:] = matrix[:, panel].T @ matrix[:, first:]
        product[first + width :, panel] = product[panel, first + width :].T
    return product


class Jacobian(Protocol):
    """A matrix J of shape (rows, columns), in float64, defined by its products.

    Any class with these methods is accepted; a network can return its own from `linearize(x)`.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (residuals, parameters)."""
        ...

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        """The product `J d`."""
        ...

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        """The product `J^T y`."""
        ...

    def gram(self) -> torch.Tensor:
        """The dense matrix `J^T J`."""
        ...

    def dense(self) -> torch.Tensor:
        """J as a dense matrix."""
        ...

    def root(self) -> torch.Tensor:
        """A matrix R with `R^T R = J^T J`: J itself, or triangular if ranks share its rows."""
        return self.dense()

    def scaled_rows(self, factors: torch.Tensor) -> Jacobian:
        """`diag(factors) J`, with products as fast as those of J if possible."""
        return RowScaledJacobian(factors, self)

    def squares(self) -> torch.Tensor:
        """The diagonal of `J^T J`: the squared norms of the columns."""
        return self.root().square().sum(0)


def columns_in(J: Jacobian) -> int:
    """Number of columns of the widest matrix that `J.gram()` forms: the fine one if J is `J P`.

    Examples
    --------
    >>> columns_in(DenseJacobian(torch.zeros(3, 2)))
    2
    """
    return columns_in(J.fine) if isinstance(J, ProlongedJacobian) else J.shape[1]


@dataclass(frozen=True, eq=False)
class DenseJacobian(Jacobian):
    """A dense matrix of shape (rows, columns).

    Attributes
    ----------
    matrix : tensor
        The dense matrix.
    structure : Jacobian, optional
        The sparse form of the matrix, for preconditioners; products with the dense matrix are
        faster.
    """

    matrix: torch.Tensor
    structure: Jacobian | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.matrix.shape[1]

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        return self.matrix @ d

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        return self.matrix.T @ y

    def gram(self) -> torch.Tensor:
        return squared(self.matrix)

    def dense(self) -> torch.Tensor:
        return self.matrix

    def scaled_rows(self, factors: torch.Tensor) -> DenseJacobian:
        structure = None if self.structure is None else self.structure.scaled_rows(factors)
        return DenseJacobian(self.matrix * factors.unsqueeze(1), structure)


class SparseJacobian(Jacobian):
    """A constant matrix with few nonzeros, such as the rows of a penalty; it may be given dense."""

    def __init__(self, matrix: torch.Tensor):
        self.matrix = matrix
        self._rows: Any = matrix.to_sparse().coalesce()
        self._columns: Any = matrix.T.to_sparse().coalesce()
        # PyTorch's products take ten times as long.
        if matrix.is_sparse and matrix.device.type == "cpu":
            rows: Any = as_scipy(matrix)
            self._rows, self._columns = _Compressed(rows), _Compressed(rows.T.tocsr())
        self._gram: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.matrix.shape[1]

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        return self._rows @ d

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        return self._columns @ y

    def gram(self) -> torch.Tensor:
        if self._gram is None:
            self._gram = self._columns @ self.dense()
        gram: Any = self._gram
        return gram

    def squares(self) -> torch.Tensor:
        if self.matrix.device.type != "cpu":
            return self.dense().square().sum(0)
        rows: Any = as_scipy(self.matrix)
        if not sp.issparse(rows):
            return self.matrix.square().sum(0)
        return torch.from_numpy(np.asarray(rows.power(2).sum(0)).ravel())

    def dense(self) -> torch.Tensor:
        return self.matrix.to_dense() if self.matrix.is_sparse else self._rows.to_dense()


class _Compressed:
    """SciPy's products for tensors on the CPU."""

    def __init__(self, matrix: sp.csr_matrix):
        self.matrix = matrix

    def __matmul__(self, d: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.matrix @ d.detach().numpy())


@dataclass(frozen=True, eq=False)
class StackedJacobian(Jacobian):
    """Weighted operators stacked vertically, `[w_1 J_1; w_2 J_2; ...]`."""

    parts: tuple[tuple[float, Jacobian], ...]

    @property
    def shape(self) -> tuple[int, int]:
        return sum(J.shape[0] for _, J in self.parts), self.parts[0][1].shape[1]

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        return torch.cat([w * J.matvec(d) for w, J in self.parts])

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        pieces = torch.split(y, [J.shape[0] for _, J in self.parts])
        terms = [w * J.rmatvec(piece) for (w, J), piece in zip(self.parts, pieces, strict=True)]
        return torch.stack(terms).sum(0)

    def gram(self) -> torch.Tensor:
        (weight, first), *others = self.parts
        total = weight**2 * first.gram()
        for w, J in others:
            total.add_(J.gram(), alpha=w**2)
        return total

    def dense(self) -> torch.Tensor:
        return torch.cat([w * J.dense() for w, J in self.parts])

    def root(self) -> torch.Tensor:
        return torch.cat([w * J.root() for w, J in self.parts])

    def squares(self) -> torch.Tensor:
        return torch.stack([w**2 * J.squares() for w, J in self.parts]).sum(0)


@dataclass(frozen=True, eq=False)
class RowScaledJacobian(Jacobian):
    """`diag(factors) J` for any J: weighted rows, or the chain rule for a loss of each residual."""

    factors: torch.Tensor
    J: Jacobian

    @property
    def shape(self) -> tuple[int, int]:
        return self.J.shape

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        return self.factors * self.J.matvec(d)

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        return self.J.rmatvec(self.factors * y)

    def gram(self) -> torch.Tensor:
        return squared(self.dense())

    def dense(self) -> torch.Tensor:
        return self.factors.unsqueeze(1) * self.J.dense()


@dataclass(frozen=True, eq=False)
class ProlongedJacobian(Jacobian):
    """`J P`: the Jacobian in the coarse space of a transfer. Its Gram matrix is `P^T (J^T J) P`.

    Attributes
    ----------
    fine : Jacobian
        J on the fine level.
    transfer : Transfer
        Transfer with the prolongation P.
    columns : int
        Number of coarse unknowns.
    dtype : torch.dtype
        Type of the states for the transfer.
    """

    fine: Jacobian
    transfer: Transfer
    columns: int
    dtype: torch.dtype = torch.float64

    @property
    def shape(self) -> tuple[int, int]:
        return self.fine.shape[0], self.columns

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        return self.fine.matvec(self.transfer.prolong(d.to(self.dtype)).double())

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        return self.transfer.restrict(self.fine.rmatvec(y).to(self.dtype)).double()

    def _restricted(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.func.vmap(self.transfer.restrict)(rows.to(self.dtype)).double()

    def gram(self) -> torch.Tensor:
        return self._restricted(self._restricted(self.fine.gram()).T)

    def dense(self) -> torch.Tensor:
        return self._restricted(self.fine.dense())

    def root(self) -> torch.Tensor:
        return self._restricted(self.fine.root())
