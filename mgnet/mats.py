"""PETSc matrices and vectors, used through their methods; petsc4py is loaded by the caller."""

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

CHUNK = 2**20  # random numbers drawn at once
SPREAD = (
    "over ranks use Jacobi, Chebyshev or a smoother of PETSc, such as mgnet.petsc.KSPSmoother("
    "'relax_', {'ksp_type': 'richardson', 'ksp_max_it': 1, 'pc_type': 'sor'}), and on the coarsest "
    "level KSPSmoother('coarse_', {'ksp_type': 'preonly', 'pc_type': 'redundant'})"
)
WHOLE = (
    "over ranks use Hierarchy.galerkin(A, [P, ...]), or without prolongations PETSc's algebraic "
    "multigrid, Hierarchy([Level(A, mgnet.petsc.KSPSmoother('amg_', {'ksp_type': 'preonly', "
    "'pc_type': 'gamg'}))]) with acceleration=CG() or GMRES()"
)


def transposed(matrix: Any) -> Any:
    """The transpose of a Mat, as a Mat that multiplies with the original one.

    A product with an explicit transpose is 1.6 times as fast (3-D interpolation, on one rank and on
    two), but building it takes the time of about 50 products, and it needs memory of its own.
    """
    return sys.modules["petsc4py.PETSc"].Mat().createTranspose(matrix)


def multiply_add(matrix: Any, x: Any, u: Any) -> Any:
    """Return `u + matrix x` as a new Vec, in one pass."""
    result = u.duplicate()
    matrix.multAdd(x, u, result)
    return result


def free_dropped(u: Any) -> None:
    """Free the PETSc objects that Python has dropped, if `u` is a Vec; all ranks must call it.

    petsc4py keeps dropped objects until such a call, so that no rank destroys objects that other
    ranks still use. Without these calls a solve keeps every vector of every sweep and allocates new
    memory for each.

    Examples
    --------
    >>> free_dropped(np.zeros(2))
    """
    if is_vec(u):
        sys.modules["petsc4py.PETSc"].garbage_cleanup(u.getComm())


def random_entries(u: Any, generator: np.random.Generator) -> np.ndarray:
    """This rank's part of normal random numbers for a Vec, the same on any number of ranks.

    All ranks draw all numbers and keep their own part.
    """
    (first, last), size = u.getOwnershipRange(), u.getSize()
    parts: list[np.ndarray] = [np.empty(0)]
    for begin in range(0, size, CHUNK):
        numbers = generator.standard_normal(min(CHUNK, size - begin))
        parts.append(numbers[max(first - begin, 0) : max(last - begin, 0)])
    return np.concatenate(parts)


def refuse_layout(matrix: Any, given: Any, got: str) -> None:
    """Raise an error if the layout of a Vec or of a Mat's rows differs from a Mat's columns.

    PETSc's own error occurs only on the ranks that see a difference, while the others wait for
    them. Here all ranks compare the complete layouts, so all of them raise the error.

    Parameters
    ----------
    matrix, given : any
        Mat, and Vec or Mat to compare with it; other objects are accepted without a check.
    got : str
        The beginning of the message.

    Raises
    ------
    ValueError
        If the layouts differ.

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
    """Raise an error for a Mat or Vec over several ranks, where one rank needs all of it.

    Raises
    ------
    TypeError
        If the object is distributed over several ranks.

    Examples
    --------
    >>> refuse_spread(np.zeros(2))  # of one process
    """
    ranks = given.getComm().getSize() if is_mat(given) or is_vec(given) else 1
    if ranks > 1:
        raise TypeError(
            f"{owner}{' ' * bool(owner)}got a PETSc {type(given).__name__} that is spread over "
            f"{ranks} ranks, but needs all of it on one; "
            f"{WHOLE if owner == 'mgnet.solve' else SPREAD}"
        )
