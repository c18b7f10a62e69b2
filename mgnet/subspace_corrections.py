"""Sweeps that solve for several unknowns at a time: lines, blocks, overlapping subdomains.

A sweep is a sequence of stages. Each stage solves a small equation for the residual of its unknowns
and adds the result to them. If the level is a matrix, a stage multiplies only with its own rows, so
all stages of a sweep together cost one evaluation, provided that no unknown is in two of them.
Source: Xu, Iterative methods by space decomposition and subspace correction, SIAM Review 34 (1992).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from mgnet import kernels, vector
from mgnet.limits import is_one_of, shown
from mgnet.smoother import residual_at

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = [
    "Stage",
    "check_direction",
    "corrected",
    "factored_triangle",
    "finite_matrix",
    "has_rows",
    "in_direction",
    "solve_dtype",
]

State = Any


@dataclass(frozen=True, eq=False)
class Stage:
    """One correction of a sweep.

    Parameters
    ----------
    unknowns : array of int of shape (k,), or None
        The unknowns that are corrected, without duplicates; None means all.
    solve : callable
        Function from their residual, of shape (k,), to the correction, of shape (k,).
    rows : matrix of shape (k, n), optional
        Rows of the level's matrix for the unknowns; without them the residual of the level is
        evaluated.

    Examples
    --------
    >>> Stage(np.array([0, 2]), lambda r: 0.5 * r).unknowns
    array([0, 2])
    """

    unknowns: np.ndarray | None
    solve: Callable[[np.ndarray], np.ndarray]
    rows: Any = None


def check_direction(owner: str, direction: str) -> None:
    """Raise an error for an unknown direction of sweeps.

    Raises
    ------
    ValueError
        If the direction is not "forward", "backward" or "symmetric".

    Examples
    --------
    >>> check_direction("GaussSeidel", "up")
    Traceback (most recent call last):
    ValueError: GaussSeidel got direction 'up'; it must be 'forward', 'backward' or 'symmetric'
    """
    if not is_one_of(direction, ("forward", "backward", "symmetric")):
        raise ValueError(
            f"{owner} got direction {shown(direction)}; "
            "it must be 'forward', 'backward' or 'symmetric'"
        )


def in_direction(direction: str, stages: Sequence[Any]) -> list[Any]:
    """Stages in the order of a sweep; a symmetric sweep runs forward and then backward.

    Examples
    --------
    >>> in_direction("symmetric", [1, 2, 3])
    [1, 2, 3, 3, 2, 1]
    """
    forward, backward = list(stages), list(stages)[::-1]
    every = {"forward": forward, "backward": backward, "symmetric": forward + backward}
    return every[direction]


def factored_triangle(triangle: Any) -> Any:
    """SuperLU's factors of a sparse triangle; without pivoting there is no fill.

    Examples
    --------
    >>> factored_triangle(sp.csc_matrix([[2.0, 0.0], [1.0, 1.0]])).solve(np.array([2.0, 3.0]))
    array([1., 2.])
    """
    settings = {"diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    return spla.splu(triangle, "NATURAL", **settings)


def has_rows(level: Level) -> bool:
    """Whether the residual of a level is `f - A u` with a matrix whose rows can be extracted.

    Examples
    --------
    >>> from mgnet import gallery
    >>> has_rows(gallery.poisson(3)[0]), has_rows(gallery.reaction(3)[0])
    (True, False)
    """
    return level.matrix is not None and level.residual is None and level.linearize is None


def finite_matrix(level: Level, u: State, owner: str) -> Any:
    """The matrix of a level, or its Jacobian at u, in SciPy's or NumPy's format.

    Parameters
    ----------
    level : Level
        Level of the smoother.
    u : state
        State at which the Jacobian is evaluated.
    owner : str
        Name of the smoother in messages.

    Raises
    ------
    ValueError
        If the matrix has NaN or Inf among its entries.

    Examples
    --------
    >>> from mgnet import gallery
    >>> finite_matrix(gallery.poisson(3)[0], np.zeros(3), "a smoother").shape
    (3, 3)
    """
    matrix: Any = vector.as_scipy(level.jacobian(u), owner)
    if not np.isfinite(matrix.data if sp.issparse(matrix) else matrix).all():
        raise ValueError(f"{owner}: the matrix has entries that are not finite (NaN or Inf)")
    return matrix


def solve_dtype(matrix: Any, u: State) -> np.dtype:
    """The precision in which the small equations are solved: that of matrix and state.

    Examples
    --------
    >>> solve_dtype(np.eye(2, dtype=int), np.zeros(2, np.float32))
    dtype('float64')
    """
    return vector.at_most_double(matrix.dtype, vector.dtype_of(u), np.float32)


def corrected(
    level: Level, u: State, f: State | None, stages: Sequence[Stage], sweeps: int
) -> State:
    """The state after the given number of sweeps through all stages.

    The work of stages with rows is not counted here.

    Examples
    --------
    >>> from mgnet import Jacobi, Level
    >>> level = Level(np.diag([2.0, 4.0]), Jacobi())
    >>> corrected(level, np.zeros(2), np.ones(2), [Stage(None, lambda r: 0.25 * r)], 1)
    array([0.25, 0.25])
    """
    if any(stage.rows is not None for stage in stages):
        return _by_rows(u, f, stages, sweeps)
    for _ in range(sweeps):
        for stage in stages:
            r = vector.as_numpy(residual_at(level, u, f)).reshape(-1)
            d = stage.solve(r if stage.unknowns is None else r[stage.unknowns])
            if stage.unknowns is not None:
                part, d = d, np.zeros(len(r), d.dtype)
                d[stage.unknowns] = part
            u = u + vector.completed(d, u)
    return u


def _by_rows(u: State, f: State | None, stages: Sequence[Stage], sweeps: int) -> State:
    given = vector.as_numpy(u).reshape(-1)
    b = None if f is None else vector.as_numpy(f).reshape(-1)
    dtypes = [given.dtype, *([] if b is None else [b.dtype])]
    if any(stage.rows.dtype.kind == "c" for stage in stages):
        dtypes.append(np.dtype(np.complex64))
    v = given.astype(np.result_type(*dtypes))
    untouched = kernels.is_zero(v)
    for _ in range(sweeps):
        for stage in stages:
            own: Any = slice(None) if stage.unknowns is None else stage.unknowns
            r = np.zeros(stage.rows.shape[0], v.dtype) if b is None else b[own]
            if not untouched:  # otherwise the product is zero, as at the start of a coarse level
                r = r - kernels.multiply(stage.rows, v)
            v[own] += stage.solve(r)
            untouched = False
    return vector.completed(v, u)
