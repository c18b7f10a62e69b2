"""Solve a linear system in one line, given only a matrix: `solve(A, b)`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from mgnet import vector
from mgnet.coarse_solver import Direct
from mgnet.hierarchy import Hierarchy
from mgnet.krylov import CG, FGMRES
from mgnet.level import Level
from mgnet.limits import check_limits
from mgnet.nullspace import NullSpace
from mgnet.solution import Reason, Solution
from mgnet.solver import Solver

__all__ = ["solve"]

DIRECT_UP_TO = 500  # unknowns up to which LU factors are as fast as a hierarchy
DIRECT_AT_MOST = 100_000  # unknowns up to which LU factors are the last resort
MOST_CYCLES = 200
# A method is given up when this many iterations leave more than this of the residual.
WINDOW, SLOW = 12, 0.3
# Row sums, and differences from the transpose, below this part of a row count as rounding.
ROUNDING = 1e-13
# Off-diagonal entries with the sign of the diagonal, by size, up to which classical coarsening
# fits.
POSITIVE = 0.25


class _Kind(NamedTuple):
    """Properties that can be read from the entries of a matrix."""

    hermitian: bool
    definite: bool  # as far as the diagonal shows
    scalar: bool  # an M-matrix, or nearly one, with one unknown per point
    singular: bool  # maps constants to zero

    def __str__(self) -> str:
        told = "Hermitian" if self.hermitian else "not Hermitian"
        told += ", diagonal positive" if self.definite else ", diagonal of both signs"
        return told + (", constants in the null space" if self.singular else "")


class _Way(NamedTuple):
    """A hierarchy to try: the code that makes it, and a function that runs this code."""

    text: str
    make: Callable[[], Hierarchy]


def solve(
    matrix: Any,
    b: Any,
    *,
    rtol: float = 1e-8,
    nullspace: Any = None,
    near_nullspace: Any = None,
    verbose: bool = True,
) -> np.ndarray:
    """Solve `A x = b` by algebraic multigrid when only the matrix is known.

    PyAMG builds the hierarchy, and CG or FGMRES is preconditioned by mgnet's cycles on it. The
    methods that are tried depend on the entries of the matrix: classical coarsening for M-matrices
    and smoothed aggregation for others, with energy minimization or approximate ideal restriction
    where these are slow, and sparse LU factors as the last resort. The first method that converges
    is used. The printed lines are Python code for the same solve: copy them to solve again or to
    refine the method.

    Parameters
    ----------
    matrix : SciPy sparse matrix or array of shape (n, n)
        A BSR matrix is treated as a system with one block per point. All computations are in double
        precision, or in the precision of b where that is higher.
    b : array of shape (n,), (n, 1) or (n, k)
        Right-hand side. If b has k columns, the k systems are solved one after another with the
        same hierarchy.
    rtol : float
        Bound on the norm of the residual b - A x, relative to the norm of b.
    nullspace : "constant", array or NullSpace, optional
        Null space of a singular matrix. Constants are detected.
    near_nullspace : array of shape (n, k), optional
        Vectors that the matrix nearly maps to zero, such as the rigid body modes of elasticity.
    verbose : bool
        Whether to print the methods that are tried, as Python code.

    Returns
    -------
    array of the shape of b
        The solution x.

    Raises
    ------
    RuntimeError
        If no method converged; the message lists the methods that were tried.
    TypeError, ValueError
        If matrix and b do not fit together or have entries that are not finite.
    ImportError
        If PyAMG is needed and not installed.

    Warns
    -----
    UserWarning
        If the matrix is singular and b has a part outside its range; x solves the system without
        that part.

    Examples
    --------
    >>> from mgnet import gallery
    >>> A = gallery.poisson((63, 63))[0].matrix
    >>> x = solve(A, np.ones(63 * 63), verbose=False)
    >>> bool(np.linalg.norm(A @ x - 1.0) <= 1e-8 * 63)
    True
    """
    check_limits("mgnet.solve", rtol=rtol)
    A = _checked(matrix)
    columns = _columns(b, A.shape[0])
    tell = print if verbose else _silent
    near = _near(near_nullspace, A.shape[0])
    kind = _kind(A, near)
    space = NullSpace.of("constant" if nullspace is None and kind.singular else nullspace)
    if space is not None:
        space.check(A)
    found = nullspace is None or isinstance(nullspace, str)
    null = "" if space is None else ", nullspace=" + ("'constant'" if found else "nullspace")
    tell(f"mgnet.solve: {A.shape[0]} unknowns, {A.nnz} entries, {kind}")
    tried: list[str] = []
    method: CG | FGMRES = CG() if kind.hermitian and kind.definite else FGMRES()
    for way in _ways(A, kind, (space, null), near):
        try:
            began = time.perf_counter()
            with _reproducible():
                hierarchy = way.make()
            tell(f"  hierarchy = {way.text}  # {_size(hierarchy)}, {_seconds(began)}")
            x, last, projected = _solved(hierarchy, method, columns, rtol, tell)
        except ImportError:
            raise
        except Exception as error:  # any failure of a PyAMG setup on an unsuitable matrix
            tried.append(f"{way.text}: {' '.join(str(error).split()) or type(error).__name__}")
            tell(f"  not taken: {tried[-1]}")
            continue
        if last.reason.converged:
            _warn_of_projection(projected, rtol)
            return x.reshape(np.shape(b))
        reached = last.residual_norms[-1] / (last.norm(columns[:, x.shape[1] - 1]) or 1.0)
        how = "given up" if last.reason is Reason.MONITOR else last.reason.name
        tried.append(f"{way.text}: {how} at {reached:.1e} of the norm of b")
        if last.reason is Reason.BREAKDOWN:
            method = FGMRES()  # the matrix is not definite
    raise RuntimeError(
        f"mgnet.solve did not reach rtol={rtol:g} for a matrix of {A.shape[0]} unknowns. Tried: "
        + "; ".join(tried)
        + ". Give nullspace= or near_nullspace=, or make a hierarchy for the problem"
    )


def _silent(line: str) -> None:
    pass


def _seconds(began: float) -> str:
    return f"{time.perf_counter() - began:.2g} s"


def _size(hierarchy: Hierarchy) -> str:
    if len(hierarchy) == 1:
        return "1 level"
    entries = [level.matrix.nnz for level in hierarchy]
    return f"{len(entries)} levels, {sum(entries) / entries[0]:.2f} times the entries"


def _checked(matrix: Any) -> Any:
    """A square CSR or BSR matrix of finite floating-point numbers."""
    if vector.is_tensor(matrix) or vector.is_mat(matrix):
        matrix = vector.as_scipy(matrix, "mgnet.solve")
    if not sp.issparse(matrix):
        matrix = _array("a matrix", matrix, "give a SciPy sparse matrix or")
    if matrix.ndim != 2 or matrix.dtype.kind not in "fciub":
        raise TypeError(
            f"mgnet.solve got {vector.describe(matrix)} as a matrix; give a SciPy sparse "
            "matrix or a two-dimensional array of numbers"
        )
    if matrix.shape[0] != matrix.shape[1] or not matrix.shape[0]:
        raise ValueError(
            f"mgnet.solve got a matrix of shape {matrix.shape}; it must be square and have "
            "at least one row"
        )
    matrix = matrix.astype(complex if matrix.dtype.kind == "c" else float, copy=False)
    blocks = sp.issparse(matrix) and matrix.format == "bsr" and matrix.blocksize != (1, 1)
    A = matrix if blocks else sp.csr_matrix(matrix)
    if not A.has_canonical_format:
        A = A.copy()  # SciPy and PyAMG would sort the entries of the user
        A.sum_duplicates()
    if not np.isfinite(A.data).all():
        raise ValueError("mgnet.solve got a matrix with entries that are not finite")
    return A


def _array(what: str, given: Any, give: str = "give") -> np.ndarray:
    """Convert to an array of numbers."""
    if sp.issparse(given):
        raise TypeError(
            f"mgnet.solve got {what} as a sparse matrix; {give} an array, such as .toarray()"
        )
    try:
        array = np.asarray(given)
    except (TypeError, ValueError):  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind not in "fciub" or np.ma.is_masked(given):
        raise TypeError(
            f"mgnet.solve got {what} of type {type(given).__name__}"
            + (f" and {array.dtype}" if array.ndim else "")
            + f"; {give} an array of numbers, without masked ones"
        )
    return array


def _columns(b: Any, rows: int) -> np.ndarray:
    array = _array("b", b)
    if array.ndim not in (1, 2) or len(array) != rows:
        raise ValueError(
            f"mgnet.solve got b of shape {array.shape} for a matrix of {rows} rows; give shape "
            f"({rows},), or ({rows}, k) for k right-hand sides"
        )
    if not array.shape[-1]:
        raise ValueError("mgnet.solve got b with no columns; give at least one right-hand side")
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
        raise ValueError("mgnet.solve got b with entries that are not finite")
    wide = array if array.dtype.kind in "fc" else array.astype(float)
    return wide.reshape(rows, -1)


def _near(given: Any, rows: int) -> np.ndarray | None:
    """The near null space in the form that PyAMG expects, or None."""
    if given is None:
        return None
    array = _array("near_nullspace", given)
    if array.ndim not in (1, 2) or len(array) != rows or not np.isfinite(array).all():
        raise ValueError(
            f"mgnet.solve got near_nullspace of shape {array.shape} for a matrix of {rows} rows; "
            f"give finite numbers of shape ({rows}, k)"
        )
    return array.reshape(rows, -1)


def _kind(matrix: Any, near_nullspace: Any) -> _Kind:
    A = sp.csr_matrix(matrix)
    diagonal = A.diagonal()
    size = abs(A).sum(axis=1).A1 if isinstance(A, sp.spmatrix) else abs(A).sum(axis=1)
    off = abs(A - A.T.conj()).sum(axis=1)
    scale = max(size.max(), 0.0)
    hermitian = bool(np.max(off) <= ROUNDING * 10 * scale)
    definite = bool((diagonal.real > 0.0).all() and abs(diagonal.imag).max() <= ROUNDING * scale)
    real = A.dtype.kind == "f"
    scalar = real and near_nullspace is None and matrix.format == "csr" and bool(diagonal.all())
    if scalar:
        outside: Any = A - sp.diags(diagonal)
        signed: Any = sp.csr_matrix(sp.diags(np.sign(diagonal)) @ outside).data
        scalar = signed.clip(min=0.0).sum() <= POSITIVE * abs(signed).sum()
    ones = np.ones(len(diagonal))
    sums = abs(A @ ones)
    return _Kind(hermitian, definite, scalar, bool((sums <= ROUNDING * 10 * size).all()))


def _ways(
    A: Any, kind: _Kind, null_space: tuple[NullSpace | None, str], B: np.ndarray | None
) -> Iterator[_Way]:
    """Hierarchies to try, most promising first; `null_space` includes its Python code."""
    n, (space, null) = A.shape[0], null_space
    method = "lu" if space is None else "pinv"
    direct = _Way(
        f"Hierarchy([Level(A, Direct({method!r}))]{null})",
        lambda: Hierarchy([Level(A, Direct(method))], nullspace=space),
    )
    if n <= DIRECT_UP_TO:
        yield direct
        return
    pyamg = _pyamg()

    def way(name: str, options: dict[str, Any] = {}) -> _Way:  # noqa: B006, only read
        said = "".join(f", {key}={value!r}" for key, value in options.items())
        said += "" if B is None else ", B=near_nullspace"
        given = options if B is None else {**options, "B": B}
        return _Way(
            f"Hierarchy.from_pyamg(pyamg.{name}(A{said}){null})",
            lambda: Hierarchy.from_pyamg(getattr(pyamg, name)(A, **given), nullspace=space),
        )

    if kind.scalar:
        yield way("ruge_stuben_solver")
    transposed = kind.hermitian or abs(A - A.T).max() <= ROUNDING * abs(A).max()
    symmetry = "hermitian" if kind.hermitian else "symmetric" if transposed else "nonsymmetric"
    if transposed:
        yield way("smoothed_aggregation_solver", {"symmetry": symmetry})
    elif kind.scalar:
        yield way("air_solver")
    krylov = {"krylov": "cg" if transposed else "gmres", "maxiter": 3, "degree": 2}
    robust = {"smooth": ("energy", krylov), "strength": ("evolution", {"k": 2, "epsilon": 3.0})}
    yield way("smoothed_aggregation_solver", {"symmetry": symmetry, **robust})
    if n <= DIRECT_AT_MOST and space is None:
        yield direct


def _pyamg() -> Any:
    try:
        import pyamg
    except ImportError:
        raise ImportError(
            "mgnet.solve needs PyAMG for more than "
            f"{DIRECT_UP_TO} unknowns; install it (pip install pyamg), or make a Hierarchy"
        ) from None
    return pyamg


@contextmanager
def _reproducible() -> Iterator[None]:
    """Seed NumPy's global generator, which PyAMG's setups draw from, and restore it afterwards."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # the result is printed instead
            yield
    finally:
        np.random.set_state(state)


def _solved(
    hierarchy: Hierarchy, method: CG | FGMRES, columns: np.ndarray, rtol: float, tell: Callable
) -> tuple[np.ndarray, Solution, float]:
    """Solutions up to the first failed column, the last `Solution`, and the largest `projected`."""
    how: dict[str, Any] = {"cycle": "V(0,0)", "max_cycles": 5}
    if len(hierarchy) > 1:
        how = {"acceleration": method, "max_cycles": MOST_CYCLES}
    told = ", ".join(f"{name}={value!r}" for name, value in how.items())
    tell(f"  solver = Solver(hierarchy, {told}, rtol={rtol:g})")
    memory, found, projected = None, [], 0.0
    while True:
        solver = Solver(hierarchy, rtol=rtol, monitor=_stalls(), **how)
        column = np.ascontiguousarray(columns[:, len(found)])
        solution = solver.solve(column, memory=memory)
        given_up = solution.reason is Reason.MONITOR
        tell(f"  given up, factor {solution.factor:.2f}" if given_up else f"  {solution}")
        found.append(solution.value)
        projected = max(projected, solution.projected)
        if not solution.reason.converged or len(found) == columns.shape[1]:
            return np.stack(found, axis=1), solution, projected
        memory = solution.memory


def _warn_of_projection(projected: float, rtol: float) -> None:
    if projected > rtol:
        warnings.warn(
            "mgnet.solve: no x solves A x = b: the matrix is singular, to rounding, and "
            f"{projected:.2g} of the norm of b is outside its range; x solves it without that part",
            stacklevel=3,
        )


def _stalls() -> Callable[..., bool]:
    """Make a monitor that ends a solve whose last iterations barely reduced the residual."""
    norms: list[float] = []

    def stalls(entry: Any, state: Any) -> bool:
        norms.append(entry.residual_norm)
        if len(norms) <= WINDOW or not math.isfinite(norms[-1]):
            return False
        return norms[-1] > SLOW * norms[-1 - WINDOW]

    return stalls
