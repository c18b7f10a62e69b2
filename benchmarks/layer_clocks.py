"""What benchmarks/layer_ranks.py counts on its critical path: evaluations and waiting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mpi4py import MPI
from rank_turns import WORLD
from torch import Tensor

from mgnet.depth import LayerEquation, LayerParallel


class Clocked:
    """`Ranks` whose messages carry how far the sender has come, in evaluations of layers."""

    def __init__(self, parallel: LayerParallel):
        self.ranks: Any = parallel.communicator
        self.kernel = parallel.net.kernel
        self.comm = WORLD.Dup()
        self.ahead = 0  # of the own work: what was waited for
        self.rank, self.is_first, self.broadcast = (
            self.ranks.rank,
            self.ranks.is_first,
            self.ranks.broadcast,
        )
        self.gathered = self.ranks.gathered

    def now(self) -> int:
        return self.ahead + self.kernel.evaluations + 2 * self.kernel.vjps

    def wait_for(self, others: Iterable[int]) -> None:
        self.ahead += max(0, *others, self.now()) - self.now()

    def receive(self, start: Tensor, reverse: bool) -> Tensor:
        point, source = self.ranks.receive(start, reverse), self.ranks.upstream(reverse)
        self.wait_for([] if source is None else [self.comm.recv(source=source)])
        return point

    def send(self, point: Tensor, reverse: bool) -> None:
        self.ranks.send(point, reverse)
        target = self.ranks.upstream(not reverse)
        if target is not None:
            self.comm.send(self.now(), target)

    def shift(self, points: Tensor, reverse: bool) -> Tensor:
        clocks, source = self.comm.allgather(self.now()), self.ranks.upstream(reverse)
        self.wait_for([] if source is None else [clocks[source]])
        return self.ranks.shift(points, reverse)

    def broadcast_from_last(self, point: Tensor, reverse: bool) -> Tensor:
        self.wait_for([self.comm.bcast(self.now(), 0 if reverse else WORLD.size - 1)])
        return self.ranks.broadcast_from_last(point, reverse)

    def gather(self, values: Tensor) -> Tensor:
        self.wait_for(self.comm.allgather(self.now()))
        return self.ranks.gather(values)

    def allgather(self, rows: Tensor) -> list[Tensor]:
        self.wait_for(self.comm.allgather(self.now()))
        return self.ranks.allgather(rows)


class Marches:
    """What is evaluated layer after layer while it is on, from rank to rank or by all of them."""

    def __init__(self, kernel: Any):
        self.kernel = kernel
        self.evaluations = self.vjps = 0
        self.everywhere = False

    def __enter__(self) -> Marches:
        self.march = march = LayerEquation.march

        def counted(equation: LayerEquation, f: Any) -> Any:
            if equation.gathered:  # it marches by another equation, which is counted
                self.everywhere = True
                return march(equation, f)
            before = self.kernel.evaluations, self.kernel.vjps
            u = march(equation, f)
            if equation.reverse:  # evaluations there belong to no march
                self.vjps += self.kernel.vjps - before[1]
            else:
                self.evaluations += self.kernel.evaluations - before[0]
            return u

        LayerEquation.march = counted  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        LayerEquation.march = self.march  # type: ignore[method-assign]

    def in_step(self, all_of_it: int, marched: int) -> int:
        """The most of any rank, and the marches: of all, one after another, unless all march."""
        row = WORLD.allreduce(marched, MPI.MAX if self.everywhere else MPI.SUM)
        return WORLD.allreduce(all_of_it - marched, MPI.MAX) + row
