"""The ranks that hold the layers before and after one's own: `Ranks`.

What the cycles of `LayerParallel` send: C-relaxation moves one point to the next rank, and numbers
that decide are gathered. The march over the coarsest level is handed from rank to rank: P - 1
messages in a row. On `FEWEST` ranks or more, a level of at most `SMALL` bytes for each is gathered:
its parameters once for each call, its right-hand side for each solution. Every rank then marches
over all of it, after log2(P) messages in a row. States go as bytes, in their own precision. Each
wait ends when another rank has left the script (`Watch`).
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

FEWEST = 4  # ranks for which a gathering has fewer messages in a row than a march in turn
SMALL = 2**14  # bytes that cross in the latency of a message (1.5 us, 9 GB/s between two cores)
TAG = 6151  # of our messages, beside those of a script


class Ranks:
    """The other ranks as one of them sees them: `Communicator`, by MPI.

    Parameters
    ----------
    comm : PETSc.Comm
        Of those that hold one network together.
    layout : LayerLayout
    batches : Ranks, optional
        Those with the same layers, of other networks like this one.

    Attributes
    ----------
    rank : int
        Of all, `batches` included, network after network.

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
        """The place in the coarsest level, if that is small; the same answer on all ranks."""
        ranks, layers = self.layout.occupied, self.layout.intervals
        if ranks < FEWEST or layer_bytes * layers > SMALL * ranks:
            return None
        return Gathered(self.layout.intervals_of(self.place).start, layers)

    def allgather(self, rows: Tensor) -> list[Tensor]:
        """The rows of each rank that has layers, on every rank."""
        more = len(rows) - len(self.layout.intervals_of(self.place))
        counts = [len(self.layout.intervals_of(rank)) + more for rank in range(self.layout.ranks)]
        return list(self._allgather(rows, counts).split(counts)[: self.layout.occupied])

    def _allgather(self, rows: Tensor, counts: list[int]) -> Tensor:
        """The rows of all ranks, so many of each, on every rank."""
        whole = rows.new_empty((sum(counts), *rows.shape[1:]))
        if not whole.nbytes:
            return whole
        row = math.prod(rows.shape[1:]) * rows.itemsize
        buffer = np.empty(whole.nbytes, np.uint8)
        kind = MPI.BYTE.Create_contiguous(row).Commit()  # counts of bytes would end at 2 GiB
        self.watch.arrive()
        self.comm.Allgatherv([_bytes(rows), len(rows), kind], [buffer, counts, kind])
        kind.Free()
        return _from_bytes(buffer, whole)

    def upstream(self, reverse: bool) -> int | None:
        """The rank from which points come."""
        return self.layout.neighbour(self.place, 1 if reverse else -1)

    def is_first(self, reverse: bool) -> bool:
        """Whether this is the first rank (the last that has layers, in reverse)."""
        return self.place == self._first(reverse)

    def receive(self, start: Tensor, reverse: bool) -> Tensor:
        """The point that the rank upstream sends; `start` where there is none."""
        source = self.upstream(reverse)
        if source is None:
            self.watch.wait()
            return start
        buffer = np.empty(start.nbytes, np.uint8)
        self.watch.wait(self.comm.Irecv(buffer, source, TAG), ahead=1)  # `send` comes next
        return _from_bytes(buffer, start)

    def send(self, point: Tensor, reverse: bool) -> None:
        """Give a point to the rank downstream, if there is one."""
        target = self.upstream(not reverse)
        sent = [] if target is None else [self.comm.Isend(_bytes(point), target, TAG)]
        self.watch.wait(*sent)

    def shift(self, points: Tensor, reverse: bool) -> Tensor:
        """The points with the last one of the rank upstream in front."""
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
        """The point of the last rank that has layers (of the first one, in reverse)."""
        if self.layout.ranks == 1:
            return point
        end = self._first(not reverse)
        buffer = _bytes(point) if self.place == end else np.empty(point.nbytes, np.uint8)
        self.watch.arrive()
        self.comm.Bcast(buffer, end)
        return point if self.place == end else _from_bytes(buffer, point)

    def gather(self, values: Tensor) -> Tensor:
        """The values of all ranks on every rank, side by side."""
        parts = self.watch.allgather(values.cpu().numpy())
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0."""
        self.watch.arrive()
        return self.comm.bcast(value)

    def gather_layers(self, part: Tensor) -> Tensor | None:
        """The rows (one for each layer) of all ranks, on rank 0; None elsewhere."""
        self.watch.arrive()
        parts = self.comm.gather(_bytes(part))
        if parts is None:
            return None
        return _from_bytes(
            np.concatenate(parts), part.new_empty((self.layout.layers, *part.shape[1:]))
        )

    def scatter_layers(self, whole: Tensor | None) -> Tensor:
        """The rows of this rank, from the tensor that rank 0 gives."""
        parts = None
        if whole is not None:
            held = [self.layout.of(rank) for rank in range(self.layout.ranks)]
            parts = [whole[each.start : each.stop].clone() for each in held]
        self.watch.arrive()
        return self.comm.scatter(parts)

    def allgather_layers(self, part: Tensor) -> Tensor:
        """The rows (one for each layer) of all ranks, on every rank."""
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
    """The entries as bytes, on the host."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def _from_bytes(buffer: np.ndarray, like: Tensor) -> Tensor:
    """The tensor that became these bytes, of the shape and kind of `like`; shares their memory."""
    return torch.from_numpy(buffer).view(like.dtype).reshape(like.shape).to(like.device)
