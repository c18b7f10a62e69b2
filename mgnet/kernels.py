"""Loops over sparse matrices that SciPy's `@` would take several passes for.

Compiled by numba when it is installed (extra `fast`), on first use and cached on disk, since an
import must not cost the second that compiling takes. The only file of the core that imports numba.
"""

import importlib.util
from typing import Any

import numpy as np
import scipy.sparse as sp

try:
    # Adds the product to its last argument. `@` fills zeros first and needs another pass to add.
    from scipy.sparse._sparsetools import csr_matvec
except ImportError:  # a private name: SciPy may move it
    csr_matvec = None

__all__ = ["available", "chebyshev", "gauss_seidel", "jacobi", "multiply_add", "residual", "takes"]

available: bool = importlib.util.find_spec("numba") is not None

_compiled: dict[str, Any] = {}


def takes(matrix: Any, *states: Any) -> bool:
    """Whether the compiled loops can be used: numba, a CSR matrix, flat states of its precision.

    Examples
    --------
    >>> takes(np.eye(2), np.ones(2))
    False
    """
    return (
        available
        and sp.issparse(matrix)
        and matrix.format == "csr"
        and all(
            type(u) is np.ndarray
            and u.ndim == 1
            and u.dtype == matrix.dtype
            and u.flags.c_contiguous
            for u in states
        )
    )


def multiply_add(matrix: Any, u: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Add `matrix @ u` to `out`, which is edited and returned.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (m, n)
    u : array of shape (n,)
    out : array of shape (m,), contiguous

    Examples
    --------
    >>> multiply_add(sp.csr_matrix([[2.0, 1.0]]), np.array([1.0, 1.0]), np.array([10.0]))
    array([13.])
    """
    flat = u.ndim == out.ndim == 1 and u.flags.c_contiguous
    if csr_matvec is not None and flat and matrix.dtype == u.dtype == out.dtype:
        csr_matvec(*matrix.shape, matrix.indptr, matrix.indices, matrix.data, u, out)
    else:
        out += matrix @ u
    return out


def residual(matrix: Any, u: Any, f: Any) -> np.ndarray:
    """`f - matrix @ u` in one pass.

    Examples
    --------
    >>> residual(sp.csr_matrix([[2.0, 1.0]]), np.array([1.0, 1.0]), np.array([4.0]))
    array([1.])
    """
    out = np.empty_like(f)
    _kernel("residual")(*_parts(matrix), u, f, out)
    return out


def jacobi(matrix: Any, scale: Any, u: Any, f: Any) -> np.ndarray:
    """`u + scale (f - matrix @ u)` in one pass.

    Examples
    --------
    >>> jacobi(sp.csr_matrix([[2.0]]), np.array([0.5]), np.array([1.0]), np.array([4.0]))
    array([2.])
    """
    out = np.empty_like(u)
    _kernel("jacobi")(*_parts(matrix), scale, u, f, out)
    return out


def chebyshev(
    matrix: Any, scale: Any, u: Any, f: Any, d: np.ndarray, by: tuple[float, float]
) -> np.ndarray:
    """`u + d` with `d = by[0] d + by[1] scale (f - matrix @ u)`, in one pass; edits `d`.

    Examples
    --------
    >>> d = np.array([1.0])
    >>> A = sp.csr_matrix([[2.0]])
    >>> chebyshev(A, np.array([0.5]), np.array([1.0]), np.array([4.0]), d, (0.5, 1.0))
    array([2.5])
    >>> d
    array([1.5])
    """
    out = np.empty_like(u)
    old, new = u.dtype.type(by[0]), u.dtype.type(by[1])
    _kernel("chebyshev")(*_parts(matrix), scale, u, f, d, old, new, out)
    return out


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
    >>> u = np.zeros(2)
    >>> A = sp.csr_matrix([[2.0, -1.0], [-1.0, 2.0]])
    >>> gauss_seidel(A, np.full(2, 0.5), u, np.ones(2), backward=False)
    >>> u
    array([0.5 , 0.75])
    """
    _kernel("backward" if backward else "forward")(*_parts(matrix), inverse, u, f)


def _kernel(name: str) -> Any:
    if name not in _compiled:
        loops = {"residual": _residual, "jacobi": _jacobi, "chebyshev": _chebyshev}
        python = loops.get(name, _forward if name == "forward" else _backward)
        if available:
            import numba

            _compiled[name] = numba.njit(cache=True)(python)
        else:
            _compiled[name] = python
    return _compiled[name]


def _parts(matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Unsigned indices spare numba a test for negative ones that takes longer than the arithmetic.
    unsigned = np.uint32 if matrix.indices.dtype.itemsize == 4 else np.uint64
    return matrix.indptr.view(unsigned), matrix.indices.view(unsigned), matrix.data


def _residual(indptr, indices, data, u, f, out):
    for i in range(len(out)):
        total = f[i]
        for k in range(indptr[i], indptr[i + 1]):
            total -= data[k] * u[indices[k]]
        out[i] = total


def _jacobi(indptr, indices, data, scale, u, f, out):
    for i in range(len(out)):
        total = f[i]
        for k in range(indptr[i], indptr[i + 1]):
            total -= data[k] * u[indices[k]]
        out[i] = u[i] + scale[i] * total


def _chebyshev(indptr, indices, data, scale, u, f, d, old, new, out):
    for i in range(len(out)):
        total = f[i]
        for k in range(indptr[i], indptr[i + 1]):
            total -= data[k] * u[indices[k]]
        step = old * d[i] + new * (scale[i] * total)
        d[i] = step
        out[i] = u[i] + step


def _forward(indptr, indices, data, inverse, u, f):
    # From the end of each row: the neighbour that was just updated comes late, so that its latency
    # overlaps with the rest of the sum.
    for i in range(len(u)):
        total = f[i]
        last = indptr[i + 1] - 1
        for j in range(indptr[i + 1] - indptr[i]):
            total -= data[last - j] * u[indices[last - j]]
        u[i] += total * inverse[i]


def _backward(indptr, indices, data, inverse, u, f):
    for i in range(len(u) - 1, -1, -1):
        total = f[i]
        for k in range(indptr[i], indptr[i + 1]):
            total -= data[k] * u[indices[k]]
        u[i] += total * inverse[i]
