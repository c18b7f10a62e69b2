"""Loops over sparse matrices for operations that take several passes with SciPy's `@`.

The loops are those of `mgnet.sparse_loops`. numba, if installed (extra `fast`), compiles them on
first use, not on import, since compiling takes a second, and caches them on disk.
"""

import importlib.util
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet import sparse_loops

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
    "fits",
    "flat",
    "gauss_seidel",
    "incomplete_lu",
    "is_csr",
    "is_zero",
    "jacobi",
    "multiply",
    "multiply_add",
    "reach",
    "residual",
    "takes",
    "total",
]

available: bool = importlib.util.find_spec("numba") is not None

ROWS = 20_000  # that are processed together

_compiled: dict[str, Any] = {}
_double = np.dtype(np.float64)


def is_csr(matrix: Any) -> bool:
    """Whether a matrix is SciPy's CSR matrix or array; a subclass may have its own product.

    Examples
    --------
    >>> is_csr(sp.csr_array([[2.0]])), is_csr(sp.csc_array([[2.0]]))
    (True, False)
    """
    return type(matrix) is sp.csr_matrix or type(matrix) is sp.csr_array


def takes(matrix: Any, *states: Any) -> bool:
    """Whether the compiled loops can be used: numba is installed, and the arguments fit (`fits`).

    Examples
    --------
    >>> takes(np.eye(2), np.ones(2))
    False
    """
    return available and fits(matrix, *states)


def fits(matrix: Any, *states: Any) -> bool:
    """Whether a matrix is square and CSR, and states are flat arrays of its size and precision.

    Examples
    --------
    >>> fits(sp.csr_matrix(np.eye(2)), np.ones(2)), fits(sp.csr_matrix(np.eye(2)), np.ones(3))
    (True, False)
    """
    if not is_csr(matrix):
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
    """Whether numba supports these types: single and double, real and complex, in native order.

    Examples
    --------
    >>> compiles(np.dtype("f4")), compiles(np.dtype("longdouble")), compiles(np.dtype(">f8"))
    (True, False, False)
    """
    return np.result_type(*dtypes).char in "dfDF" and all(dtype.isnative for dtype in dtypes)


def multiply(matrix: Any, u: Any) -> Any:
    """Compute `matrix @ u`; for CSR matrices and flat arrays, call the loop inside SciPy's `@`.

    For small matrices, the overhead of `@` takes longer than the loop.

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
        Matrix to multiply with.
    u : array of shape (n,)
        Vector to multiply.
    out : array of shape (m,), contiguous
        Array to which the product is added.

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
    """Compute `f - matrix @ u` in one pass.

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

    The sweeps below can fill `r` with the residual of their result in the same pass. The residual
    of a row is computed as soon as all rows within reach are done. The row is then still in the
    cache, and a second pass would read the matrix from memory again. Source: Weiss, Karl,
    Kowarschik and Ruede, Memory characteristics of iterative methods, SC 1999.

    Examples
    --------
    >>> reach(sp.csr_matrix([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]))
    2
    """
    found, indptr = 0, matrix.indptr
    for first in range(0, matrix.shape[0], ROWS):  # one part at a time, which needs little memory
        ends = indptr[first : first + ROWS + 1]
        rows = np.arange(first, first + len(ends) - 1, dtype=matrix.indices.dtype)
        apart = np.repeat(rows, np.diff(ends))
        apart -= matrix.indices[ends[0] : ends[-1]]
        found = max(found, int(apart.max(initial=0)), -int(apart.min(initial=0)))
    return found


def jacobi(
    matrix: Any, scale: Any, u: Any, f: Any, r: np.ndarray | None = None, within: int = 0
) -> np.ndarray:
    """Compute `u + scale (f - matrix @ u)` in one pass.

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
    base: np.ndarray | None = None,
    weight: float = 1.0,
) -> np.ndarray:
    """`base + weight d` with `d = by[0] d + by[1] scale (f - matrix @ u)`, in one pass; edits `d`.

    The default of base is u. `r` and `within` have the same meaning as for `jacobi`.

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
    old, new, weight = (u.dtype.type(number) for number in (*by, weight))
    end = u if base is None else base, weight, out
    _kernel("chebyshev")(*_arrays(matrix), scale, u, f, d, old, new, *end, *_ahead(u, r, within))
    return out


def alike(matrix: Any, u: np.ndarray, f: np.ndarray) -> bool:
    """Whether u and f are flat arrays with the precision of a CSR matrix.

    Examples
    --------
    >>> alike(sp.csr_matrix([[2.0]]), np.ones(1), np.ones(1, np.float32))
    False
    """
    dtype = matrix.data.dtype
    return u.ndim == f.ndim == 1 and u.dtype == dtype and f.dtype == dtype


def flat(matrix: Any, u: np.ndarray, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A flat copy of u and a flat f in the precision of the matrix, as required by the sweeps.

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
    from_zero: bool = False,
) -> None:
    """Run one Gauss-Seidel sweep over the rows of a CSR matrix; edits `u`.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, n)
        Matrix of the linear system.
    inverse : array of shape (n,)
        Reciprocals of its diagonal.
    u, f : array of shape (n,)
        State and right-hand side.
    backward : bool
        Whether the sweep goes from the last row to the first.
    r, within
        The same as for `jacobi`.
    from_zero : bool
        Whether to start from zero, whatever u contains, and skip the half of the matrix that is
        multiplied by zeros; the columns of each row must be sorted.

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
    sweep = _kernel(("backward" if backward else "forward") + from_zero * "_from_zero")
    sweep(matrix.indptr, matrix.indices, matrix.data, inverse, u, f, r, within)


def incomplete_lu(matrix: Any, diagonal: np.ndarray, eps: float) -> int:
    """Replace a CSR matrix by its factors of ILU(0), row by row; edits the matrix.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, n)
        Matrix with a diagonal entry in each row; columns are sorted and unique.
    diagonal : array of int of shape (n,)
        Positions of the diagonal entries among all entries.
    eps : float
        A pivot counts as zero if its size is at most eps times the largest term of its sum.

    Returns
    -------
    int
        Number of the first row whose pivot is zero, where the factorization stopped; n if none is.

    Examples
    --------
    >>> A = sp.csr_matrix([[2.0, 1.0], [4.0, 5.0]])
    >>> incomplete_lu(A, np.array([0, 3]), 1e-16)
    2
    >>> A.toarray()
    array([[2., 1.],
           [2., 3.]])
    """
    size, place = abs(matrix.data[diagonal]), np.full(matrix.shape[0], -1, np.int64)
    factor = _kernel("incomplete_lu")
    with np.errstate(all="ignore"):
        return int(factor(*_arrays(matrix), diagonal, size, place, size.dtype.type(eps)))


def total(u: np.ndarray) -> Any:
    """The sum of all entries of an array, in any order.

    `run` computes it after every step to test whether a state is finite. For a few hundred unknowns
    NumPy takes six times as long as a compiled loop. A process that uses no other loop of this file
    does not import numba for it.

    Examples
    --------
    >>> float(total(np.array([1.0, 2.0])))
    3.0
    """
    return _kernel("total")(u) if _counts(u) else np.add.reduce(u, None)


def is_zero(u: np.ndarray) -> bool:
    """Whether all entries of an array are zero.

    Examples
    --------
    >>> is_zero(np.zeros(2)), is_zero(np.array([0.0, np.nan]))
    (True, False)
    """
    return not (_kernel("any_entry")(u) if _counts(u) else u.any())


def _counts(u: np.ndarray) -> bool:
    """Whether a compiled loop is used for this array, in a process that has used other loops."""
    plain = type(u) is np.ndarray and u.ndim == 1 and u.dtype == _double
    return plain and available and bool(_compiled)


def _kernel(name: str) -> Any:
    if name not in _compiled:
        python = getattr(sparse_loops, name)
        if available:
            import numba

            # A product and a sum may be fused into one instruction. Totals may be summed in any
            # order, so with vectors: NaN and Inf are preserved.
            order = {"reassoc"} if name in ("total", "any_entry") else {"contract"}
            _compiled[name] = numba.njit(cache=True, fastmath=order)(python)
        else:
            _compiled[name] = python
    return _compiled[name]


def _arrays(matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return matrix.indptr, matrix.indices, matrix.data


def _ahead(u: np.ndarray, r: np.ndarray | None, within: int) -> tuple[np.ndarray, int]:
    """Arguments of the loops for r (empty if not requested) and for its delay in rows."""
    return (u[:0], 0) if r is None else (r, within)
