"""Jacobi sweeps without numba: a block of rows at a time, in loops of NumPy and SciPy.

Between the product of a block and what is made of it, its numbers stay in the cache; and so do its
rows of the matrix until their residual has been taken of the new state, which would otherwise fetch
them from memory again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mgnet import kernels

__all__ = ["jacobi"]

ENTRIES = 80_000  # of the matrix in a block, about a megabyte: half of a usual second-level cache


def jacobi(
    matrix: Any,
    scale: np.ndarray,
    u: np.ndarray,
    f: np.ndarray,
    r: np.ndarray | None = None,
    within: int = 0,
) -> np.ndarray:
    """`u + scale (f - matrix @ u)`; for all that `kernels.fits`.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, n)
    scale, u, f : array of shape (n,)
    r : array of shape (n,), optional
        To be filled with the residual of the result.
    within : int
        The `reach` of the matrix; for r only.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> jacobi(sp.csr_matrix([[2.0]]), np.array([0.5]), np.array([1.0]), np.array([4.0]))
    array([2.])
    """
    size, done, out = len(u), 0, np.empty_like(u)
    rows = max(1, ENTRIES * size // max(1, matrix.nnz))
    for start in range(0, size, rows):
        stop = min(start + rows, size)
        new = out[start:stop]
        _residual(matrix, u, f, start, stop, new)
        new *= scale[start:stop]
        new += u[start:stop]
        known = size if stop == size else stop - within  # these need no row that is still to come
        if r is not None and known > done:
            _residual(matrix, out, f, done, known, r[done:known])
            done = known
    return out


def _residual(
    matrix: Any, u: np.ndarray, f: np.ndarray, start: int, stop: int, out: np.ndarray
) -> None:
    """Fill `out` with rows `start` to `stop` of `f - matrix @ u`."""
    if kernels.csr_matvec is None:
        image = matrix[start:stop] @ u
    else:
        # Row pointers count from the first entry of the matrix, so a part of them will do.
        image, ends = out, matrix.indptr[start : stop + 1]
        out.fill(0)
        kernels.csr_matvec(stop - start, len(u), ends, matrix.indices, matrix.data, u, out)
    np.subtract(f[start:stop], image, out=out)
