"""A hint where `mpiexec` starts a script on several ranks, and each of them solves the whole."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from mgnet import vector

if TYPE_CHECKING:
    from mgnet.hierarchy import Hierarchy

__all__ = ["hint_of_repeated_solve", "launched_ranks"]

# What launchers tell the processes that they start: number of ranks, own rank.
LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI, Slurm with PMI-2
)
_hinted: list[int] = []  # the process


def launched_ranks() -> tuple[int, int]:
    """Number of ranks and own rank, as the launcher says; (1, 0) without one.

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
    """Warn, once and on rank 0, where all ranks of a job solve a linear system that is not spread.

    Vecs are not meant (petsc4py spreads them, unless told otherwise), nor are hierarchies with a
    norm of their own (those of `distribute_...`) and levels without a matrix.

    Parameters
    ----------
    hierarchy : Hierarchy
    u : state of level 0

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
        "because its matrix is not spread over them; give PETSc Mats over the ranks (guide, page "
        "PETSc: 'Your own matrices over ranks'), or leave mpiexec out",
        stacklevel=4,
    )
