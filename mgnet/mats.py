"""Matrices and vectors of PETSc, by their own methods: petsc4py is loaded where one comes in."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from mgnet.kinds import is_mat, is_vec

__all__ = [
    "free_dropped",
    "multiply_add",
    "random_entries",
    "refuse_layout",
    "refuse_spread",
    "transposed",
]

CHUNK = 2**20  # random numbers at once


def transposed(matrix: Any) -> Any:
    """The transpose of a Mat, as a Mat that multiplies with the one it is made of.

    Formed, a product with it is 1.6 times as fast (3-D interpolation, on one rank and on two), but
    to form it takes as long as some 50 products, and its memory.
    """
    return sys.modules["petsc4py.PETSc"].Mat().createTranspose(matrix)


def multiply_add(matrix: Any, x: Any, u: Any) -> Any:
    """`u + matrix x` as a new Vec, in one pass."""
    result = u.duplicate()
    matrix.multAdd(x, u, result)
    return result


def free_dropped(u: Any) -> None:
    """Free what Python has dropped of PETSc's objects, if `u` is a Vec; all its ranks call it.

    petsc4py puts them aside until then, so that no rank destroys what others still use: a solve
    that never asks keeps every vector of every sweep, and takes new memory for each.

    Examples
    --------
    >>> free_dropped(np.zeros(2))
    """
    if is_vec(u):
        sys.modules["petsc4py.PETSc"].garbage_cleanup(u.getComm())


def random_entries(u: Any, generator: np.random.Generator) -> np.ndarray:
    """This rank's part of standard normal numbers for a Vec, the same on any number of ranks.

    All ranks draw all of them, and keep their own.
    """
    (first, last), size = u.getOwnershipRange(), u.getSize()
    parts: list[np.ndarray] = [np.empty(0)]
    for begin in range(0, size, CHUNK):
        numbers = generator.standard_normal(min(CHUNK, size - begin))
        parts.append(numbers[max(first - begin, 0) : max(last - begin, 0)])
    return np.concatenate(parts)


def refuse_layout(matrix: Any, given: Any, got: str) -> None:
    """Raise where a Vec, or the rows of a Mat, are not spread over the ranks as columns of a Mat.

    PETSc's own error comes on those ranks alone that see a difference, and the others wait for
    them. Here all ranks compare all of both layouts, so all raise.

    Parameters
    ----------
    matrix, given : any
        Others than a Mat, and a Vec or Mat, are let through.
    got : str
        The beginning of the message.

    Examples
    --------
    >>> refuse_layout(np.eye(2), np.zeros(2), "Solver.solve got f")  # of one process
    """
    if not is_mat(matrix) or not (is_mat(given) or is_vec(given)):
        return
    own, wanted = given.getOwnershipRanges(), matrix.getOwnershipRangesColumn()
    if list(own) != list(wanted):
        counts = [np.diff(ranges).tolist() for ranges in (own, wanted)]
        raise ValueError(
            f"{got} with {counts[0]} rows on the ranks, but the matrix has {counts[1]} columns "
            "there; give both the same layout (createVecRight() of the matrix has it)"
        )


def refuse_spread(given: Any, owner: str = "") -> None:
    """Raise the sentence about a Mat or Vec over several ranks, for who needs all of it on one.

    Examples
    --------
    >>> refuse_spread(np.zeros(2))  # of one process
    """
    ranks = given.getComm().getSize() if is_mat(given) or is_vec(given) else 1
    if ranks > 1:
        raise TypeError(
            f"{owner}{' ' * bool(owner)}got a PETSc {type(given).__name__} that is spread over "
            f"{ranks} ranks, but needs all of it on one; over ranks Jacobi and Chebyshev smooth, "
            "and PETSc's own, as mgnet.petsc.KSPSmoother('relax_', {'ksp_type': 'richardson', "
            "'ksp_max_it': 1, 'pc_type': 'sor'}); on the coarsest level, KSPSmoother('coarse_', "
            "{'ksp_type': 'preonly', 'pc_type': 'redundant'}) solves"
        )
