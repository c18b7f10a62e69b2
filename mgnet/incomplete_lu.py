"""`ILU`: relaxation with incomplete triangular factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from mgnet import kernels, vector
from mgnet.limits import is_number, shown
from mgnet.smoother import Smoother
from mgnet.subspace_corrections import (
    Stage,
    corrected,
    factored_triangle,
    finite_matrix,
    solve_dtype,
)

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["ILU", "zero_fill"]

State = Any


@dataclass(frozen=True)
class ILU(Smoother):
    """Relaxation `u + (L U)^-1 (f - A(u))` with an incomplete factorization of the matrix.

    It suits convection, jumping coefficients and moderate anisotropy in unknown directions; the
    result depends on the order of the unknowns. On a nonlinear level, the Jacobian of the first
    visit is factorized. ILU(0) of a symmetric matrix is symmetric, as CG requires of smoothers in
    its cycle; with `drop_tol`, the factorization is not symmetric. For ILU(k), with k levels of
    fill (here 1), use PETSc's factors: `mgnet.petsc.KSPSmoother` with
    `-smoother_ksp_type richardson -smoother_pc_type ilu -smoother_pc_factor_levels 1`.

    Parameters
    ----------
    drop_tol : float, optional
        Drop tolerance. None gives ILU(0): L and U have entries where the matrix has them. A number
        gives ILUT from SuperLU with row exchanges (`scipy.sparse.linalg.spilu`): entries below this
        size relative to their column are dropped; with 0, entries are dropped only where the fill
        would exceed its limit.
    fill_factor : float
        Upper bound on the entries of L and U together as a multiple of the number of entries of the
        matrix, used with `drop_tol`. Control the fill with `drop_tol` instead: SciPy 1.15.3 drops
        couplings of the matrix itself to meet this bound, and such factors can be worse than none
        (`findings/scipy_spilu_is_no_ilu0.sh`).

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from mgnet import gallery
    >>> smoother = ILU()  # exact for a tridiagonal matrix
    >>> level, u, f = gallery.poisson(3)[0], np.zeros(3), np.ones(3)
    >>> smoother.smooth(level, u, f, 1, smoother.start(level, u))[0]
    array([0.375, 0.5  , 0.375])
    """

    drop_tol: float | None = None
    fill_factor: float = 10.0

    def __post_init__(self) -> None:
        threshold = self.drop_tol is None or is_number(self.drop_tol, 0.0, 1.0)
        if not threshold or not is_number(self.fill_factor, 1.0, 1e6):
            raise ValueError(
                f"ILU got drop_tol {shown(self.drop_tol)} and fill_factor "
                f"{shown(self.fill_factor)}; drop_tol must be None or from 0 to 1, fill_factor "
                "from 1 to 1e6"
            )

    def start(self, level: Level, u: State) -> list[Stage]:
        owner = f"{self} on {level}"
        given = finite_matrix(level, u, owner)
        dtype = solve_dtype(given, u)
        if self.drop_tol is None:
            solve = _triangular_solves(zero_fill(given, dtype, owner))
        else:
            columns = sp.csc_matrix(given, dtype=dtype)
            try:
                solve = spla.spilu(columns, self.drop_tol, self.fill_factor).solve
            except RuntimeError:  # SuperLU found a column without a pivot
                raise ValueError(
                    f"{owner}: a pivot is zero; use a smaller drop_tol or a larger fill_factor, "
                    "or another smoother"
                ) from None
        return [Stage(None, lambda r: vector.solved_by_parts(solve, dtype, r))]

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        return corrected(level, u, f, memory, sweeps), memory

    def __str__(self) -> str:
        return "ILU()" if self.drop_tol is None else f"ILU(drop_tol={self.drop_tol:.6g})"


def zero_fill(matrix: Any, dtype: np.dtype, owner: str) -> sp.csr_matrix:
    """Compute ILU(0): L, without its unit diagonal, and U in one matrix with the pattern of A.

    Source: Saad, Iterative Methods for Sparse Linear Systems (2003), sections 10.3 and 11.6.

    Parameters
    ----------
    matrix : matrix of shape (n, n), SciPy sparse or dense
        Matrix to factorize.
    dtype : numpy.dtype
        Type of the factors.
    owner : str
        Name of the smoother in messages.

    Raises
    ------
    ValueError
        If a pivot is zero.

    Examples
    --------
    >>> zero_fill(np.array([[2.0, 1.0], [4.0, 5.0]]), np.dtype(float), "a smoother").toarray()
    array([[2., 1.],
           [2., 3.]])
    """
    factors: Any = _with_diagonal(sp.csr_matrix(matrix, dtype=dtype, copy=True))
    rows = np.repeat(np.arange(factors.shape[0]), np.diff(factors.indptr))
    diagonal, eps = np.flatnonzero(rows == factors.indices), float(np.finfo(dtype).eps)
    if kernels.available and kernels.compiles(factors.dtype):
        failed = kernels.incomplete_lu(factors, diagonal, eps)
    else:
        failed = _eliminated_by_passes(factors, rows, diagonal, eps)
    if failed < factors.shape[0]:
        raise ValueError(
            f"{owner}: the pivot of unknown {failed} is zero to working precision; take a "
            "drop_tol, which exchanges rows, or another smoother"
        )
    return factors


def _eliminated_by_passes(
    factors: sp.csr_matrix, rows: np.ndarray, diagonal: np.ndarray, eps: float
) -> int:
    """Do the work of `kernels.incomplete_lu` without compiled loops.

    Rows that do not depend on one another are eliminated together, so there are as many passes as
    the longest chain of dependent rows, about twice the points along a side on a square grid.
    """
    indptr: Any = factors.indptr
    indices: Any = factors.indices
    data: Any = factors.data
    n = len(diagonal)
    keys = rows.astype(np.int64) * n + indices
    below = indices < rows
    before = np.bincount(rows[below], minlength=n)
    size = abs(data[diagonal])  # of the terms whose sum is a pivot
    strict = (np.ones(below.sum(), np.int8), (rows[below], indices[below]))
    after = sp.csc_matrix(strict, shape=(n, n))
    waiting = before.copy()
    ready = np.flatnonzero(waiting == 0)
    while len(ready):
        for place in range(before[ready].max()):
            mine = ready[before[ready] > place]
            entry = indptr[mine] + place
            pivots = diagonal[indices[entry]]
            data[entry] /= data[pivots]
            taken, owners = _ranges(pivots + 1, indptr[indices[entry] + 1])
            wanted = mine[owners].astype(np.int64) * n + indices[taken]
            found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            hit = keys[found] == wanted
            part = data[entry][owners[hit]] * data[taken[hit]]
            data[found[hit]] -= part
            row = mine[owners[hit]]
            own = found[hit] == diagonal[row]
            size[row[own]] = np.maximum(size[row[own]], abs(part[own]))
        zero = ~(abs(data[diagonal[ready]]) > eps * size[ready])
        if zero.any():
            return int(ready[np.argmax(zero)])
        next_rows = after.indices[_ranges(after.indptr[ready], after.indptr[ready + 1])[0]]
        next_rows, counts = np.unique(next_rows, return_counts=True)
        waiting[next_rows] -= counts
        ready = next_rows[waiting[next_rows] == 0]
    return n


def _with_diagonal(matrix: Any) -> sp.csr_matrix:
    """The matrix with a diagonal entry, possibly zero, in each row, and sorted columns."""
    matrix.sum_duplicates()
    n = matrix.shape[0]
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    missing = np.bincount(rows[rows == matrix.indices], minlength=n) == 0
    if missing.any():
        own = np.flatnonzero(missing)
        row, column = np.append(rows, own), np.append(matrix.indices, own)
        data = np.append(matrix.data, np.zeros(len(own), matrix.dtype))
        matrix = sp.csr_matrix((data, (row, column)), shape=(n, n))
        matrix.sum_duplicates()
    return matrix


def _ranges(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integers of several ranges in one array, and the range that each belongs to."""
    lengths = ends - starts
    owners = np.repeat(np.arange(len(starts)), lengths)
    first = np.cumsum(lengths) - lengths
    return np.arange(len(owners)) - first[owners] + starts[owners], owners


def _triangular_solves(factors: Any) -> Any:
    """A function that applies `(L U)^-1`."""
    if kernels.available:
        # A Gauss-Seidel sweep from zero is a triangular solve, and reads only that half.
        inverse = 1.0 / factors.diagonal()
        ones = np.ones_like(inverse)

        def solve(r: np.ndarray) -> np.ndarray:
            y, x = np.empty_like(r), np.empty_like(r)
            kernels.gauss_seidel(factors, ones, y, r, backward=False, from_zero=True)
            kernels.gauss_seidel(factors, inverse, x, y, backward=True, from_zero=True)
            return x

        return solve
    n = factors.shape[0]
    lower: Any = sp.tril(factors, -1) + sp.diags(np.ones(n, factors.dtype))
    first = factored_triangle(sp.csc_matrix(lower))
    second = factored_triangle(sp.triu(factors, format="csc"))
    return lambda r: second.solve(first.solve(r))
