"""Jacobi sweeps without numba: one block of rows at a time, in NumPy and SciPy operations.

The numbers of a block stay in the cache between its matrix product and the operations on the
result. Its rows of the matrix also stay there until the residual of the new state is computed;
otherwise they would be read from main memory twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mgnet import kernels

__all__ = ["jacobi"]

ENTRIES = 80_000  # of a block of the matrix, about 1 MB: half of a typical second-level cache


def jacobi(
    matrix: Any,
    scale: np.ndarray,
    u: np.ndarray,
    f: np.ndarray,
    r: np.ndarray | None = None,
    within: int = 0,
) -> np.ndarray:
    """Compute `u + scale (f - matrix @ u)` for matrices and arrays that `kernels.fits` accepts.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, n)
        Matrix of the linear system.
    scale, u, f : array of shape (n,)
        Damped inverse diagonal, state and right-hand side.
    r : array of shape (n,), optional
        Array to fill with the residual of the result.
    within : int
        The `reach` of the matrix; used only if r is given.

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
        known = size if stop == size else stop - within  # these rows do not depend on later rows
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
        # Row pointers count from the first entry of the matrix, so a slice of them suffices.
        image, ends = out, matrix.indptr[start : stop + 1]
        out.fill(0)
        kernels.csr_matvec(stop - start, len(u), ends, matrix.indices, matrix.data, u, out)
    np.subtract(f[start:stop], image, out=out)
