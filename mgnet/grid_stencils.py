"""Stencils on structured grids, and their matrices.

A stencil is stored as one array over the grid for each neighbor: the array `stencils[offset]`,
where `offset` is a tuple of -1, 0 and 1, holds for each point the matrix entry that couples it to
the point at this offset. Entries that would lead out of the grid are zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice, product
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet.limits import check_memory, is_one_of, is_whole, shown

__all__ = [
    "boundary_kinds",
    "diffusion_stencils",
    "grid_shape",
    "stencil_arrays",
    "stencil_matrix",
]

Stencils = dict[tuple[int, ...], np.ndarray]
Kinds = tuple[tuple[str, str], ...]

KINDS = ("dirichlet", "neumann", "periodic")
OWNER = "Hierarchy.geometric"
ROWS = 2**14  # of a matrix that are processed together, so that their tables stay in the cache


def grid_shape(shape: Any) -> tuple[int, ...]:
    """Check the shape of a grid of one to three axes and return it as a tuple.

    Parameters
    ----------
    shape : int or sequence of 1 to 3 int
        Number of points along each axis.

    Raises
    ------
    ValueError
        If the shape is not 1 to 3 positive integers or has too many points.

    Examples
    --------
    >>> grid_shape(5), grid_shape([3, 4])
    ((5,), (3, 4))
    """
    points = tuple(islice(shape, 4)) if isinstance(shape, Iterable) else (shape,)
    if not 1 <= len(points) <= 3 or not all(is_whole(n, 1) for n in points):
        raise ValueError(
            f"{OWNER} got shape {shown(shape)}; give the points along each of 1 to 3 axes, "
            "positive integers"
        )
    grid = tuple(int(n) for n in points)
    check_memory(
        100 * math.prod(grid),
        f"{OWNER} got shape {shown(grid)}, which is {shown(math.prod(grid))} points",
        "take a coarser grid",
    )
    return grid


def boundary_kinds(boundary: Any, axes: int) -> Kinds:
    """Check boundary conditions and return the kinds of both ends of each axis.

    Parameters
    ----------
    boundary : str, or sequence of one str or pair of str per axis
        Boundary conditions.
    axes : int
        Number of axes of the grid.

    Raises
    ------
    ValueError
        If a kind is unknown, or the number of kinds does not fit the number of axes.

    Examples
    --------
    >>> boundary_kinds("neumann", 1)
    (('neumann', 'neumann'),)
    >>> boundary_kinds(["periodic", ("dirichlet", "neumann")], 2)
    (('periodic', 'periodic'), ('dirichlet', 'neumann'))
    """
    each = [boundary] * axes if isinstance(boundary, str) else boundary
    ends = []
    if isinstance(each, list | tuple) and len(each) == axes:
        ends = [(kind, kind) if isinstance(kind, str) else kind for kind in each]
    fits = [
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(is_one_of(kind, KINDS) for kind in pair)
        and (pair[0] == "periodic") == (pair[1] == "periodic")
        for pair in ends
    ]
    if not fits or not all(fits):
        raise ValueError(
            f"{OWNER} got boundary {shown(boundary)}; give 'dirichlet', 'neumann' or 'periodic', "
            f"or a sequence of {axes}, one for each axis: one of these words, or a pair of them "
            "for the left and the right end (an axis is periodic at both)"
        )
    return tuple((left, right) for left, right in ends)


def stencil_arrays(stencil: Any, shape: tuple[int, ...], kinds: Kinds) -> Stencils:
    """Convert a stencil to one array over the grid for each neighbor.

    Parameters
    ----------
    stencil : array of shape (3,) * d, or (3,) * d + shape
        One stencil for all points, or one for each point.
    shape : tuple of d int
        Shape of the grid.
    kinds : result of `boundary_kinds`
        Meaning of an entry that leads out of the grid. "dirichlet": the value there is zero, and
        the entry is left out; "neumann": the value is that of the nearest point, so the entry is
        added to that of this point; "periodic": the grid continues at the other end.

    Raises
    ------
    TypeError, ValueError
        If the stencil has a wrong shape or type, or entries that are not finite.

    Examples
    --------
    >>> stencils = stencil_arrays([-1.0, 2.0, -1.0], (3,), (("neumann", "dirichlet"),))
    >>> stencils[0,], stencils[-1,]
    (array([1., 2., 2.]), array([ 0., -1., -1.]))
    """
    values, axes = array_of(stencil, "a stencil"), len(shape)
    three = (3,) * axes
    if values.shape not in (three, three + shape):
        raise ValueError(
            f"{OWNER} got a stencil of shape {values.shape}; on a grid of shape {shape} give "
            f"{three}, {three + shape} for one at each point, or a SciPy sparse matrix"
        )
    found = {}
    for offset in product((-1, 0, 1), repeat=axes):
        entries = values[tuple(k + 1 for k in offset)]
        if entries.any() or not any(offset):
            found[offset] = np.array(np.broadcast_to(entries, shape), order="C")
    for axis, ends in enumerate(kinds):
        for step, kind in zip((-1, 1), ends, strict=True):
            if kind != "periodic":
                _end(found, axis, step, kind)
    return found


def array_of(values: Any, what: str) -> np.ndarray:
    """Convert to an array of finite floating-point or complex numbers; refuse anything else."""
    if np.ma.is_masked(values):
        raise ValueError(f"{OWNER} got {what} with masked entries; fill them, with .filled(...)")
    try:
        values = np.asarray(values)
    except ValueError:
        raise ValueError(f"{OWNER} got {what} whose rows differ in length") from None
    if values.dtype.kind not in "buifc":
        raise TypeError(f"{OWNER} got {what} of type {values.dtype}; it must hold numbers")
    if not np.isfinite(values).all():
        raise ValueError(f"{OWNER} got {what} that contain NaN or Inf; all entries must be finite")
    whole = values.dtype.kind in "bui"
    return values.astype(np.result_type(values.dtype, float if whole else np.float32), copy=False)


def _end(stencils: Stencils, axis: int, step: int, kind: str) -> None:
    """Remove the entries that lead out of the grid at one end of an axis."""
    edge = (slice(None),) * axis + (slice(0, 1) if step < 0 else slice(-1, None),)
    for offset in [o for o in stencils if o[axis] == step]:
        if kind == "neumann":
            nearest = (*offset[:axis], 0, *offset[axis + 1 :])
            if nearest not in stencils:
                stencils[nearest] = np.zeros_like(stencils[offset])
            stencils[nearest][edge] += stencils[offset][edge]
        stencils[offset][edge] = 0.0


def diffusion_stencils(coefficients: Any, shape: tuple[int, ...], kinds: Kinds) -> Stencils:
    """Finite volumes for `-div(c grad u)` on the unit interval, square or cube.

    Each equation is the integral over the cell of a point, so `f` is the source times the volume of
    a cell. The coefficient on a face is the harmonic mean over the two adjacent points; at a
    Dirichlet end it is the coefficient of the last point. A Dirichlet end lies one mesh width
    beyond the last point, and a Neumann end half a mesh width beyond it: the mesh width is `1 / (n
    + 1)`, `1 / (n + 1/2)` or `1 / n` for two, one or no Dirichlet ends, and `1 / n` on periodic
    axes.

    Parameters
    ----------
    coefficients : number, array of shape `shape`, or sequence of one of these per axis
        Values of c at the points.
    shape : tuple of d int
        Shape of the grid.
    kinds : result of `boundary_kinds`
        Kinds of the two ends of each axis.

    Raises
    ------
    TypeError, ValueError
        If the coefficients have a wrong shape or type, or are not positive.

    Examples
    --------
    >>> kinds = boundary_kinds("dirichlet", 1)
    >>> diffusion_stencils(np.array([1.0, 1.0, 3.0]), (3,), kinds)[0,] / 4.0  # h = 1/4
    array([2. , 2.5, 4.5])
    """
    several = isinstance(coefficients, list | tuple)
    each = list(coefficients) if several else [coefficients] * len(shape)
    if len(each) != len(shape):
        raise ValueError(
            f"{OWNER} got {len(each)} coefficients on a grid of shape {shape}; give one number or "
            "NumPy array, or a sequence of them, one per axis"
        )
    widths = [
        1.0 / (n if "periodic" in ends else n + ends.count("dirichlet") / 2)
        for n, ends in zip(shape, kinds, strict=True)
    ]
    found: Stencils = {}
    for axis, (value, ends) in enumerate(zip(each, kinds, strict=True)):
        c = _positive(value, shape) * (math.prod(widths) / widths[axis] ** 2)
        for step, kind in zip((-1, 1), ends, strict=True):
            neighbor = np.roll(c, -step, axis)
            edge = (slice(None),) * axis + (slice(0, 1) if step < 0 else slice(-1, None),)
            if kind == "dirichlet":
                neighbor[edge] = c[edge]
            less = abs(c) < abs(neighbor)
            least = np.where(less, c, neighbor)
            face = least * (2.0 / (1.0 + least / np.where(less, neighbor, c)))  # cannot overflow
            if kind == "neumann":
                face[edge] = 0.0
            centre = found.get((0,) * len(shape))
            found[(0,) * len(shape)] = face.copy() if centre is None else centre + face
            if kind == "dirichlet":
                face[edge] = 0.0
            found[(0,) * axis + (step,) + (0,) * (len(shape) - axis - 1)] = -face
    return found


def _positive(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A coefficient at all points, after a check of its shape and sign."""
    c = array_of(value, "a coefficient")
    if c.shape not in ((), shape):
        raise ValueError(
            f"{OWNER} got a coefficient of shape {c.shape}; give a number, or an array of the "
            f"shape of the grid, {shape}"
        )
    if not (c.real > 0.0).all():
        raise ValueError(
            f"{OWNER} got a coefficient of {shown(c.real.min())}; diffusion needs positive ones "
            "(give a stencil for other equations)"
        )
    return np.array(np.broadcast_to(c, shape))


def stencil_matrix(
    stencils: Stencils, shape: tuple[int, ...], periodic: tuple[bool, ...]
) -> sp.csr_matrix:
    """Assemble the matrix of a stencil; zeros are stored on the diagonal only.

    Parameters
    ----------
    stencils : dict of arrays of shape `shape`
        Stencils of all points.
    shape, periodic : tuple
        Shape of the grid, and whether each axis is periodic.

    Examples
    --------
    >>> stencils = stencil_arrays([-1.0, 2.0, -1.0], (3,), (("dirichlet", "dirichlet"),))
    >>> stencil_matrix(stencils, (3,), (False,)).toarray()
    array([[ 2., -1.,  0.],
           [-1.,  2., -1.],
           [ 0., -1.,  2.]])
    """
    offsets = sorted(stencils)
    centre = offsets.index((0,) * len(shape))
    unknowns = math.prod(shape)
    # In this order the columns of a row increase, except at the ends of periodic axes.
    entries = sum(np.count_nonzero(stencils[offset]) for offset in offsets)
    entries += unknowns - np.count_nonzero(stencils[offsets[centre]])
    dtype = np.result_type(*(stencils[offset] for offset in offsets))
    index = np.int32 if max(entries, unknowns) < 2**31 else np.int64
    data, columns = np.empty(entries, dtype), np.empty(entries, index)
    counts = np.zeros(unknowns + 1, index)
    inner, done = unknowns // shape[0], 0
    thick = max(ROWS // inner, 1)
    for first in range(0, shape[0], thick):
        slab = slice(first, min(first + thick, shape[0]))
        values = np.stack([stencils[offset][slab] for offset in offsets], axis=-1)
        places = np.empty(values.shape, index)
        for k, offset in enumerate(offsets):
            places[..., k] = _neighbors(offset, shape, periodic, slab, index)
        chosen = values != 0.0
        chosen[..., centre] = True
        rows = slice(first * inner + 1, slab.stop * inner + 1)
        counts[rows] = chosen.reshape(-1, len(offsets)).sum(axis=1)
        part = slice(done, done + int(counts[rows].sum()))
        data[part], columns[part] = values[chosen], places[chosen]
        done = part.stop
    matrix = sp.csr_matrix((data, columns, counts.cumsum(dtype=index)), (unknowns, unknowns))
    if any(periodic):
        matrix.sum_duplicates()  # with one or two points on an axis, neighbors are the same point
    else:
        matrix.has_canonical_format = True
    return matrix


def _neighbors(
    offset: tuple[int, ...],
    shape: tuple[int, ...],
    periodic: tuple[bool, ...],
    slab: slice,
    index: Any,
) -> Any:
    """The indices of the points at `offset` from those of a slab."""
    numbers: Any = 0
    for axis, n in enumerate(shape):
        places = np.arange(n)[slab if axis == 0 else slice(None)] + offset[axis]
        places = places % n if periodic[axis] else places
        stride = math.prod(shape[axis + 1 :])
        numbers = numbers + (places * stride).astype(index).reshape(
            (-1,) + (1,) * (len(shape) - axis - 1)
        )
    return numbers
