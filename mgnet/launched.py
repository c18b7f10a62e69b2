"""A warning for scripts started by `mpiexec` whose ranks all solve the same problem."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from mgnet import vector

if TYPE_CHECKING:
    from mgnet.hierarchy import Hierarchy

__all__ = ["hint_of_repeated_solve", "launched_ranks"]

# Environment variables that launchers set: number of ranks, own rank.
LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI, Slurm with PMI-2
)
_hinted: list[int] = []  # process IDs


def launched_ranks() -> tuple[int, int]:
    """Number of ranks and this process's rank, from its environment; (1, 0) without a launcher.

    Examples
    --------
    >>> launched_ranks()
    (1, 0)
    """
    for count, own in LAUNCHERS:
        if os.environ.get(count, "").isdigit():
            rank = os.environ.get(own, "")
            return int(os.environ[count]), int(rank) if rank.isdigit() else 0
    return 1, 0


def hint_of_repeated_solve(hierarchy: Hierarchy, u: Any) -> None:
    """Warn, once and on rank 0, if all ranks of a job solve the same undistributed linear system.

    Vecs are exempt (petsc4py distributes them by default), as are hierarchies with a norm of their
    own (those of `distribute_...`) and levels without a matrix.

    Parameters
    ----------
    hierarchy : Hierarchy
        Hierarchy of the solve.
    u : state of level 0
        Initial state or right-hand side.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import gallery
    >>> hint_of_repeated_solve(gallery.poisson(3), np.zeros(3))  # one process: nothing to say
    """
    ranks, rank = launched_ranks()
    if ranks == 1 or rank or os.getpid() in _hinted:
        return
    if vector.is_vec(u) or hierarchy[0].matrix is None or hierarchy.norm is not vector.norm:
        return
    _hinted.append(os.getpid())
    warnings.warn(
        f"mpiexec runs this script on {ranks} ranks, and each of them solves the whole system, "
        "because its matrix is not distributed over them; give PETSc Mats over the ranks (guide, "
        "page PETSc: 'Your own matrices over ranks'), or start the script without mpiexec",
        stacklevel=4,
    )
