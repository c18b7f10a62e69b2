"""Compiled loops over sparse matrices: SciPy's own, and numba's (extra `fast`).

The only file that imports numba.
"""

import importlib.util
from typing import Any

import numpy as np

try:
    # Adds the product to its last argument. The public `@` fills zeros first and needs another pass
    # to add.
    from scipy.sparse._sparsetools import csr_matvec
except ImportError:  # a private name: SciPy may move it
    csr_matvec = None

__all__ = ["available", "gauss_seidel", "multiply_add"]

available: bool = importlib.util.find_spec("numba") is not None

_compiled: Any = None


def multiply_add(matrix: Any, u: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Add `matrix @ u` to `out`, which is edited and returned.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (m, n)
    u : array of shape (n,)
    out : array of shape (m,), contiguous

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> multiply_add(sp.csr_matrix([[2.0, 1.0]]), np.array([1.0, 1.0]), np.array([10.0]))
    array([13.])
    """
    if (
        csr_matvec is not None
        and u.ndim == out.ndim == 1
        and matrix.dtype == u.dtype == out.dtype
        and u.flags.c_contiguous
    ):
        csr_matvec(*matrix.shape, matrix.indptr, matrix.indices, matrix.data, u, out)
    else:
        out += matrix @ u
    return out


def _forward(indptr, indices, data, inverse, u, f):  # noqa: ANN001 - compiled by numba
    # From the end of each row: the neighbour that has just been updated comes late, so its latency
    # overlaps with the sum.
    for i in range(len(u)):
        total = f[i]
        for k in range(indptr[i + 1] - 1, indptr[i] - 1, -1):
            total -= data[k] * u[indices[k]]
        u[i] += total * inverse[i]


def _backward(indptr, indices, data, inverse, u, f):  # noqa: ANN001 - compiled by numba
    for i in range(len(u) - 1, -1, -1):
        total = f[i]
        for k in range(indptr[i], indptr[i + 1]):
            total -= data[k] * u[indices[k]]
        u[i] += total * inverse[i]


def gauss_seidel(
    matrix: Any, inverse: np.ndarray, u: np.ndarray, f: np.ndarray, backward: bool
) -> None:
    """One Gauss-Seidel sweep over the rows of a CSR matrix; edits `u`.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, n)
    inverse : array of shape (n,)
        Reciprocals of its diagonal.
    u, f : array of shape (n,)
    backward : bool
        From the last row to the first.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> u = np.zeros(2)
    >>> A = sp.csr_matrix([[2.0, -1.0], [-1.0, 2.0]])
    >>> gauss_seidel(A, np.full(2, 0.5), u, np.ones(2), backward=False)
    >>> u
    array([0.5 , 0.75])
    """
    global _compiled
    if _compiled is None:
        _compiled = _forward, _backward
        if available:
            import numba

            # On first use, cached on disk: importing mgnet must not cost the second that compiling
            # takes.
            _compiled = numba.njit(cache=True)(_forward), numba.njit(cache=True)(_backward)
    # Unsigned indices spare numba the test for negative ones, which takes longer than the
    # arithmetic.
    unsigned = np.dtype(f"u{matrix.indices.dtype.itemsize}")
    _compiled[backward](matrix.indptr, matrix.indices.view(unsigned), matrix.data, inverse, u, f)
