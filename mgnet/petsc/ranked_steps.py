"""The time steps of `odeint` over MPI ranks: `steps_over_ranks`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from petsc4py import PETSc

from mgnet.petsc.hooks import end_all_ranks_on_error
from mgnet.petsc.layer_layout import LayerLayout
from mgnet.petsc.ranks import Ranks
from mgnet.petsc.watch import watch_of

__all__ = ["RankedSteps", "steps_over_ranks"]


class RankedSteps:
    """The ranks that share out the steps of a time grid, whole coarsest intervals each.

    Parameters
    ----------
    comm : PETSc.Comm

    Examples
    --------
    >>> own, ranks = RankedSteps(PETSc.COMM_SELF).place(10, 4)
    >>> own, ranks.ranks
    (range(0, 10), 1)
    """

    def __init__(self, comm: PETSc.Comm):
        self.comm = comm
        self.watch = watch_of(comm.tompi4py())

    def place(self, steps: int, interval: int) -> tuple[range, Ranks]:
        """The own steps, and the other ranks."""
        layout = LayerLayout(steps, interval, self.comm.getSize())
        ranks = Ranks(self.comm, layout)
        return layout.of(ranks.place), ranks

    def check_same(self, tensors: Sequence[torch.Tensor]) -> None:
        """Raise a ValueError on all ranks unless they all have these tensors."""
        if self.comm.getSize() == 1:
            return
        told = self.watch.allgather(_digest(tensors))
        other = [rank for rank, each in enumerate(told) if each != told[0]]
        if other:
            raise ValueError(
                f"odeint got another y0, t, func or grid on rank {other[0]} than on rank 0; all "
                "ranks must make the same call, so draw weights and data with one seed"
            )


def steps_over_ranks(comm: PETSc.Comm | None = None) -> RankedSteps:
    """For `mgnet.depth.odeint(..., ranks=)`: each MPI rank takes some of the time steps.

    All ranks make the same call and get the whole solution, and the whole gradient in a backward
    pass; so an optimizer does the same on all of them. An exception on any rank ends all.

    Parameters
    ----------
    comm : PETSc.Comm, optional
        `PETSC_COMM_WORLD` by default.

    Returns
    -------
    RankedSteps

    Examples
    --------
    >>> from mgnet.depth import odeint
    >>> t = torch.linspace(0.0, 1.0, 33)
    >>> y = odeint(lambda t, y: -y, torch.ones(1), t, mode="mgrit", ranks=steps_over_ranks())
    >>> torch.allclose(y[:, 0], torch.exp(-t))
    True
    """
    world: Any = comm or PETSc.COMM_WORLD
    if world.getSize() > 1:
        end_all_ranks_on_error(world)
    return RankedSteps(world)


def _digest(tensors: Sequence[Any]) -> str:
    found = hashlib.blake2b()
    for x in tensors:
        if isinstance(x, torch.Tensor):
            x = x.detach().cpu().contiguous()
            found.update(f"{tuple(x.shape)} {x.dtype}".encode())
            found.update(x.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
