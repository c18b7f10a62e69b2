"""Read stencils on structured grids from a matrix."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

from mgnet.grid_stencils import OWNER

__all__ = ["stencils_of_matrix"]

Stencils = dict[tuple[int, ...], np.ndarray]

ROWS = 2**14  # of a matrix that are processed together, so that their tables stay in the cache


def stencils_of_matrix(matrix: Any, shape: tuple[int, ...], periodic: tuple[bool, ...]) -> Stencils:
    """Find the stencils of a matrix on a grid.

    Parameters
    ----------
    matrix : csr_matrix
        Matrix with rows and columns in the C order of the grid.
    shape, periodic : tuple
        Shape of the grid, and whether each axis is periodic.

    Raises
    ------
    ValueError
        If the shape does not fit, or points are coupled that are not neighbors.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> A = sp.csr_matrix([[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]])
    >>> stencils_of_matrix(A, (3,), (False,))[1,]
    array([-1., -1.,  0.])
    """
    unknowns = math.prod(shape)
    if matrix.shape != (unknowns, unknowns):
        raise ValueError(
            f"{OWNER} got a matrix of shape {matrix.shape}; a grid of shape {shape} has "
            f"{unknowns} points"
        )
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    found = None if any(periodic) else _by_distance(matrix, shape)
    return _by_indices(matrix, shape, periodic) if found is None else found


def _by_indices(matrix: Any, shape: tuple[int, ...], periodic: tuple[bool, ...]) -> Stencils:
    """Find stencils from the indices of rows and columns along each axis; refuse distant points."""
    unknowns, axes = math.prod(shape), len(shape)
    found: Stencils = {(0,) * axes: np.zeros(unknowns, matrix.dtype)}
    for first in range(0, unknowns, ROWS):
        last = min(first + ROWS, unknowns)
        part = slice(matrix.indptr[first], matrix.indptr[last])
        rows = np.repeat(np.arange(first, last), np.diff(matrix.indptr[first : last + 1]))
        there = matrix.data[part] != 0.0
        rows, columns, values = (x[there] for x in (rows, matrix.indices[part], matrix.data[part]))
        code = np.zeros(len(rows), np.int64)
        for axis, n in enumerate(shape):
            stride = math.prod(shape[axis + 1 :])
            step = columns // stride % n - rows // stride % n
            if periodic[axis]:
                step %= n
                if n > 2:  # otherwise both neighbors are the same point
                    step[step == n - 1] = -1
            far = abs(step) > 1
            if far.any():
                _refuse_far(rows[far][0], columns[far][0], axis, step[far][0])
            code = 3 * code + step + 1
        for number in np.flatnonzero(np.bincount(code)):
            offset = tuple(int(number) // 3 ** (axes - 1 - axis) % 3 - 1 for axis in range(axes))
            chosen = code == number
            if offset not in found:
                found[offset] = np.zeros(unknowns, matrix.dtype)
            found[offset][rows[chosen]] = values[chosen]
    return {offset: values.reshape(shape) for offset, values in found.items()}


def _by_distance(matrix: Any, shape: tuple[int, ...]) -> Stencils | None:
    """Find stencils faster, by the distances of columns from rows; None if that fails."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    offsets = sorted(product((-1, 0, 1), repeat=len(shape)), key=np.count_nonzero)
    distances = {offset: int(np.dot(offset, strides)) for offset in offsets}
    if len(set(distances.values())) < len(distances):  # fewer than three points along an axis
        return None
    unknowns, indptr = math.prod(shape), matrix.indptr
    found: Stencils = {(0,) * len(shape): np.zeros(unknowns, matrix.dtype)}
    for first in range(0, unknowns, ROWS):
        last = min(first + ROWS, unknowns)
        part = slice(indptr[first], indptr[last])
        rows = np.arange(first, last, dtype=matrix.indices.dtype)
        rows = np.repeat(rows, np.diff(indptr[first : last + 1]))
        apart, values, left = matrix.indices[part] - rows, matrix.data[part], len(rows)
        for offset, distance in distances.items():
            if not left:
                break
            chosen = np.flatnonzero(apart == distance)
            if len(chosen):
                left -= len(chosen)
                if offset not in found:
                    if not values[chosen].any():  # stored zeros
                        continue
                    found[offset] = np.zeros(unknowns, matrix.dtype)
                found[offset][rows[chosen]] = values[chosen]
        if left:
            return None
    whole = {offset: values.reshape(shape) for offset, values in found.items()}
    for offset, values in whole.items():
        for axis, step in enumerate(offset):
            end = -1 if step > 0 else 0
            if step and values[(slice(None),) * axis + (end,)].any():
                return None  # from the end of one line to the beginning of the next
    return whole


def _refuse_far(row: int, column: int, axis: int, step: int) -> None:
    raise ValueError(
        f"{OWNER} got a matrix with an entry in row {row} and column {column}, which are points "
        f"{abs(step)} apart along axis {axis}; entries may reach adjacent points only (if the "
        "axis is periodic, give boundary='periodic'; else use Hierarchy.from_pyamg)"
    )
