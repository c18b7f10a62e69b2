"""The matrices of multigrid on a structured grid, from its finest level."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet.grid_coarsening import coarse_axes, galerkin
from mgnet.grid_interpolation import interpolation, linear_weights, operator_weights
from mgnet.grid_stencils import (
    OWNER,
    array_of,
    boundary_kinds,
    diffusion_stencils,
    grid_shape,
    stencil_arrays,
    stencil_matrix,
)
from mgnet.kinds import is_mat
from mgnet.limits import is_one_of, is_whole, shown
from mgnet.matrix_stencils import stencils_of_matrix

__all__ = ["GridLevels", "grid_levels"]

Stencils = dict[tuple[int, ...], np.ndarray]

COARSEST = 300  # bound on the unknowns of the coarsest level, where possible: cheap to factorize


@dataclass
class GridLevels:
    """Matrices of all levels, finest first, and of the transfers between them.

    Parameters
    ----------
    matrices, prolongations : list of csr_matrix
        Operators of the levels, and interpolation from each level to the next finer one.
    shapes : list of tuple of int
        Grid shape of each level.
    restrictions : list of csr_matrix or None
        Conjugate transposes of the prolongations if the matrix is complex and Hermitian; None if
        the restrictions are the plain transposes.
    singular : bool
        Whether constants span the null space of the matrix and of its transpose: all rows and all
        columns sum to zero.

    Examples
    --------
    >>> GridLevels().singular
    False
    """

    matrices: list[Any] = field(default_factory=list)
    prolongations: list[Any] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    restrictions: list[Any] | None = None
    singular: bool = False


def grid_levels(
    shape: Any,
    stencil: Any,
    coefficients: Any,
    boundary: Any,
    coarsen: Any,
    levels: int | None,
    interpolation_kind: str,
) -> GridLevels:
    """Build the parts of `Hierarchy.geometric`, which describes the arguments.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit the grid.

    Examples
    --------
    >>> grid_levels((40, 30), None, 1.0, "dirichlet", None, None, "auto").shapes
    [(40, 30), (20, 15)]
    """
    grid = grid_shape(shape)
    kinds = boundary_kinds(boundary, len(grid))
    halved = _checked_axes(coarsen, len(grid))
    if levels is not None and not is_whole(levels, 1):
        raise ValueError(f"{OWNER} got levels {shown(levels)}; give a positive integer")
    if not is_one_of(interpolation_kind, ("auto", "linear", "operator")):
        raise ValueError(
            f"{OWNER} got interpolation {shown(interpolation_kind)}; it must be 'auto', 'linear' "
            "or 'operator'"
        )
    stencils, matrix, plain = _finest(grid, stencil, coefficients, kinds)
    linear = interpolation_kind == "linear" or (interpolation_kind == "auto" and plain)
    periodic = tuple("periodic" in ends for ends in kinds)
    if matrix is None:
        matrix = stencil_matrix(stencils, grid, periodic)
    real = matrix.dtype.type(0).real.dtype
    found = GridLevels([matrix], [], [grid])
    found.singular = _sums_to_zero(matrix) and _sums_to_zero(matrix.T)
    hermitian = matrix.dtype.kind == "c" and _is_hermitian(matrix)
    _check_size(found.matrices)
    while len(found.matrices) < (levels or math.inf):
        grid = found.shapes[-1]
        if levels is None and math.prod(grid) <= COARSEST:
            break
        axes = coarse_axes(stencils, grid, kinds, halved)
        if not any(axis.halved for axis in axes):
            break
        weights = linear_weights(axes, real) if linear else operator_weights(stencils, axes)
        found.prolongations.append(interpolation(weights, axes))
        down = weights
        if hermitian:
            down = {k: {at: w.conj() for at, w in each.items()} for k, each in weights.items()}
        stencils = galerkin(stencils, axes, weights, down)
        found.shapes.append(tuple(axis.coarse for axis in axes))
        found.matrices.append(stencil_matrix(stencils, found.shapes[-1], periodic))
        _check_size(found.matrices)
    if hermitian:
        found.restrictions = [P.conj().T.tocsr() for P in found.prolongations]
    if levels is not None and len(found.matrices) < levels:
        raise ValueError(
            f"{OWNER} got levels {shown(levels)}; a grid of shape {found.shapes[0]} has at most "
            f"{len(found.matrices)} with this coarsening"
        )
    return found


def _check_size(matrices: list[Any]) -> None:
    """Refuse entries that overflow, or that may overflow when a row is summed."""
    largest = abs(matrices[-1].data).max(initial=0.0)
    limit = float(np.finfo(matrices[-1].dtype).max) / 3**7
    if not largest <= limit:  # NaN, too
        raise ValueError(
            f"{OWNER} got entries of {largest:.1e} on level {len(matrices) - 1}, too large for "
            f"{matrices[-1].dtype}; scale the equations"
        )


def _is_hermitian(matrix: Any) -> bool:
    off = abs(matrix - matrix.conj().T)
    return bool(off.max() <= 8 * np.finfo(matrix.dtype).eps * abs(matrix).max())


def _checked_axes(coarsen: Any, axes: int) -> tuple[int, ...] | None:
    """The axes that may be halved; None if the couplings decide."""
    if coarsen is None:
        return None
    given = (coarsen,) if is_whole(coarsen) else coarsen
    if not isinstance(given, list | tuple) or not all(is_whole(k, 0, axes - 1) for k in given):
        raise ValueError(
            f"{OWNER} got coarsen {shown(coarsen)}; give an axis from 0 to {axes - 1}, or a tuple "
            "of them"
        )
    return tuple(given)


def _finest(
    grid: tuple[int, ...], stencil: Any, coefficients: Any, kinds: Any
) -> tuple[Stencils, Any, bool]:
    """The stencils, the user's own matrix if given, and whether linear weights are suitable.

    They are suitable if a symmetric stencil is constant and couples points along the axes only.
    """
    if (stencil is None) == (coefficients is None):
        wrong = "neither a stencil nor" if stencil is None else "both a stencil and"
        raise TypeError(f"{OWNER} got {wrong} coefficients; give exactly one of them")
    if stencil is None:
        each = coefficients if isinstance(coefficients, list | tuple) else [coefficients]
        constant = all(np.ndim(c) == 0 for c in each)
        return diffusion_stencils(coefficients, grid, kinds), None, constant
    if is_mat(stencil):
        raise TypeError(
            f"{OWNER} got a PETSc Mat; give a SciPy matrix, or use Hierarchy.galerkin, which has "
            "Mats over ranks"
        )
    if not sp.issparse(stencil):
        stencils = stencil_arrays(stencil, grid, kinds)
        return stencils, None, np.ndim(stencil) == len(grid) and _along_axes(np.asarray(stencil))
    matrix = stencil if stencil.format == "csr" else stencil.tocsr()
    data = array_of(matrix.data, "a matrix")
    if data.dtype != matrix.dtype:
        matrix = matrix.astype(data.dtype)
    periodic = tuple("periodic" in ends for ends in kinds)
    return stencils_of_matrix(matrix, grid, periodic), matrix, False


def _along_axes(stencil: np.ndarray) -> bool:
    """Whether a stencil is symmetric and couples points along the axes only."""
    steps = abs(np.indices(stencil.shape) - 1).sum(axis=0)
    return bool((stencil == np.flip(stencil)).all() and not stencil[steps > 1].any())


def _sums_to_zero(matrix: Any) -> bool:
    """Whether all rows sum to zero up to rounding."""
    ones = np.ones(matrix.shape[1], matrix.dtype)
    precision = float(np.finfo(matrix.dtype).eps)
    return bool((abs(matrix @ ones) <= 100.0 * precision * (abs(matrix) @ ones.real)).all())
