"""The ranks that hold the layers before and after those of this rank: `Ranks`.

This file contains the communication of the cycles of `LayerParallel`. C-relaxation sends one point
to the next rank, and the numbers on which decisions depend are gathered. The march over the
coarsest level is passed from rank to rank: P - 1 messages in sequence. On `FEWEST` ranks or more, a
level of at most `SMALL` bytes per rank is gathered: its parameters once per call, and its
right-hand side once per solve. Every rank then marches over the whole level, after log2(P) messages
in sequence. States are sent as bytes, in their own precision. Each wait ends when another rank has
left the script (`Watch`).
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
import torch
from mpi4py import MPI
from petsc4py import PETSc
from torch import Tensor

from mgnet.depth.mgrit.communicator import Gathered
from mgnet.petsc.layer_layout import LayerLayout
from mgnet.petsc.watch import watch_of

__all__ = ["Ranks"]

FEWEST = 4  # number of ranks from which gathering needs fewer messages in sequence than a march
SMALL = 2**14  # bytes sent within the latency of a message (1.5 us, 9 GB/s between two cores)
TAG = 6151  # of mgnet's messages, distinct from those of a script


class Ranks:
    """The other ranks as seen by one of them; implements `Communicator` with MPI.

    Parameters
    ----------
    comm : PETSc.Comm
        The communicator of the ranks that together hold one network.
    layout : LayerLayout
        The distribution of the layers.
    batches : Ranks, optional
        The ranks that hold the same layers of other copies of the network.

    Attributes
    ----------
    rank : int
        Number of this rank among all ranks, including those of the other copies of the network;
        ranks are numbered copy by copy.

    Examples
    --------
    >>> ranks = Ranks(PETSc.COMM_SELF, LayerLayout(layers=4, interval=2, ranks=1))
    >>> ranks.is_first(reverse=True), ranks.broadcast(3)
    (True, 3)
    """

    def __init__(self, comm: PETSc.Comm, layout: LayerLayout, batches: Ranks | None = None):
        self.comm = comm.tompi4py()
        self.layout, self.ranks = layout, layout.ranks
        self.batches: Any = batches
        self.place = self.comm.Get_rank()
        self.rank = self.place + (0 if batches is None else batches.place * layout.ranks)
        self.watch = watch_of(self.comm)

    def gathered(self, layer_bytes: int) -> Gathered | None:
        """This rank's place in the coarsest level if that level is gathered, else None."""
        ranks, layers = self.layout.occupied, self.layout.intervals
        if ranks < FEWEST or layer_bytes * layers > SMALL * ranks:
            return None
        return Gathered(self.layout.intervals_of(self.place).start, layers)

    def allgather(self, rows: Tensor) -> list[Tensor]:
        """The rows of each rank that has layers; every rank gets all of them."""
        more = len(rows) - len(self.layout.intervals_of(self.place))
        counts = [len(self.layout.intervals_of(rank)) + more for rank in range(self.layout.ranks)]
        return list(self._allgather(rows, counts).split(counts)[: self.layout.occupied])

    def _allgather(self, rows: Tensor, counts: list[int]) -> Tensor:
        """The rows of all ranks, `counts` of them per rank; every rank gets all of them."""
        whole = rows.new_empty((sum(counts), *rows.shape[1:]))
        if not whole.nbytes:
            return whole
        row = math.prod(rows.shape[1:]) * rows.itemsize
        buffer = np.empty(whole.nbytes, np.uint8)
        kind = MPI.BYTE.Create_contiguous(row).Commit()  # counts of bytes are limited to 2 GiB
        self.watch.arrive()
        self.comm.Allgatherv([_bytes(rows), len(rows), kind], [buffer, counts, kind])
        kind.Free()
        return _from_bytes(buffer, whole)

    def upstream(self, reverse: bool) -> int | None:
        """The rank that sends points to this one."""
        return self.layout.neighbour(self.place, 1 if reverse else -1)

    def is_first(self, reverse: bool) -> bool:
        """Whether this is the first rank (in reverse, the last rank that has layers)."""
        return self.place == self._first(reverse)

    def receive(self, start: Tensor, reverse: bool) -> Tensor:
        """Receive the point that the rank upstream sends; return `start` if there is none."""
        source = self.upstream(reverse)
        if source is None:
            self.watch.wait()
            return start
        buffer = np.empty(start.nbytes, np.uint8)
        self.watch.wait(self.comm.Irecv(buffer, source, TAG), ahead=1)  # followed by `send`
        return _from_bytes(buffer, start)

    def send(self, point: Tensor, reverse: bool) -> None:
        """Send a point to the rank downstream, if there is one."""
        target = self.upstream(not reverse)
        sent = [] if target is None else [self.comm.Isend(_bytes(point), target, TAG)]
        self.watch.wait(*sent)

    def shift(self, points: Tensor, reverse: bool) -> Tensor:
        """The points, preceded by the last point of the rank upstream."""
        if self.layout.occupied < 2:
            return points
        own = points[0] if reverse else points[-1]
        source, target = self.upstream(reverse), self.upstream(not reverse)
        halo, requests = np.empty(own.nbytes, np.uint8), []
        if source is not None:
            requests.append(self.comm.Irecv(halo, source, TAG))
        if target is not None:
            requests.append(self.comm.Isend(_bytes(own), target, TAG))
        self.watch.wait(*requests)
        if source is None:
            return points
        arrived = _from_bytes(halo, own)[None]
        return torch.cat([points[:-1], arrived] if reverse else [arrived, points[1:]])

    def broadcast_from_last(self, point: Tensor, reverse: bool) -> Tensor:
        """The point of the last rank that has layers (in reverse, of the first one)."""
        if self.layout.ranks == 1:
            return point
        end = self._first(not reverse)
        buffer = _bytes(point) if self.place == end else np.empty(point.nbytes, np.uint8)
        self.watch.arrive()
        self.comm.Bcast(buffer, end)
        return point if self.place == end else _from_bytes(buffer, point)

    def gather(self, values: Tensor) -> Tensor:
        """The values of all ranks, side by side, on every rank."""
        parts = self.watch.allgather(values.cpu().numpy())
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on every rank."""
        self.watch.arrive()
        return self.comm.bcast(value)

    def gather_layers(self, part: Tensor) -> Tensor | None:
        """The rows (one per layer) of all ranks, on rank 0; None on the other ranks."""
        self.watch.arrive()
        parts = self.comm.gather(_bytes(part))
        if parts is None:
            return None
        return _from_bytes(
            np.concatenate(parts), part.new_empty((self.layout.layers, *part.shape[1:]))
        )

    def scatter_layers(self, whole: Tensor | None) -> Tensor:
        """The rows of this rank, taken from the tensor that rank 0 passes."""
        parts = None
        if whole is not None:
            held = [self.layout.of(rank) for rank in range(self.layout.ranks)]
            parts = [whole[each.start : each.stop].clone() for each in held]
        self.watch.arrive()
        return self.comm.scatter(parts)

    def allgather_layers(self, part: Tensor) -> Tensor:
        """The rows (one per layer) of all ranks, on every rank."""
        counts = [len(self.layout.of(rank)) for rank in range(self.layout.ranks)]
        return part if self.layout.ranks == 1 else self._allgather(part, counts)

    def _first(self, reverse: bool) -> int:
        return self.layout.occupied - 1 if reverse else 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "Ranks cannot be pickled; save mgnet.petsc.gather_state(parallel), the state of the "
            "whole network, from rank 0"
        )


def _bytes(tensor: Tensor) -> np.ndarray:
    """The entries of a tensor as bytes, on the host."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def _from_bytes(buffer: np.ndarray, like: Tensor) -> Tensor:
    """A tensor from these bytes, with the shape and type of `like`; shares their memory."""
    return torch.from_numpy(buffer).view(like.dtype).reshape(like.shape).to(like.device)
