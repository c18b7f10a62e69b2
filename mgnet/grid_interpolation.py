"""Interpolation between a structured grid and every second point of it.

The weights are linear or follow from the operator. At a fine point between two coarse ones, the
equation, summed over the other axes, gives the value; at the center of a face or a cell, the
equation gives it from the values of the neighbors. Where coefficients jump, the derivative of a
solution jumps too, and linear interpolation is inaccurate. Source: Dendy, J. Comput. Phys. 48
(1982) 366-386.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse as sp

__all__ = ["GridAxis", "class_shape", "linear_weights", "operator_weights", "part_of_class"]
__all__ += ["classes", "interpolation", "pieces"]

Stencils = dict[tuple[int, ...], np.ndarray]
#: `weights[kind][signs]`: weights of the coarse point on that side at the fine points of a class. A
#: class is a tuple of 0 (a coarse index) and 1 (between two coarse indices) along each axis.
Weights = dict[tuple[int, ...], Stencils]


@dataclass(frozen=True)
class GridAxis:
    """Positions of the points of one axis relative to those of the coarser grid.

    Gaps lie between the `coarse` kept points, before the first and after the last: gap j lies
    before kept point j. The fine point of a gap has the index `2 j + first - 1`; an outer gap may
    have none. On a periodic axis the first and the last gap are the same, and this gap is empty if
    the number of points is odd.

    Parameters
    ----------
    points : int
        Number of fine points.
    ends : pair of str
        Kinds of the two ends, from `boundary_kinds`.
    halved : bool
        Whether every second point is kept; otherwise all points are.

    Examples
    --------
    >>> axis = GridAxis(7, ("dirichlet", "dirichlet"))
    >>> axis.first, axis.coarse
    (1, 3)
    """

    points: int
    ends: tuple[str, str]
    halved: bool = True

    @property
    def periodic(self) -> bool:
        """Whether the axis is periodic."""
        return self.ends[0] == "periodic"

    @property
    def first(self) -> int:
        """The index of the first point that is kept."""
        return 1 if self.halved and self.ends[0] == "dirichlet" else 0

    @property
    def coarse(self) -> int:
        """Number of kept points."""
        return (self.points - self.first + 1) // 2 if self.halved else self.points

    @property
    def gaps(self) -> range:
        """The gaps that contain a fine point, each once."""
        start = 1 - self.first
        return range(start, start + self.points - self.coarse)

    @property
    def seam(self) -> bool:
        """Whether the last and the first kept point are also neighbors on the fine grid."""
        return self.periodic and self.halved and self.points % 2 == 1


def classes(axes: tuple[GridAxis, ...]) -> list[tuple[int, ...]]:
    """The classes of fine points, ordered by the number of axes on which they lie in gaps.

    Examples
    --------
    >>> axis = GridAxis(7, ("dirichlet", "dirichlet"))
    >>> classes((axis, axis))
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    return sorted(product(*((0, 1) if axis.halved else (0,) for axis in axes)), key=sum)


def class_shape(kind: tuple[int, ...], axes: tuple[GridAxis, ...]) -> tuple[int, ...]:
    """Shape of an array over the points of a class, outer gaps included.

    Examples
    --------
    >>> class_shape((1,), (GridAxis(7, ("dirichlet", "dirichlet")),))
    (4,)
    """
    return tuple(axis.coarse + between for axis, between in zip(axes, kind, strict=True))


def _fine(axis: GridAxis, between: int) -> slice:
    """The fine indices of a class along an axis."""
    if not axis.halved:
        return slice(None)
    return slice(1 - axis.first if between else axis.first, None, 2)


def part_of_class(
    values: np.ndarray, kind: tuple[int, ...], axes: tuple[GridAxis, ...]
) -> np.ndarray:
    """The values of an array at the points of a class; zero in gaps without a point.

    Examples
    --------
    >>> axis = GridAxis(4, ("periodic", "periodic"))
    >>> part_of_class(np.arange(4.0), (1,), (axis,))
    array([3., 1., 3.])
    """
    taken = values[tuple(_fine(axis, between) for axis, between in zip(axes, kind, strict=True))]
    if not any(kind):
        return taken
    part = np.zeros(class_shape(kind, axes), values.dtype)
    inside = tuple(
        slice(axis.gaps.start, axis.gaps.stop) if between else slice(None)
        for axis, between in zip(axes, kind, strict=True)
    )
    part[inside] = taken
    for k, axis in enumerate(axes):
        if kind[k] and axis.periodic and not axis.seam:
            part[_at(k, 0)] = part[_at(k, axis.coarse)]
    return part


def _at(axis: int, index: int) -> tuple[slice, ...]:
    """One index of an axis, as a slice."""
    return (slice(None),) * axis + (slice(index, index + 1),)


def pieces(
    steps: tuple[int, ...], kind: tuple[int, ...], axes: tuple[GridAxis, ...]
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Positions of the points of a class and of their neighbors with a coarse index.

    From a gap, step -1 leads to the kept point before it and step 1 to the kept point after it; on
    an axis that is not halved, a step leads to the adjacent point.

    Yields
    ------
    (here, there)
        Slices of equal shape into arrays over the class and over the class of the neighbors;
        periodic axes give several pairs.

    Examples
    --------
    >>> axis = GridAxis(7, ("dirichlet", "dirichlet"))
    >>> list(pieces((-1,), (1,), (axis,)))
    [((slice(1, 4, None),), (slice(0, 3, None),))]
    """
    for pairs in product(*map(_pieces, steps, kind, axes)):
        yield tuple(here for here, _ in pairs), tuple(there for _, there in pairs)


def _pieces(step: int, between: int, axis: GridAxis) -> list[tuple[slice, slice]]:
    n = axis.coarse
    if step == 0:
        return [(slice(None), slice(None))]
    if between:
        found = [(slice(1, n + 1), slice(0, n)) if step < 0 else (slice(0, n), slice(0, n))]
        wrap = (slice(0, 1), slice(n - 1, n)) if step < 0 else (slice(n, n + 1), slice(0, 1))
    else:
        behind, before = slice(1, n), slice(0, n - 1)
        found = [(behind, before) if step < 0 else (before, behind)]
        wrap = (slice(0, 1), slice(n - 1, n)) if step < 0 else (slice(n - 1, n), slice(0, 1))
    return [*found, wrap] if axis.periodic else found


def linear_weights(axes: tuple[GridAxis, ...], dtype: Any = float) -> Weights:
    """Weights of (multi)linear interpolation; the value beyond a Dirichlet end is zero.

    Weights of outer gaps without a point have no meaning.

    Examples
    --------
    >>> weights = linear_weights((GridAxis(4, ("neumann", "neumann")),))
    >>> weights[1,][-1,], weights[1,][1,]
    (array([0. , 0.5, 1. ]), array([0.5, 0.5, 0. ]))
    """
    found: Weights = {}
    for kind in classes(axes):
        found[kind] = {}
        for signs in product(*((-1, 1) if between else (0,) for between in kind)):
            weight: Any = np.ones((1,) * len(axes), dtype)
            for k, axis in enumerate(axes):
                if kind[k]:
                    line = _linear(axis, signs[k]).astype(dtype)
                    weight = weight * line.reshape((-1,) + (1,) * (len(axes) - k - 1))
            found[kind][signs] = np.broadcast_to(weight, class_shape(kind, axes))
    return found


def _linear(axis: GridAxis, sign: int) -> np.ndarray:
    """The weights of the kept points on one side, along an axis."""
    n = axis.coarse
    weights = np.full(n + 1, 0.5)
    # With a seam, the gap between the last and first point is empty and has the value beyond it.
    if axis.seam:
        weights[0], weights[n] = (1.0, 0.0) if sign < 0 else (0.0, 1.0)
    elif not axis.periodic:
        weights[0 if sign < 0 else n] = 0.0
        if axis.ends[1] == "neumann" and sign < 0:
            weights[n] = 1.0
    return weights


def operator_weights(stencils: Stencils, axes: tuple[GridAxis, ...]) -> Weights:
    """Weights from the equations of the fine points, summed over the axes without gaps.

    If the off-diagonal entries of such an equation sum to more than its diagonal entry, as for the
    Helmholtz equation on coarse grids, the diagonal entry is replaced so that the weights sum to 1.

    Parameters
    ----------
    stencils : dict of arrays over the fine grid
        Stencils of the fine operator.
    axes : tuple of GridAxis
        Axes of the grid.

    Examples
    --------
    Between two coarse points, the coefficient is 1 on the left and 3 on the right:

    >>> stencils = {(-1,): np.full(3, -1.0), (0,): np.full(3, 4.0), (1,): np.full(3, -3.0)}
    >>> weights = operator_weights(stencils, (GridAxis(3, ("neumann", "neumann")),))
    >>> weights[1,][-1,][1], weights[1,][1,][1]
    (0.25, 0.75)
    """
    dtype = np.result_type(*stencils.values())
    found: Weights = {}
    for kind in classes(axes):
        shape = class_shape(kind, axes)
        if not any(kind):
            found[kind] = {kind: np.broadcast_to(np.ones((), dtype), shape)}
            continue
        summed = _summed(stencils, kind, axes)
        scale = _scale(summed)
        found[kind] = {}
        for signs in product(*((-1, 1) if between else (0,) for between in kind)):
            weight = np.zeros(shape, dtype)
            for reached in product(*((0, sign) if sign else (0,) for sign in signs)):
                if not any(reached) or reached not in summed:
                    continue
                rest = tuple(b if r == 0 else 0 for b, r in zip(kind, reached, strict=True))
                more = tuple(s if r == 0 else 0 for s, r in zip(signs, reached, strict=True))
                for here, there in pieces(reached, kind, axes):
                    weight[here] += summed[reached][here] * found[rest][more][there]
            weight *= scale
            found[kind][signs] = weight
        _close_seams(found, kind, axes)
    return found


def _summed(stencils: Stencils, kind: tuple[int, ...], axes: tuple[GridAxis, ...]) -> Stencils:
    """The stencils at the points of a class, summed over the axes along which they are coarse."""
    summed: Stencils = {}
    for offset, values in stencils.items():
        left = tuple(o if between else 0 for o, between in zip(offset, kind, strict=True))
        part = part_of_class(values, kind, axes)
        if left in summed:
            summed[left] += part
        else:
            summed[left] = part
    return summed


def _scale(summed: Stencils) -> np.ndarray:
    """Minus one over the diagonal entries, or over the values that make the weights sum to 1."""
    centre = (0,) * len(next(iter(summed)))
    diagonal = summed[centre]
    others = -sum(values for offset, values in summed.items() if offset != centre)
    weak = abs(diagonal) < abs(others)
    diagonal = np.where(weak, others, diagonal)
    return np.divide(-1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal != 0.0)


def _close_seams(weights: Weights, kind: tuple[int, ...], axes: tuple[GridAxis, ...]) -> None:
    """Give an empty gap of a periodic axis the value of the kept point beyond it."""
    for k, axis in enumerate(axes):
        if kind[k] and axis.seam:
            rest = (*kind[:k], 0, *kind[k + 1 :])
            for signs, weight in weights[kind].items():
                more = (*signs[:k], 0, *signs[k + 1 :])
                for gap, kept, sign in ((0, axis.coarse - 1, -1), (axis.coarse, 0, 1)):
                    same = sign == signs[k]
                    weight[_at(k, gap)] = weights[rest][more][_at(k, kept)] if same else 0.0


def interpolation(weights: Weights, axes: tuple[GridAxis, ...]) -> sp.csr_matrix:
    """The matrix of interpolation, of shape (fine points, coarse points).

    Examples
    --------
    >>> axes = (GridAxis(3, ("dirichlet", "dirichlet")),)
    >>> interpolation(linear_weights(axes), axes).toarray()
    array([[0.5],
           [1. ],
           [0.5]])
    """
    lines = [_Line(axis) for axis in axes]
    counts: Any = np.ones((1,) * len(axes), np.int64)
    for k, line in enumerate(lines):
        counts = counts * line.counts.reshape((-1,) + (1,) * (len(axes) - k - 1))
    fine, coarse = counts.size, math.prod(axis.coarse for axis in axes)
    starts = np.zeros(fine + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    index = np.int32 if max(starts[-1], fine) < 2**31 else np.int64
    starts = starts.astype(index)
    data = np.empty(starts[-1], np.result_type(*(next(iter(w.values())) for w in weights.values())))
    columns = np.empty(starts[-1], index)
    of_rows = starts[:-1].reshape(counts.shape)
    for sides in weights.values():
        for signs, weight in sides.items():
            chosen = [line.chosen(sign) for line, sign in zip(lines, signs, strict=True)]
            rows = np.ix_(*(fine for fine, _, _, _ in chosen))
            place, column, stride = of_rows[rows], 0, 1
            later: Any = np.ones((1,) * len(axes), index)
            for k in reversed(range(len(axes))):
                tail = (-1,) + (1,) * (len(axes) - k - 1)
                fine_index, _, target, rank = chosen[k]
                place = place + rank.astype(index).reshape(tail) * later
                later = later * lines[k].counts[fine_index].astype(index).reshape(tail)
                column = column + (target * stride).astype(index).reshape(tail)
                stride *= axes[k].coarse
            data[place] = weight[np.ix_(*(own for _, own, _, _ in chosen))]
            columns[place] = np.broadcast_to(column, place.shape)
    matrix = sp.csr_matrix((data, columns, starts), (fine, coarse))
    matrix.sum_duplicates()  # on a periodic axis, a single kept point is the neighbor on both sides
    return matrix


class _Line:
    """The coarse neighbors of the fine points along one axis."""

    def __init__(self, axis: GridAxis):
        n = axis.coarse
        self.axis = axis
        self.counts = np.ones(axis.points, np.int64)
        gaps = np.array(axis.gaps, np.int64) if axis.halved else np.zeros(0, np.int64)
        self.gaps, self.between = gaps, 2 * gaps + axis.first - 1
        before, behind = gaps - 1, gaps.copy()
        if axis.periodic:
            before, behind = before % n, behind % n
        self.before, self.behind = before, behind
        self.has = {-1: (before >= 0) & (before < n), 1: (behind >= 0) & (behind < n)}
        self.counts[self.between] = self.has[-1].astype(int) + self.has[1]

    def chosen(self, sign: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Fine points, their positions in arrays of the class, coarse neighbors and their order."""
        if sign == 0:
            kept = np.arange(self.axis.coarse)
            fine = 2 * kept + self.axis.first if self.axis.halved else kept
            return fine, kept, kept, np.zeros(len(kept), np.int64)
        here = self.has[sign]
        target = (self.before if sign < 0 else self.behind)[here]
        other = (self.behind if sign < 0 else self.before)[here]
        first = (target < other) | ((target == other) & (sign < 0)) | ~self.has[-sign][here]
        return self.between[here], self.gaps[here], target, (~first).astype(np.int64)
