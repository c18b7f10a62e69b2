"""Matrices on a long spline axis, stored as sparse factors and banded inverses.

A knot insertion matrix has few entries per row, but its left inverses are full, with n columns for
n splines. As a product of a sparse matrix and the inverse of a banded one, they take linear memory
and time. For short axes, dense matrices are faster and are used instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch

__all__ = ["LONG", "BandedInverse", "SplineOperator", "bands_of", "is_long"]

# Number of splines on the finer side above which sparse factors are used. As measured with 5 and 40
# columns, they take as long as dense matrices at 150 to 350 splines.
LONG = 256


def is_long(matrix: Any) -> bool:
    """Whether a matrix has so many rows, one per fine spline, that it is not stored densely.

    Examples
    --------
    >>> is_long(np.eye(256)), is_long(np.eye(257))
    (False, True)
    """
    return matrix.shape[0] > LONG


def bands_of(matrix: sp.spmatrix) -> np.ndarray:
    """The lower half of a symmetric matrix by diagonals, shape (diagonals, size).

    Examples
    --------
    >>> bands_of(sp.csr_matrix([[2.0, 1.0], [1.0, 3.0]]))
    array([[2., 3.],
           [1., 0.]])
    """
    entries = sp.csr_matrix(matrix)
    entries.sum_duplicates()
    entries = entries.tocoo()
    below = entries.row - entries.col
    lower = below >= 0
    bands = np.zeros((int(below.max(initial=0)) + 1, matrix.shape[0]))
    bands[below[lower], entries.col[lower]] = entries.data[lower]
    return bands


@dataclass(frozen=True, eq=False)
class BandedInverse:
    """The inverse of a symmetric positive definite matrix with few diagonals, by Cholesky.

    Attributes
    ----------
    factor : array of shape (diagonals, size)
        The lower triangular factor in the format of `scipy.linalg.cholesky_banded`.

    Examples
    --------
    >>> inverse = BandedInverse.of(sp.csr_matrix([[2.0, 1.0], [1.0, 2.0]]))
    >>> inverse @ np.array([3.0, 3.0])
    array([1., 1.])
    """

    factor: np.ndarray

    @classmethod
    def of(cls, matrix: sp.csr_matrix) -> BandedInverse:
        """The inverse of `matrix`, of which only the lower half is read."""
        return cls.from_bands(bands_of(matrix))

    @classmethod
    def from_bands(cls, bands: np.ndarray) -> BandedInverse:
        """The inverse of the matrix with these bands, which `bands_of` extracts.

        Raises
        ------
        scipy.linalg.LinAlgError
            If the matrix is not positive definite.
        """
        return cls(scipy.linalg.cholesky_banded(bands, lower=True, check_finite=False))

    @property
    def shape(self) -> tuple[int, int]:
        """(size, size)."""
        return self.factor.shape[1], self.factor.shape[1]

    @property
    def T(self) -> BandedInverse:
        """The inverse itself, because it is symmetric."""
        return self

    def __matmul__(self, u: np.ndarray) -> np.ndarray:
        return scipy.linalg.cho_solve_banded((self.factor, True), u, check_finite=False)


@dataclass(frozen=True, eq=False)
class SplineOperator:
    """A product of sparse matrices and inverses of banded ones, as a matrix for `AxisTransfer`.

    It multiplies NumPy arrays and torch tensors on any device, and supports automatic
    differentiation and `vmap`. Products are computed in float64.

    Attributes
    ----------
    factors : tuple of csr_matrix or BandedInverse
        The factors; the last one acts first.

    Examples
    --------
    >>> P = SplineOperator((sp.csr_matrix([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]),))
    >>> P.shape, P @ torch.tensor([[0.0], [2.0]])
    ((3, 2), tensor([[0.],
            [1.],
            [2.]]))
    >>> P.T @ np.ones(3)
    array([1.5, 1.5])
    """

    factors: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.factors[0].shape[0], self.factors[-1].shape[1]

    @property
    def T(self) -> SplineOperator:
        """The transpose."""
        turned = (f.T.tocsr() if sp.issparse(f) else f.T for f in reversed(self.factors))
        return SplineOperator(tuple(turned))

    def __matmul__(self, u: Any) -> Any:
        if isinstance(u, torch.Tensor):
            return _Product.apply(u, self)
        for factor in reversed(self.factors):
            u = factor @ u
        return u

    def toarray(self) -> np.ndarray:
        """The product as a dense matrix."""
        return self @ np.eye(self.shape[1])


class _Product(torch.autograd.Function):
    """`matrix @ u`, with the transpose for its derivatives."""

    @staticmethod
    def forward(u: torch.Tensor, matrix: SplineOperator) -> torch.Tensor:
        product = matrix @ u.detach().cpu().double().numpy()
        return torch.from_numpy(np.ascontiguousarray(product)).to(u)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.matrix = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore
        return _Product.apply(gradient, ctx.matrix.T), None  # type: ignore[return-value]

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, _: None) -> torch.Tensor:  # type: ignore[override]
        return _Product.apply(tangent, ctx.matrix)  # type: ignore[return-value]

    @staticmethod
    def vmap(info: Any, in_dims: Any, u: torch.Tensor, matrix: SplineOperator) -> Any:
        u = u.movedim(in_dims[0], -1)
        product: Any = _Product.apply(u.flatten(1), matrix)
        return product.reshape(matrix.shape[0], *u.shape[1:]), u.dim() - 1
