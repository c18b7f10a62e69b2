"""The time steps of `odeint` distributed over MPI ranks: `steps_over_ranks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from petsc4py import PETSc

from mgnet.petsc.hooks import end_all_ranks_on_error
from mgnet.petsc.layer_layout import LayerLayout
from mgnet.petsc.ranks import Ranks
from mgnet.petsc.same_calls import check_same_calls
from mgnet.petsc.watch import watch_of

__all__ = ["RankedSteps", "steps_over_ranks"]


class RankedSteps:
    """The ranks that share the steps of a time grid; each has whole coarsest-level intervals.

    Parameters
    ----------
    comm : PETSc.Comm
        The communicator of the ranks.

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
        """The steps of this rank, and the other ranks."""
        layout = LayerLayout(steps, interval, self.comm.getSize())
        ranks = Ranks(self.comm, layout)
        return layout.of(ranks.place), ranks

    def check_same(self, tensors: Sequence[torch.Tensor]) -> None:
        """Raise a ValueError on all ranks unless these tensors are the same on all of them."""
        grad = torch.is_grad_enabled()
        check_same_calls(self.watch, "odeint", {"y0, t, func or gradients": [*tensors, grad]})


def steps_over_ranks(comm: PETSc.Comm | None = None) -> RankedSteps:
    """Make each MPI rank compute some of the time steps in `mgnet.depth.odeint(..., ranks=)`.

    All ranks must make the same call. Each gets the whole solution and, in a backward pass, the
    whole gradient, so an optimizer does the same on all ranks. An exception on any rank ends all.

    Parameters
    ----------
    comm : PETSc.Comm, optional
        The communicator; `PETSC_COMM_WORLD` by default.

    Returns
    -------
    RankedSteps
        The value for the argument `ranks` of `odeint`.

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
