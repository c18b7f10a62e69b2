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

__all__ = [
    "alike",
    "available",
    "chebyshev",
    "compiles",
    "flat",
    "gauss_seidel",
    "is_csr",
    "jacobi",
    "multiply",
    "multiply_add",
    "reach",
    "residual",
    "takes",
    "total",
]

available: bool = importlib.util.find_spec("numba") is not None

_compiled: dict[str, Any] = {}
_double = np.dtype(np.float64)


def is_csr(matrix: Any) -> bool:
    """Whether a matrix is SciPy's CSR matrix or array; a subclass may have a product of its own.

    Examples
    --------
    >>> is_csr(sp.csr_array([[2.0]])), is_csr(sp.csc_array([[2.0]]))
    (True, False)
    """
    return type(matrix) is sp.csr_matrix or type(matrix) is sp.csr_array


def takes(matrix: Any, *states: Any) -> bool:
    """Whether the compiled loops can be used: numba, a square CSR matrix, states that fit.

    These are flat arrays of its size and precision.

    Examples
    --------
    >>> takes(np.eye(2), np.ones(2))
    False
    """
    if not (available and is_csr(matrix)):
        return False
    dtype, shape = matrix.dtype, matrix.shape
    if shape[0] != shape[-1] or dtype.char not in "dfDF" or not dtype.isnative:
        return False
    for u in states:
        if type(u) is not np.ndarray or u.shape != shape[1:] or u.dtype != dtype:
            return False
        if not u.flags.c_contiguous:
            return False
    return True


def compiles(*dtypes: np.dtype) -> bool:
    """Whether numba knows these precisions: single and double, real and complex, in native order.

    Examples
    --------
    >>> compiles(np.dtype("f4")), compiles(np.dtype("longdouble")), compiles(np.dtype(">f8"))
    (True, False, False)
    """
    return np.result_type(*dtypes).char in "dfDF" and all(dtype.isnative for dtype in dtypes)


def multiply(matrix: Any, u: Any) -> Any:
    """`matrix @ u`, for CSR matrices and flat arrays by the loop that SciPy's `@` ends in.

    For small matrices the way there takes longer than the loop.

    Examples
    --------
    >>> multiply(sp.csr_matrix([[2.0, 1.0]]), np.array([1.0, 1.0]))
    array([3.])
    """
    if csr_matvec is None or not is_csr(matrix):
        return matrix @ u
    rows, columns = matrix.shape
    flat = type(u) is np.ndarray and u.ndim == 1 and u.flags.c_contiguous
    if not flat or len(u) != columns or u.dtype != matrix.dtype:
        return matrix @ u
    out = np.zeros(rows, u.dtype)
    csr_matvec(rows, columns, matrix.indptr, matrix.indices, matrix.data, u, out)
    return out


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
    fits = matrix.shape == (*out.shape, *u.shape) and u.flags.c_contiguous and is_csr(matrix)
    if csr_matvec is not None and fits and matrix.dtype == u.dtype == out.dtype:
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
    _kernel("residual")(*_arrays(matrix), u, f, out)
    return out


def reach(matrix: Any) -> int:
    """The largest distance of an entry from the diagonal of a CSR matrix.

    The sweeps below can fill `r` with the residual of their result in the same pass: that of a row
    as soon as all rows within reach are done. The row is then still in the cache, where a second
    pass would fetch the matrix from memory again. Source: Weiss, Karl, Kowarschik and Ruede, Memory
    characteristics of iterative methods, SC 1999.

    Examples
    --------
    >>> reach(sp.csr_matrix([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]))
    2
    """
    rows = np.repeat(np.arange(matrix.shape[0], dtype=matrix.indices.dtype), np.diff(matrix.indptr))
    return int(abs(matrix.indices - rows).max(initial=0))


def jacobi(
    matrix: Any, scale: Any, u: Any, f: Any, r: np.ndarray | None = None, within: int = 0
) -> np.ndarray:
    """`u + scale (f - matrix @ u)` in one pass.

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
    >>> jacobi(sp.csr_matrix([[2.0]]), np.array([0.5]), np.array([1.0]), np.array([4.0]))
    array([2.])
    """
    out = np.empty_like(u)
    _kernel("jacobi")(*_arrays(matrix), scale, u, f, out, *_ahead(u, r, within))
    return out


def chebyshev(
    matrix: Any,
    scale: Any,
    u: Any,
    f: Any,
    d: np.ndarray,
    by: tuple[float, float],
    r: np.ndarray | None = None,
    within: int = 0,
) -> np.ndarray:
    """`u + d` with `d = by[0] d + by[1] scale (f - matrix @ u)`, in one pass; edits `d`.

    `r` and `within` as in `jacobi`.

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
    ahead = _ahead(u, r, within)
    _kernel("chebyshev")(*_arrays(matrix), scale, u, f, d, old, new, out, *ahead)
    return out


def alike(matrix: Any, u: np.ndarray, f: np.ndarray) -> bool:
    """Whether u and f are flat arrays of the precision of a CSR matrix.

    Examples
    --------
    >>> alike(sp.csr_matrix([[2.0]]), np.ones(1), np.ones(1, np.float32))
    False
    """
    dtype = matrix.data.dtype
    return u.ndim == f.ndim == 1 and u.dtype == dtype and f.dtype == dtype


def flat(matrix: Any, u: np.ndarray, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A flat copy of u and a flat f, of one precision with the matrix, as the sweeps need them.

    Examples
    --------
    >>> flat(sp.csr_matrix([[2.0]]), np.zeros((1, 1)), np.ones((1, 1), np.float32))
    (array([0.]), array([1.]))
    """
    if alike(matrix, u, f) and f.flags.c_contiguous:
        return u.copy(), f
    dtype = np.result_type(matrix.dtype, u.dtype, f.dtype)
    flattened = np.ascontiguousarray(f, dtype).reshape(-1)
    return np.array(u, dtype, order="C").reshape(-1), flattened


def gauss_seidel(
    matrix: Any,
    inverse: np.ndarray,
    u: np.ndarray,
    f: np.ndarray,
    backward: bool,
    r: np.ndarray | None = None,
    within: int = 0,
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
    r, within
        As in `jacobi`.

    Examples
    --------
    >>> u = np.zeros(2)
    >>> A = sp.csr_matrix([[2.0, -1.0], [-1.0, 2.0]])
    >>> gauss_seidel(A, np.full(2, 0.5), u, np.ones(2), backward=False)
    >>> u
    array([0.5 , 0.75])
    """
    if r is None:
        r, within = u[:0], 0
    sweep = _kernel("backward" if backward else "forward")
    sweep(matrix.indptr, matrix.indices, matrix.data, inverse, u, f, r, within)


def total(u: np.ndarray) -> Any:
    """The sum of all entries of an array, added up in any order.

    `run` takes one after every step, to see whether a state is finite. On a few hundred unknowns
    NumPy needs six times as long as a compiled loop; but a process that uses no other loop of this
    file does not import numba for it.

    Examples
    --------
    >>> float(total(np.array([1.0, 2.0])))
    3.0
    """
    plain = type(u) is np.ndarray and u.ndim == 1 and u.dtype == _double
    if plain and available and _compiled:
        return _kernel("total")(u)
    return np.add.reduce(u, None)


def _kernel(name: str) -> Any:
    if name not in _compiled:
        loops = {"residual": _residual, "jacobi": _jacobi, "chebyshev": _chebyshev}
        loops |= {"forward": _forward, "backward": _backward, "total": _total}
        python = loops[name]
        if available:
            import numba

            # In any order: in vectors. NaN and Inf stay what they are.
            order = {"reassoc"} if name == "total" else False
            _compiled[name] = numba.njit(cache=True, fastmath=order)(python)
        else:
            _compiled[name] = python
    return _compiled[name]


def _arrays(matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return matrix.indptr, matrix.indices, matrix.data


def _ahead(u: np.ndarray, r: np.ndarray | None, within: int) -> tuple[np.ndarray, int]:
    """What the loops take for r, empty where it is not asked for, and how far it stays behind."""
    return (u[:0], 0) if r is None else (r, within)


# Unsigned indices spare numba a test for negative ones that takes longer than the arithmetic.
unsigned = np.uint64


def _total(u):
    return u.sum()


def _residual(indptr, indices, data, u, f, out):
    for i in range(len(out)):
        total = f[i]
        for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
            total -= data[k] * u[unsigned(indices[k])]
        out[i] = total


def _jacobi(indptr, indices, data, scale, u, f, out, r, behind):
    for step in range(len(out) + behind):
        if step < len(out):
            total = f[step]
            for k in range(unsigned(indptr[step]), unsigned(indptr[step + 1])):
                total -= data[k] * u[unsigned(indices[k])]
            out[step] = u[step] + scale[step] * total
        i = step - behind
        if 0 <= i < len(r):
            total = f[i]
            for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
                total -= data[k] * out[unsigned(indices[k])]
            r[i] = total


def _chebyshev(indptr, indices, data, scale, u, f, d, old, new, out, r, behind):
    for step in range(len(out) + behind):
        if step < len(out):
            total = f[step]
            for k in range(unsigned(indptr[step]), unsigned(indptr[step + 1])):
                total -= data[k] * u[unsigned(indices[k])]
            d[step] = old * d[step] + new * (scale[step] * total)
            out[step] = u[step] + d[step]
        i = step - behind
        if 0 <= i < len(r):
            total = f[i]
            for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
                total -= data[k] * out[unsigned(indices[k])]
            r[i] = total


def _forward(indptr, indices, data, inverse, u, f, r, behind):
    # From the end of each row: the neighbour that was just updated comes late, so that its latency
    # overlaps with the rest of the sum.
    for step in range(len(u) + behind):
        if step < len(u):
            total = f[step]
            last = indptr[step + 1] - 1
            for j in range(indptr[step + 1] - indptr[step]):
                k = unsigned(last - j)
                total -= data[k] * u[unsigned(indices[k])]
            u[step] += total * inverse[step]
        i = step - behind
        if 0 <= i < len(r):
            total = f[i]
            for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
                total -= data[k] * u[unsigned(indices[k])]
            r[i] = total


def _backward(indptr, indices, data, inverse, u, f, r, behind):
    for step in range(len(u) - 1, -1 - behind, -1):
        if step >= 0:
            total = f[step]
            for k in range(unsigned(indptr[step]), unsigned(indptr[step + 1])):
                total -= data[k] * u[unsigned(indices[k])]
            u[step] += total * inverse[step]
        i = step + behind
        if i < len(r):
            total = f[i]
            for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
                total -= data[k] * u[unsigned(indices[k])]
            r[i] = total
