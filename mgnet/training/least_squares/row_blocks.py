"""A Jacobian that is never stored: blocks of its rows are recomputed when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mgnet.training.least_squares.device_reads import holds
from mgnet.training.least_squares.factorizations import triangle
from mgnet.training.least_squares.jacobian import PANEL, Jacobian

__all__ = ["ENTRIES", "RowBlocks", "rows_at_once", "streams"]

#: Number of entries above which a Jacobian is streamed, unless the caller sets the rows in memory.
ENTRIES = 2**26
BLOCK = 2**22  # numbers of a block in this case

Blocks = Iterator[tuple[slice, torch.Tensor]]


def streams(rows: int, columns: int, chunk_size: int | None) -> bool:
    """Whether a Jacobian is computed in blocks of rows; it must have more rows than columns.

    Parameters
    ----------
    rows, columns : int
        Shape of the Jacobian.
    chunk_size : int or None
        Number of rows to hold in memory at once; None means all, up to `ENTRIES` numbers.

    Examples
    --------
    >>> streams(1000, 10, None), streams(1000, 10, 100), streams(10**6, 1000, None)
    (False, True, True)
    """
    return rows >= columns and (
        rows * columns > ENTRIES if chunk_size is None else rows > chunk_size
    )


def rows_at_once(rows: int, columns: int, chunk_size: int | None) -> int:
    """Number of rows of a block; the arguments are those of `streams`.

    The user's function runs at all points for each block, so blocks are larger if there are many
    rows.

    Examples
    --------
    >>> rows_at_once(10**5, 2**10, None), rows_at_once(10**6, 2**10, 100)
    (4096, 100)
    """
    return chunk_size or max(1, BLOCK // columns, 8 * rows // columns)


@dataclass(frozen=True, eq=False)
class RowBlocks(Jacobian):
    """J, known only through passes over blocks of its rows; the largest stored matrix is `J^T J`.

    Attributes
    ----------
    rows, columns : int
        Shape of J.
    blocks : callable
        `() -> iterator of (slice, tensor)`: positions of the rows, and dense rows in float64. The
        blocks may come in any order; together the slices cover all rows.
    push, pull : callable, optional
        Functions for `J d` and `J^T y` that are cheaper than a pass.
    check : callable, optional
        Function that computes `J^T y` by another method, to verify the blocks of a pass.

    Examples
    --------
    >>> A = torch.arange(10.0, dtype=torch.float64).view(5, 2)
    >>> J = RowBlocks(5, 2, lambda: ((slice(n, n + 2), A[n : n + 2]) for n in (0, 2, 4)))
    >>> J.gram().tolist() == (A.T @ A).tolist(), J.shape
    (True, (5, 2))
    """

    rows: int
    columns: int
    blocks: Callable[[], Blocks]
    push: Callable[[torch.Tensor], torch.Tensor] | None = None
    pull: Callable[[torch.Tensor], torch.Tensor] | None = None
    check: Callable[[torch.Tensor], torch.Tensor] | None = None
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        if self.push is not None:
            return self.push(d)
        image = d.new_empty(self.rows, dtype=torch.float64)
        for own, block in self.blocks():
            image[own] = block @ d
        return image

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        r, gradient = self._known.get("gradient", (None, None))
        if r is not None and torch.equal(y, r):
            return gradient.clone()
        if self.pull is not None:
            return self.pull(y)
        total = y.new_zeros(self.columns, dtype=torch.float64)
        for own, block in self.blocks():
            total.addmv_(block.T, y[own])
        return total

    def gram(self) -> torch.Tensor:
        if "gram" not in self._known:
            self._pass(None)
        return self._known["gram"]

    def gram_and_gradient(self, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`J^T J` and `J^T r` in one pass; both are stored, for `gram` and for `rmatvec(r)`.

        Parameters
        ----------
        r : tensor of shape (rows,)
            Residuals.

        Examples
        --------
        >>> J = RowBlocks(2, 1, lambda: iter([(slice(0, 2), torch.ones(2, 1).double())]))
        >>> J.gram_and_gradient(torch.ones(2).double())
        (tensor([[2.]], dtype=torch.float64), tensor([2.], dtype=torch.float64))
        """
        if "gram" not in self._known:
            self._pass(r)
        return self._known["gram"], self.rmatvec(r)

    def _pass(self, r: torch.Tensor | None) -> None:
        total = gradient = None
        y = torch.cos(torch.arange(1.0, self.rows + 1.0, dtype=torch.float64))
        seen, size = y.new_zeros(self.columns), y.new_zeros(())
        for own, block in self.blocks():
            if total is None:
                y, seen, size = y.to(block.device), seen.to(block.device), size.to(block.device)
            seen.addmv_(block.T, y[own])
            size = size + block.norm() * y[own].norm()
            if total is None:
                total = block.new_zeros(self.columns, self.columns)
                gradient = block.new_zeros(self.columns)
            for first in range(0, self.columns, PANEL):  # the upper half, in place
                part = slice(first, first + PANEL)
                total[part, first:].addmm_(block[:, part].T, block[:, first:])
            if r is not None and gradient is not None:
                gradient.addmv_(block.T, r[own])
        if self.check is not None:
            expected = self.check(y)
            close = torch.finfo(expected.dtype).eps ** 0.5 * size
            if not holds((seen - expected.double()).norm() <= close):
                raise ValueError(
                    "a residual depends on several samples, which a Jacobian in blocks of rows "
                    f"omits; give a chunk_size of at least {self.rows}, which forms it whole"
                )
        if total is None:
            total = torch.zeros(self.columns, self.columns, dtype=torch.float64)
            gradient = total.new_zeros(self.columns)
        for first in range(0, self.columns, PANEL):
            part, after = slice(first, first + PANEL), first + PANEL
            total[part, part] = total[part, part].triu() + total[part, part].triu(1).T
            total[after:, part] = total[part, after:].T
        self._known["gram"] = total
        if r is not None:
            self._known["gradient"] = r.clone(), gradient

    def squares(self) -> torch.Tensor:
        if "gram" in self._known:
            return self._known["gram"].diagonal().clone()
        total: Any = 0.0
        for _, block in self.blocks():
            total = total + block.square().sum(0)
        return total

    def dense(self) -> torch.Tensor:
        whole = None
        for own, block in self.blocks():
            whole = block.new_empty(self.shape) if whole is None else whole
            whole[own] = block
        return torch.empty(self.shape, dtype=torch.float64) if whole is None else whole

    def root(self) -> torch.Tensor:
        """The upper triangular factor of J, found by reducing one block of rows after another."""
        T = None
        for _, block in self.blocks():
            T = triangle(block) if T is None else triangle(T, block)
        return torch.empty(0, self.columns, dtype=torch.float64) if T is None else T

    def scaled(self, weight: float) -> RowBlocks:
        """`weight J`, without a stored matrix."""
        return self._weighted(weight, lambda own: weight)

    def scaled_rows(self, factors: torch.Tensor) -> RowBlocks:
        """`diag(factors) J`, where factors is a tensor of shape (rows,)."""
        return self._weighted(factors, lambda own: factors[own].unsqueeze(1))

    def _weighted(self, weights: Any, of_rows: Callable[[slice], Any]) -> RowBlocks:
        push, pull, blocks, check = self.push, self.pull, self.blocks, self.check
        return replace(
            self,
            blocks=lambda: ((own, block * of_rows(own)) for own, block in blocks()),
            push=None if push is None else lambda d: weights * push(d),
            pull=None if pull is None else lambda y: pull(weights * y),
            check=None if check is None else lambda y: check((weights * y).to(y)),
        )
