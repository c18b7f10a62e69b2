"""Samples in fixed blocks over MPI ranks, and what is added up over them: `SampleBlocks`.

Rounding depends on the order of a sum. So samples are cut into 64 blocks, whatever the ranks, and
the blocks are joined in pairs, the pairs in pairs: a fixed tree. A rank joins what lies wholly in
its own blocks and the few numbers of nodes that are left go to all ranks, which join these alike.
So results have the same bits on any number of ranks, and two ranks send one sum each, not 32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from petsc4py import PETSc
from torch import Tensor

from mgnet.petsc.watch import watch_of

__all__ = ["SampleBlocks", "aligned"]

BLOCKS = 64
Join = Callable[[Tensor, Tensor], Tensor]
Node = tuple[int, int, Any]  # height in the tree, number at that height, value


def aligned(values: Tensor) -> Tensor:
    """A copy: begins at a multiple of 64 bytes, which the bits of sums in a BLAS may depend on.

    Examples
    --------
    >>> aligned(torch.arange(3)[1:]).tolist()
    [1, 2]
    """
    return values.clone(memory_format=torch.contiguous_format)


class SampleBlocks:
    """Which samples lie on which rank, and sums over all of them.

    Parameters
    ----------
    samples : int
        Of all ranks together.
    comm : PETSc.Comm, optional
        `PETSc.COMM_WORLD` by default.

    Examples
    --------
    >>> blocks = SampleBlocks(1000, PETSc.COMM_SELF)
    >>> len(blocks.own), blocks.own[0], blocks.own[-1]
    (64, slice(0, 15, None), slice(984, 1000, None))
    >>> x = torch.ones(1000)
    >>> blocks.total(x[rows].sum() for rows in blocks.own)
    tensor(1000.)
    """

    def __init__(self, samples: int, comm: Any = None):
        if samples < 1:
            raise ValueError(f"SampleBlocks got {samples} samples; it needs at least 1")
        self.samples = samples
        self.comm = PETSc.COMM_WORLD if comm is None else comm

    @property
    def count(self) -> int:
        """Blocks on all ranks."""
        return min(BLOCKS, self.samples)

    @property
    def numbers(self) -> range:
        """The blocks of this rank, none where ranks are more than blocks."""
        rank, ranks = self.comm.getRank(), self.comm.getSize()
        return range(self.count * rank // ranks, self.count * (rank + 1) // ranks)

    @property
    def own(self) -> list[slice]:
        """The samples of each block of this rank."""
        return [self._samples_of(number) for number in self.numbers]

    @property
    def first(self) -> slice:
        """The samples of the first block of all, which every rank may read to check something."""
        return self._samples_of(0)

    def _samples_of(self, number: int) -> slice:
        ends = (self.samples * end // self.count for end in (number, number + 1))
        return slice(*ends)

    def total(self, values: Iterable[Tensor]) -> Tensor:
        """The sum over the blocks of all ranks, on every rank.

        Parameters
        ----------
        values : iterable of tensor
            One for each of `own`, of equal shapes.
        """
        return self.joined(values, torch.add)

    def joined(self, values: Iterable[Tensor], join: Join) -> Tensor:
        """The same for any way to join the values of two neighbours.

        Parameters
        ----------
        values : iterable of tensor
            One for each of `own`.
        join : callable
            Gets the value of the samples that come first, then the other.
        """
        leaves = ((0, number, value) for number, value in zip(self.numbers, values, strict=True))
        nodes = _joined_pairs(leaves, join)
        if self.comm.getSize() > 1:
            sent = [(height, number, value.numpy()) for height, number, value in nodes]
            ranks = watch_of(self.comm.tompi4py()).allgather(sent)
            arrived = ((h, n, torch.from_numpy(value)) for nodes in ranks for h, n, value in nodes)
            nodes = _joined_pairs(arrived, join)
        return functools.reduce(join, [value for _, _, value in nodes])


def _joined_pairs(nodes: Iterable[Node], join: Join) -> list[Node]:
    """Neighbours in a list of nodes joined, as far as both are in it."""
    left: list[Node] = []
    for height, number, value in nodes:
        while number % 2 and left and left[-1][:2] == (height, number - 1):
            height, number, value = height + 1, number // 2, join(left.pop()[2], value)
        left.append((height, number, value))
    return left
