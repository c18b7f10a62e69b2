"""Suggest a smoother for a level whose smoother is too weak, from the level's matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet import vector
from mgnet.incomplete_lu import ILU
from mgnet.level import Level
from mgnet.line_relaxation import LineRelaxation

__all__ = ["any_smoother", "stronger_smoother"]

State = Any

# From this ratio of couplings on a point smoother stalls: V(1,1) leaves more than half of the
# residual.
STRONG = 4.0
# Part of all rows; fewer rows count as an exception.
MANY = 0.1
# Number of sweeps in the test of a smoother before it is suggested.
TRIED = 5


def stronger_smoother(level: Level, u: State) -> str:
    """Describe what is special about the matrix of a level and name a suitable smoother, or "".

    Parameters
    ----------
    level : Level
        Level whose smoother is weak.
    u : state
        State at which the Jacobian is evaluated.

    Examples
    --------
    >>> from mgnet import gallery
    >>> stronger_smoother(gallery.poisson((127, 7))[0], np.zeros(889))
    'its matrix couples unknowns 256 times as strongly along axis 0 of the grid as along the others;
    use LineRelaxation(axes=0) there'
    """
    jacobian, matrix = _matrices(level, u)
    if matrix is None:
        return ""
    used = type(level.smoother).__name__
    told = [
        ("MultiplicativeSchwarz", _saddle(matrix)),
        ("BlockGaussSeidel", _blocks(jacobian)),
        ("", _axes(level, matrix)),
        ("ILU", _convection(matrix)),
        ("ILU", _spread(matrix, lines=used != "LineRelaxation")),
    ]
    return next((what for name, what in told if what and used != name), "")


def any_smoother(level: Level, u: State) -> str:
    """Suggest a smoother if the matrix of a level shows nothing special.

    Parameters
    ----------
    level, u
        The same as for `stronger_smoother`.

    Examples
    --------
    >>> from mgnet import gallery
    >>> any_smoother(gallery.poisson(7)[0], np.zeros(7))
    "use a stronger smoother there, such as ILU() or Chebyshev(kind='opt_fourth')"
    """
    matrix = _matrices(level, u)[1]
    ilu = "ILU() or " if matrix is not None and _ilu_reduces(matrix) else ""
    return f"use a stronger smoother there, such as {ilu}Chebyshev(kind='opt_fourth')"


def _matrices(level: Level, u: State) -> tuple[Any, Any]:
    """The Jacobian of a level as it is and as a SciPy matrix; both None if it cannot be read."""
    try:
        jacobian = level.jacobian(u)
        return jacobian, sp.coo_matrix(vector.as_scipy(jacobian))
    except TypeError:
        return None, None


def _ilu_reduces(matrix: Any) -> bool:
    """Test whether sweeps of ILU(0) reduce a residual.

    They may not if the matrix has large positive off-diagonal entries, for example that of bilinear
    elements with a strong coupling oblique to the grid.
    """
    smoother = ILU()
    level = Level(sp.csr_matrix(matrix), smoother)
    f = np.random.default_rng(0).standard_normal(level.unknowns)
    u, norms = np.zeros_like(f), []
    try:
        memory = smoother.start(level, u)
    except ValueError:  # a pivot is zero, or an entry is not finite
        return False
    with np.errstate(all="ignore"):
        for _ in range(2):
            u, memory = smoother.smooth(level, u, f, TRIED, memory)
            norms.append(float(np.linalg.norm(level.residual_at(u, f))))
    return norms[1] < norms[0] or norms[1] <= np.finfo(np.float32).eps * np.linalg.norm(f)


def _saddle(matrix: Any) -> str:
    diagonal = matrix.diagonal().real
    if not diagonal.min() <= 0.0 < diagonal.max():
        return ""
    return (
        "its diagonal is not of one sign, as in a saddle-point problem; use "
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
    return f"the unknowns in its blocks of {size[0]} are coupled; use BlockGaussSeidel() there"


def _axes(level: Level, matrix: Any) -> str:
    """Whether couplings along grid axes differ and no line relaxation covers the strong axis."""
    shape = level.shape
    if len(shape) < 2 or math.prod(shape) != matrix.shape[0]:
        return ""
    strength = _diffusion(matrix, shape)
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
            f"its matrix couples unknowns {times} along axis {first} of the grid{than}; use "
            f"LineRelaxation(axes={first}) there"
        )
    return (
        "its matrix couples unknowns along different axes of the grid from place to place, "
        f"{times} as along the others; use LineRelaxation('alternating') there"
    )


def _diffusion(matrix: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Coupling strength of each row along each axis of a grid, of shape (axes, rows).

    For a second-order equation the second moments of a row are its diffusion coefficients, whatever
    the stencil. Single entries do not show them: bilinear elements have large entries along a weak
    axis, too. If these moments vanish, as for a fourth-order equation, the entries are used.
    """
    at = (np.array(np.unravel_index(x, shape)) for x in (matrix.row, matrix.col))
    apart = abs(np.subtract(*at))
    points = np.array(shape)[:, None]
    apart = np.minimum(apart, points - apart)  # periodic
    axes, rows = len(shape), matrix.shape[0]
    moments, sizes, along = (np.zeros((axes, rows)) for _ in range(3))
    number = (apart > 0).sum(axis=0)
    for axis, squares in enumerate(apart**2):
        real, imaginary = (
            np.bincount(matrix.row, part * squares, rows)
            for part in (matrix.data.real, matrix.data.imag)
        )
        moments[axis] = np.hypot(real, imaginary)
        sizes[axis] = np.bincount(matrix.row, abs(matrix.data) * squares, rows)
        alone = (number == 1) & (squares > 0)
        along[axis] = np.bincount(matrix.row[alone], abs(matrix.data[alone]), rows)
    moments[moments <= np.finfo(np.float32).eps * sizes.max(axis=0)] = 0.0  # rounding
    second_order = ((moments >= MANY * sizes) & (sizes > 0.0)).any(axis=0).mean() >= 1.0 - MANY
    return moments if second_order else along


def _convection(matrix: Any) -> str:
    csr = sp.csr_matrix(matrix)
    difference = abs(csr - csr.conj().T)
    off = abs(csr - sp.diags(csr.diagonal()))
    if difference.sum() < 2.0 * MANY * off.sum() or not _ilu_reduces(csr):
        return ""
    return "its matrix is far from symmetric, as in a flow problem; use ILU() there"


def _spread(matrix: Any, lines: bool) -> str:
    """Whether the rows have few large entries and many much smaller ones.

    With `lines`, line relaxation may be suggested.
    """
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
    told = (
        f"the largest entries of its rows are {np.median(ratios):.3g} times the smaller ones, so "
    )
    told += "unknowns are coupled strongly to few others; use "
    where = "if these lie along grid lines, given by Level(shape=...)"
    if _ilu_reduces(csr):
        return f"{told}ILU() there" + (f", or LineRelaxation {where}" if lines else "")
    return f"{told}LineRelaxation there {where} (ILU() would not converge)" if lines else ""
