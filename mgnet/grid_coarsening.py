"""Coarser grids of a structured grid, and Galerkin products of stencils.

If the stencils couple each point only with its nearest neighbors, the stencil of the product `R A
P` does so, too. It is summed term by term as products of arrays over the coarse grid. This is much
faster than sparse matrix products, because nothing is sorted or searched.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from mgnet.grid_interpolation import GridAxis, Weights, classes, part_of_class, pieces

__all__ = ["coarse_axes", "galerkin", "strengths"]

Stencils = dict[tuple[int, ...], np.ndarray]

#: An axis is not coarsened if its couplings are below this part of the strongest ones. With
#: Gauss-Seidel sweeps on -u_xx - eps u_yy this value needs the fewest evaluations per digit, 13 to
#: 18 for all eps; 0.2 needs up to 29.
WEAK = 0.4


def strengths(stencils: Stencils, axes: int) -> np.ndarray:
    """The mean coupling along each axis, relative to the strongest axis at each point.

    Couplings are summed over the other axes, so they act on errors that are constant along those
    axes.

    Examples
    --------
    >>> stencils = {(0, 0): np.full((5, 5), 2.02), (0, 1): np.full((5, 5), -1.0)}
    >>> stencils |= {(0, -1): np.full((5, 5), -1.0), (1, 0): np.full((5, 5), -0.01)}
    >>> strengths(stencils, 2)
    array([0.005, 1.   ])
    """
    along = []
    for axis in range(axes):
        sides: Any = []
        for step in (-1, 1):
            values = [v for offset, v in stencils.items() if offset[axis] == step]
            sides.append(abs(sum(values)) if values else 0.0)
        along.append(sides[0] + sides[1] + 0.0 * abs(stencils[(0,) * axes]))
    largest = np.maximum.reduce(along)
    there = largest > 0.0
    if not there.any():
        return np.ones(axes)
    return np.array([float((values[there] / largest[there]).mean()) for values in along])


def coarse_axes(
    stencils: Stencils,
    shape: tuple[int, ...],
    kinds: tuple[tuple[str, str], ...],
    coarsen: tuple[int, ...] | None,
) -> tuple[GridAxis, ...]:
    """Choose the axes to halve next: those of `coarsen`, or those with strong couplings.

    Examples
    --------
    >>> [axis.halved for axis in coarse_axes({}, (7, 2), (("neumann", "neumann"),) * 2, (0, 1))]
    [True, True]
    """
    allowed = range(len(shape)) if coarsen is None else coarsen
    able = [k for k in allowed if shape[k] > 1]
    if coarsen is None and able:
        found = strengths(stencils, len(shape))
        strongest = max(found[k] for k in able)
        able = [k for k in able if found[k] >= WEAK * strongest]
    return tuple(
        GridAxis(n, ends, k in able) for k, (n, ends) in enumerate(zip(shape, kinds, strict=True))
    )


def galerkin(
    stencils: Stencils, axes: tuple[GridAxis, ...], prolong: Weights, restrict: Weights
) -> Stencils:
    """The stencils of `R A P`, where `restrict` holds the weights of the transpose of R.

    Examples
    --------
    >>> from mgnet.grid_interpolation import linear_weights
    >>> axes = (GridAxis(7, ("dirichlet", "dirichlet")),)
    >>> weights = linear_weights(axes)
    >>> second = {(-1,): np.full(7, -1.0), (0,): np.full(7, 2.0), (1,): np.full(7, -1.0)}
    >>> galerkin(second, axes, weights, weights)[0,]
    array([1., 1., 1.])
    """
    dtype = np.result_type(*stencils.values(), prolong[(0,) * len(axes)][(0,) * len(axes)])
    shape = tuple(axis.coarse for axis in axes)
    found: Stencils = {}
    for kind in classes(axes):
        columns = _times_prolongation(stencils, kind, axes, prolong, dtype)
        for signs, weight in restrict[kind].items():
            # Seen from the kept point, the gap lies on the opposite side.
            at = tuple(
                slice(None) if s == 0 else slice(0, n) if s > 0 else slice(1, n + 1)
                for s, n in zip(signs, shape, strict=True)
            )
            for sides, values in columns.items():
                step = tuple(
                    c if s == 0 else (c - s) // 2 for c, s in zip(sides, signs, strict=True)
                )
                term = weight[at] * values[at]
                if step in found:
                    found[step] += term
                else:
                    found[step] = term
    return found


def _times_prolongation(
    stencils: Stencils,
    kind: tuple[int, ...],
    axes: tuple[GridAxis, ...],
    prolong: Weights,
    dtype: np.dtype,
) -> Stencils:
    """The rows of `A P` at the points of a class, indexed by the offset of the coarse point.

    Along an axis, that offset is -1, 0 or 1 for a point with a coarse index; for a point in a gap
    it is -1 or 1 and means the kept point on that side.
    """
    found: Stencils = {}
    for offset, values in stencils.items():
        part = part_of_class(values, kind, axes)
        for target, signs, column, steps in _targets(offset, kind, axes):
            weight = prolong[target][signs]
            if column not in found:
                found[column] = np.zeros(part.shape, dtype)
            for here, there in _neighbors(steps, offset, kind, axes):
                found[column][here] += part[here] * weight[there]
    return found


def _targets(
    offset: tuple[int, ...], kind: tuple[int, ...], axes: tuple[GridAxis, ...]
) -> Iterator[tuple[Any, Any, Any, Any]]:
    """For each coarse point that a neighbor is interpolated from: (class, signs, column, steps)."""
    each = []
    for o, between, axis in zip(offset, kind, axes, strict=True):
        if not axis.halved:
            each.append([(0, 0, o, o)])
        elif between:  # the point itself, in its gap, or an adjacent kept point
            each.append([(1, s, s, 0) for s in (-1, 1)] if o == 0 else [(0, 0, o, o)])
        elif o == 0:
            each.append([(0, 0, 0, 0)])
        else:  # an adjacent gap, interpolated from two kept points
            each.append([(1, s, (o + s) // 2, o) for s in (-1, 1)])
    for chosen in product(*each):
        yield tuple(zip(*chosen, strict=True))  # type: ignore[misc]


def _neighbors(
    steps: tuple[int, ...],
    offset: tuple[int, ...],
    kind: tuple[int, ...],
    axes: tuple[GridAxis, ...],
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Slices of the points of a class, and of the points `offset` away from them in their class."""
    to_gap = [
        axis.halved and not between and o != 0
        for o, between, axis in zip(offset, kind, axes, strict=True)
    ]
    plain = tuple(0 if gap else step for step, gap in zip(steps, to_gap, strict=True))
    for here, there in pieces(plain, kind, axes):
        beside = [
            slice(0, axis.coarse) if o < 0 else slice(1, axis.coarse + 1)
            for o, axis in zip(offset, axes, strict=True)
        ]
        yield (
            here,
            tuple(b if gap else t for b, t, gap in zip(beside, there, to_gap, strict=True)),
        )
