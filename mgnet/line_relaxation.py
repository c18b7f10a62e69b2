"""`LineRelaxation`: relaxation of all unknowns of a grid line at once, with banded factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp

from mgnet import vector
from mgnet.limits import check_memory, is_number, is_one_of, is_whole, shown
from mgnet.local_inverses import balancing
from mgnet.smoother import Smoother
from mgnet.subspace_corrections import (
    Stage,
    check_direction,
    corrected,
    finite_matrix,
    has_rows,
    in_direction,
    solve_dtype,
)

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["LineRelaxation"]

State = Any


@dataclass(frozen=True)
class LineRelaxation(Smoother):
    """Line relaxation on a structured grid: all unknowns of a line are solved for at once.

    Use it for equations with a strong coupling along one axis, from stretched cells or from
    different coefficients, where point smoothers barely reduce errors that vary across that axis.
    If the strong axis is unknown or changes from place to place, relax lines along every axis
    ("alternating").

    A line contains all points that differ in one index. Its matrix consists of the entries of the
    level's matrix that couple these points, and is banded for the usual stencils (on periodic axes
    in the order first, last, second, last but one). LAPACK factorizes it once, all lines in one
    call. On a nonlinear level the matrix is the Jacobian of the first visit. Source: Trottenberg,
    Oosterlee and Schueller, Multigrid (2001), section 5.1.

    Parameters
    ----------
    axes : "alternating", int or tuple of int
        Axes along which the lines run, in the order of a sweep; "alternating" means all of them.
    order : "zebra" or "jacobi"
        "zebra" solves first the lines that contain points of the coarser grid, and every second
        line from there, then the others; "jacobi" solves all lines from one residual. Both cost
        one evaluation per axis.
    omega : float, optional
        Damping factor, dimensionless. By default 1 for "zebra", which smooths best undamped, and
        2/3 for "jacobi".
    direction : "forward", "backward" or "symmetric"
        Order of axes and colors. If it is forward before the coarse correction and backward after
        it, the cycle for a symmetric matrix is symmetric, as `cg` requires.
    shape : tuple of int, optional
        Number of points along each axis of the grid, in C order; by default `Level.shape`, which
        works for all levels of a hierarchy.
    offset : 0 or 1
        For "zebra", the index of the first point of the coarser grid along each axis: 1 if points
        1, 3, 5, ... are kept, as in the gallery, 0 for points 0, 2, 4, .... The wrong value slows
        down convergence considerably.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    Cells with aspect ratio 1000, and lines along their short sides:

    >>> from mgnet import Solver, gallery
    >>> import scipy.sparse as sp
    >>> stretched = gallery.poisson((31, 31), levels=1)[0].matrix
    >>> second = sp.kron(sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(31, 31)), sp.eye(31))
    >>> from mgnet import Level
    >>> smoother = LineRelaxation(axes=0)
    >>> level = Level(sp.csr_matrix(stretched + 1e6 * second), smoother, shape=(31, 31))
    >>> u, f = np.zeros(961), np.ones(961)
    >>> u, _ = smoother.smooth(level, u, f, 1, smoother.start(level, u))
    >>> bool(np.linalg.norm(level.residual_at(u, f)) < 1e-3 * np.linalg.norm(f))
    True
    """

    axes: str | int | tuple[int, ...] = "alternating"
    order: str = "zebra"
    omega: float | None = None
    direction: str = "forward"
    shape: tuple[int, ...] | None = None
    offset: int = 1

    def __post_init__(self) -> None:
        axes = (self.axes,) if is_whole(self.axes) else self.axes
        counted = isinstance(axes, tuple) and len(axes) > 0 and all(map(is_whole, axes))
        if not counted and not is_one_of(axes, ("alternating",)):
            raise ValueError(
                f"LineRelaxation got axes {shown(self.axes)}; give the number of an axis, from 0, "
                "a tuple of them, or 'alternating'"
            )
        if not is_one_of(self.order, ("zebra", "jacobi")):
            raise ValueError(
                f"LineRelaxation got order {shown(self.order)}; it must be 'zebra' or 'jacobi'"
            )
        if self.omega is not None and not is_number(self.omega, 0.0, math.inf, open=True):
            raise ValueError(
                f"LineRelaxation got omega {shown(self.omega)}; give a number above 0, such as 0.8"
            )
        check_direction("LineRelaxation", self.direction)
        if not is_whole(self.offset, 0, 1):
            raise ValueError(f"LineRelaxation got offset {shown(self.offset)}; it must be 0 or 1")
        tuples = isinstance(self.shape, tuple) and len(self.shape) > 0
        if self.shape is not None and not (tuples and all(is_whole(n, 1) for n in self.shape)):
            raise ValueError(
                f"LineRelaxation got shape {shown(self.shape)}; give a tuple of positive integers, "
                "the points along each axis"
            )

    def start(self, level: Level, u: State) -> list[Stage]:
        matrix = finite_matrix(level, u, f"{self} on {level}")
        shape, axes = self._grid(level, matrix.shape[0])
        whole: Any = sp.csr_matrix(matrix) if has_rows(level) else None
        dtype, omega = solve_dtype(matrix, u), self.omega
        omega = omega or (1.0 if self.order == "zebra" else 2.0 / 3.0)
        stages = {}
        for axis in set(axes):
            lines, colours, entries = _lines(matrix, shape, axis, self.offset)
            stages[axis] = []
            for colour in (0, 1) if self.order == "zebra" else (None,):
                chosen = np.flatnonzero(colours == colour) if colour is not None else ...
                if lines[chosen].size == 0:
                    continue
                solve = _factorised(entries, lines[chosen], dtype, f"{self} on {level}", axis)
                unknowns = lines[chosen].reshape(-1)
                rows = None if whole is None else whole[unknowns]
                stages[axis].append(Stage(unknowns, partial(_damped, solve, dtype, omega), rows))
        forward = [stage for axis in axes for stage in stages[axis]]
        return in_direction(self.direction, forward)

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        u = corrected(level, u, f, memory, sweeps)
        if has_rows(level):
            level.charge(self.work(level, sweeps))
        return u, memory

    def work(self, level: Level, sweeps: int) -> float:
        shape, axes = self._grid(level, level.unknowns)
        passes = sweeps * (2 if self.direction == "symmetric" else 1)
        if has_rows(level) or self.order == "jacobi":  # each row is evaluated once per axis
            return passes * len(axes) * level.residual_work
        # A grid with a single line along an axis has one color there.
        colours = [min(math.prod(shape) // shape[axis], 2) for axis in axes]
        return passes * sum(colours) * level.residual_work

    def axes_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The axes along which lines run on a grid of this shape."""
        given: Any = self.axes
        if given == "alternating":
            return tuple(range(len(shape)))
        return given if isinstance(given, tuple) else (given,)

    def _grid(self, level: Level, unknowns: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of the grid of a level, and the axes along which lines run."""
        shape = self.shape or level.shape
        if not shape:
            raise ValueError(
                f"{self} on {level} has no shape of the grid; give "
                "Level(shape=...) or LineRelaxation(shape=...), the points along each axis"
            )
        if unknowns and math.prod(shape) != unknowns:
            raise ValueError(
                f"{self} on {level} got shape {shown(shape)}, which is {shown(math.prod(shape))} "
                f"points, but the level has {unknowns} unknowns; leave shape out, and give each "
                "level its own, Level(shape=...)"
            )
        axes = self.axes_of(shape)
        if max(axes) >= len(shape):
            raise ValueError(
                f"{self} on {level} runs along axis {max(axes)}, but the grid has the shape "
                f"{shown(shape)}: its axes are 0 to {len(shape) - 1}"
            )
        return shape, axes

    def __str__(self) -> str:
        axes = self.axes if self.axes != "alternating" else "'alternating'"
        return f"LineRelaxation({axes}, {self.order!r})"


def _lines(
    matrix: Any, shape: tuple[int, ...], axis: int, offset: int
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The unknowns of each line, the colors of the lines, and the entries within lines.

    Returns
    -------
    lines : array of int of shape (lines, points)
        In the order along the line, or folded where that makes the band narrower.
    colors : array of int of shape (lines,)
        0 for lines that contain points of the coarser grid, and every second from there; else 1.
    entries : (rows, columns, values)
    """
    points = shape[axis]
    lines = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), axis, -1).reshape(-1, points)
    others = [n for k, n in enumerate(shape) if k != axis]
    colours = (
        ((np.indices(others) + offset) % 2).sum(axis=0).reshape(-1) % 2
        if others
        else np.zeros(1, int)
    )
    entries: Any = sp.coo_matrix(matrix)
    line, place = np.empty(lines.size, int), np.empty(lines.size, int)
    line[lines] = np.arange(len(lines))[:, None]
    place[lines] = np.arange(points)
    within = (line[entries.row] == line[entries.col]) & (entries.data != 0)
    rows, columns, values = (x[within] for x in (entries.row, entries.col, entries.data))
    # The matrix of a periodic line has entries in two corners. In the folded order 0, n - 1, 1,
    # n - 2, ... it is banded with twice the width.
    order = np.empty(points, int)
    half = (points + 1) // 2
    order[::2], order[1::2] = np.arange(half), np.arange(points - 1, half - 1, -1)
    folded = np.argsort(order)
    width = abs(place[rows] - place[columns]).max(initial=0)
    if abs(folded[place[rows]] - folded[place[columns]]).max(initial=0) < width:
        lines = lines[:, order]
    return lines, colours, (rows, columns, values)


def _factorised(
    entries: tuple[np.ndarray, np.ndarray, np.ndarray],
    lines: np.ndarray,
    dtype: np.dtype,
    owner: str,
    axis: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that solves for all unknowns of some lines, concatenated in one array.

    All lines form one banded matrix without entries between different lines, so one call of LAPACK
    handles them. Row exchanges stay within a line: a column has zeros in the rows of other lines.
    """
    rows, columns, values = entries
    number, points = lines.size, lines.shape[1]
    position = np.full(max(rows.max(initial=0), lines.max()) + 1, -1)
    position[lines.reshape(-1)] = np.arange(number)
    i, j = position[rows], position[columns]
    chosen = i >= 0
    i, j, values = i[chosen], j[chosen], values[chosen]
    below, above = max((i - j).max(initial=0), 0), max((j - i).max(initial=0), 0)
    check_memory(
        number * (2 * below + above + 1) * dtype.itemsize,
        f"{owner} got lines with entries up to {max(below, above)} points apart",
        "take another smoother",
    )
    scales = balancing(i, j, values, number)
    if scales is not None:
        values = values * scales[0][i] * scales[1][j]
    band = np.zeros((2 * below + above + 1, number), dtype, order="F")
    np.add.at(band, (below + above + i - j, j), values)  # SciPy may store an entry in two parts
    scale = abs(band).max(axis=0, initial=0.0)
    if below == above == 1 and number > 2:
        dl, d, du = band[3, :-1], band[2], band[1, 1:]
        factor, solver = la.get_lapack_funcs(("gttrf", "gttrs"), dtype=dtype)
        *factors, _ = factor(dl, d, du)
        pivots = factors[1]

        def solve(b: np.ndarray) -> np.ndarray:
            return solver(*factors, b)[0]

    else:
        factor, solver = la.get_lapack_funcs(("gbtrf", "gbtrs"), dtype=dtype)
        lu, exchanges, _ = factor(band, below, above, overwrite_ab=True)
        pivots = lu[below + above]

        def solve(b: np.ndarray) -> np.ndarray:
            return solver(lu, below, above, b, exchanges)[0]

    singular = abs(pivots) <= points * np.finfo(dtype).eps * scale
    if singular.any() or not np.isfinite(pivots).all():
        unknown = lines.reshape(-1)[np.argmax(singular | ~np.isfinite(pivots))]
        raise ValueError(
            f"{owner}: the line along axis {axis} through unknown {unknown} has a matrix that is "
            "singular to working precision; use lines along another axis, or another smoother"
        )
    if scales is None:
        return solve
    before, after = (x.astype(abs(band[:1, :1]).dtype) for x in scales)
    return lambda b: after * solve(before * b)


def _damped(
    solve: Callable[[np.ndarray], np.ndarray], dtype: np.dtype, omega: float, r: np.ndarray
) -> np.ndarray:
    d = vector.solved_by_parts(solve, dtype, r)
    return d if omega == 1.0 else d * omega
