"""Which smoother a level should take instead of one that hardly smooths, read off its matrix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from mgnet import vector
from mgnet.line_relaxation import LineRelaxation

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["stronger_smoother"]

State = Any

# From this ratio of couplings on a point smoother stalls: V(1,1) leaves more than half.
STRONG = 4.0
# Of all rows: fewer are an exception.
MANY = 0.1


def stronger_smoother(level: Level, u: State) -> str:
    """What the matrix of a level shows, and the class to take for it; empty where it shows nothing.

    Parameters
    ----------
    level : Level
    u : state
        Where its Jacobian is taken.

    Examples
    --------
    >>> from mgnet import gallery
    >>> stronger_smoother(gallery.poisson((127, 7))[0], np.zeros(889))
    'its matrix couples unknowns 256 times as strongly along axis 0 of the grid as along the others;
    take LineRelaxation(axes=0) there'
    """
    try:
        jacobian = level.jacobian(u)
        matrix: Any = sp.coo_matrix(vector.as_scipy(jacobian))
    except TypeError:  # no matrix, or one that is spread over ranks
        return ""
    used = type(level.smoother).__name__
    told = [
        ("MultiplicativeSchwarz", _saddle(matrix)),
        ("BlockGaussSeidel", _blocks(jacobian)),
        ("", _axes(level, matrix)),
        ("ILU", _convection(matrix)),
        ("ILU", _spread(matrix)),
    ]
    return next((what for name, what in told if what and used != name), "")


def _saddle(matrix: Any) -> str:
    diagonal = matrix.diagonal().real
    if not diagonal.min() <= 0.0 < diagonal.max():
        return ""
    return (
        "its diagonal is not of one sign, as that of a saddle point; take "
        "MultiplicativeSchwarz(subdomains) there, with a set for each constraint and its unknowns "
        "(Vanka's smoother)"
    )


def _blocks(jacobian: Any) -> str:
    size = getattr(jacobian, "blocksize", (1, 1)) if sp.issparse(jacobian) else (1, 1)
    if size[0] != size[1] or size[0] == 1:
        return ""
    entries = jacobian.tocoo()
    same = entries.row // size[0] == entries.col // size[0]
    off = same & (entries.row != entries.col)
    diagonal = abs(entries.data[entries.row == entries.col]).sum()
    if abs(entries.data[off]).sum() < MANY * diagonal:
        return ""
    return f"the unknowns in its blocks of {size[0]} are coupled; take BlockGaussSeidel() there"


def _axes(level: Level, matrix: Any) -> str:
    """Whether couplings along the axes of a grid differ, where no lines go along the strong one."""
    shape = level.shape
    if len(shape) < 2 or math.prod(shape) != matrix.shape[0]:
        return ""
    rows, columns = (np.array(np.unravel_index(x, shape)) for x in (matrix.row, matrix.col))
    differ = rows != columns
    strength = np.zeros((len(shape), matrix.shape[0]))
    for axis in range(len(shape)):
        along = differ[axis] & (differ.sum(axis=0) == 1)
        weights = abs(matrix.data[along])
        strength[axis] = np.bincount(matrix.row[along], weights, matrix.shape[0])
    order = np.sort(strength, axis=0)
    strong = order[-1] >= STRONG * order[-2]
    strong &= order[-1] > 0.0
    if strong.mean() < MANY:
        return ""
    axes, counts = np.unique(strength.argmax(axis=0)[strong], return_counts=True)
    first = axes[counts.argmax()]
    alone = counts.max() >= (1.0 - MANY) * counts.sum()
    if isinstance(level.smoother, LineRelaxation):
        needed = {first} if alone else set(axes.tolist())
        if needed <= set(level.smoother.axes_of(shape)):
            return ""
    with np.errstate(divide="ignore"):
        ratio = float(np.median(order[-1][strong] / order[-2][strong]))
    times = f"{ratio:.3g} times as strongly" if ratio < math.inf else "only"
    if alone:
        than = " as along the others" if ratio < math.inf else ""
        return (
            f"its matrix couples unknowns {times} along axis {first} of the grid{than}; take "
            f"LineRelaxation(axes={first}) there"
        )
    return (
        "its matrix couples unknowns along different axes of the grid from place to place, "
        f"{times} as along the others; take LineRelaxation('alternating') there"
    )


def _convection(matrix: Any) -> str:
    csr = sp.csr_matrix(matrix)
    difference = abs(csr - csr.conj().T)
    off = abs(csr - sp.diags(csr.diagonal()))
    if difference.sum() < 2.0 * MANY * off.sum():
        return ""
    return "its matrix is far from symmetric, as that of a flow; take ILU() there"


def _spread(matrix: Any) -> str:
    """Whether the rows have few large entries and others that are much smaller."""
    csr = sp.csr_matrix(matrix)
    off = abs(csr - sp.diags(csr.diagonal())).tocsr()
    off.eliminate_zeros()
    counts = np.diff(off.indptr)
    rows = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((off.data, rows))
    filled = counts >= 4
    if not filled.any():
        return ""
    sizes = off.data[order]
    begins, several = off.indptr[:-1][filled], counts[filled]
    ratios = sizes[begins + several - 1] / sizes[begins + several // 8]
    if (ratios >= STRONG).mean() < MANY:
        return ""
    return (
        f"the largest entries of its rows are {np.median(ratios):.3g} times the smaller ones, so "
        "unknowns are coupled strongly to few others; take ILU() there, or LineRelaxation where "
        "these lie along lines of a grid, which Level(shape=...) tells"
    )
