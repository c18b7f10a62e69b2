"""Samples in fixed blocks over MPI ranks, and sums over them: `SampleBlocks`.

Rounding depends on the order of summation. Samples are therefore divided into 64 blocks on any
number of ranks, and the blocks are joined pairwise in a fixed binary tree. A rank joins the nodes
that consist entirely of its own blocks; the few remaining nodes are sent to all ranks, which join
them in the same way. Results then have the same bits on any number of ranks, and with two ranks,
each sends one sum, not 32.
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
Node = tuple[int, int, Any]  # height in the tree, number at this height, value


def aligned(values: Tensor) -> Tensor:
    """A copy aligned to 64 bytes; the bits of a BLAS sum may depend on the alignment.

    Examples
    --------
    >>> aligned(torch.arange(3)[1:]).tolist()
    [1, 2]
    """
    return values.clone(memory_format=torch.contiguous_format)


class SampleBlocks:
    """The distribution of samples over ranks, and sums over all samples.

    Parameters
    ----------
    samples : int
        Number of samples of all ranks together.
    comm : PETSc.Comm, optional
        The communicator; `PETSc.COMM_WORLD` by default.

    Raises
    ------
    ValueError
        If there are no samples.

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
        """Number of blocks on all ranks."""
        return min(BLOCKS, self.samples)

    @property
    def numbers(self) -> range:
        """The blocks of this rank; empty if there are more ranks than blocks."""
        rank, ranks = self.comm.getRank(), self.comm.getSize()
        return range(self.count * rank // ranks, self.count * (rank + 1) // ranks)

    @property
    def own(self) -> list[slice]:
        """The samples in each block of this rank."""
        return [self._samples_of(number) for number in self.numbers]

    @property
    def first(self) -> slice:
        """The samples in block 0, which every rank may read for checks."""
        return self._samples_of(0)

    def _samples_of(self, number: int) -> slice:
        ends = (self.samples * end // self.count for end in (number, number + 1))
        return slice(*ends)

    def total(self, values: Iterable[Tensor]) -> Tensor:
        """Sum over the blocks of all ranks; every rank gets the result.

        Parameters
        ----------
        values : iterable of tensor
            One tensor for each block in `own`, of equal shapes.
        """
        return self.joined(values, torch.add)

    def joined(self, values: Iterable[Tensor], join: Join) -> Tensor:
        """Reduce over the blocks as `total` does, with `join` instead of addition.

        Parameters
        ----------
        values : iterable of tensor
            One tensor for each block in `own`.
        join : callable
            A function of two values, the first of which is that of the earlier samples.
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
    """Join all pairs of sibling nodes in a list, repeatedly."""
    left: list[Node] = []
    for height, number, value in nodes:
        while number % 2 and left and left[-1][:2] == (height, number - 1):
            height, number, value = height + 1, number // 2, join(left.pop()[2], value)
        left.append((height, number, value))
    return left
