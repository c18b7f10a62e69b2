"""The ranks that share the time steps of a recurrent network: `TimeRanks`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, NoReturn

from petsc4py import PETSc

from mgnet.depth.recurrent.time_share import TimeShare, intervals_together
from mgnet.petsc.layer_layout import LayerLayout
from mgnet.petsc.ranks import Ranks
from mgnet.petsc.same_calls import check_same_calls
from mgnet.petsc.watch import watch_of

__all__ = ["TimeRanks"]

_numbers = count(1)


class TimeRanks:
    """The steps of this rank, for sequences of any length; an implementation of `Shares`.

    Parameters
    ----------
    comm : PETSc.Comm
        The communicator of the ranks.
    pieces : int
        Largest number of pieces of a sequence; each rank has whole pieces, and the last ranks have
        none if there are too few.

    Examples
    --------
    >>> share = TimeRanks(PETSc.COMM_SELF, pieces=4)(100, interval=10)
    >>> share.pieces
    [range(0, 30), range(30, 60), range(60, 90), range(90, 100)]
    """

    def __init__(self, comm: PETSc.Comm, pieces: int):
        self.comm, self.pieces = comm, pieces
        self.watch = watch_of(comm.tompi4py())
        self.number = next(_numbers)  # the same on all ranks, which create it together

    def check_same(self, direction: str, told: Mapping[str, Any]) -> None:
        """Raise a ValueError on all ranks unless they all make this call; see `Shares`."""
        owner = f"TimeParallel, {direction} pass of module {self.number}"
        check_same_calls(self.watch, owner, told)

    def __call__(self, steps: int, interval: int) -> TimeShare:
        ranks = self.communicator(steps, interval)
        piece = interval * ranks.layout.together
        return TimeShare(ranks.layout.of(ranks.place), piece, ranks)

    def communicator(self, steps: int, interval: int) -> Ranks:
        """The communicator for this number of steps, with whole pieces on each rank."""
        together = intervals_together(steps, interval, self.pieces)
        return Ranks(self.comm, LayerLayout(steps, interval, self.comm.getSize(), together))

    def __deepcopy__(self, memo: dict[int, Any]) -> TimeRanks:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "TimeRanks cannot be pickled; save parallel.state_dict(), which every rank has, from "
            "rank 0"
        )
