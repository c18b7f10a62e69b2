"""A cell as a function of its tensors, and a record of its other dependencies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from mgnet.depth.batched.lending import lending
from mgnet.depth.batched.scheme import version_of
from mgnet.depth.batched.surroundings import surroundings

__all__ = ["CellCall", "KeptCell", "alone"]


@contextmanager
def alone() -> Iterator[None]:
    """Provide a context in which only this thread replaces tensors of cells, without caching.

    Otherwise `parametrize.cached` would store values that were computed from replacements or
    without a graph.

    Examples
    --------
    >>> with alone(), alone():
    ...     pass
    """
    with lending():
        enabled = parametrize._cache_enabled
        if not enabled:
            yield
            return
        parametrize._cache_enabled = 0
        try:
            yield
        finally:
            parametrize._cache_enabled = enabled


class CellCall(nn.Module):
    """A cell, or a coarse step of it, whose tensors can be replaced temporarily.

    Parameters
    ----------
    cell : callable
        The user's function `(x, h) -> h`.
    coarse : callable, optional
        The user's coarse step `(x, h, k) -> h`.

    Examples
    --------
    >>> import torch
    >>> cell = nn.RNNCell(2, 3)
    >>> call, none = CellCall(cell, None), [torch.zeros_like(w) for w in cell.parameters()]
    >>> call.lent(none, {}, lambda step: step(torch.ones(1, 2), torch.ones(1, 3), None))
    tensor([[0., 0., 0.]])
    """

    def __init__(self, cell: Any, coarse: Any):
        super().__init__()
        self.cell = cell
        self.coarse = coarse

    def step(self, x: Tensor, state: Any, lengths: Tensor | None) -> Any:
        """Compute one step, or coarse steps of these lengths, with the cell's own tensors."""
        with alone():
            return self._step(x, state, lengths)

    def lent(
        self,
        weights: Sequence[Tensor],
        buffers: Mapping[str, Tensor],
        run: Callable[[Callable[..., Any]], Any],
    ) -> Any:
        """Return the result of `run(step)` while the cell has these tensors.

        Parameters
        ----------
        weights : sequence of Tensor
            The parameters of the cell, in order, if it is a module.
        buffers : mapping of str to Tensor
            Buffers by name in the cell.
        run : callable
            A function that computes steps and also their derivatives, because recomputation from
            checkpoints needs the same tensors.
        """
        with alone():
            tensors = {f"cell.{name}": value for name, value in buffers.items()}
            if isinstance(self.cell, nn.Module):
                names = [f"cell.{name}" for name, _ in self.cell.named_parameters()]
                tensors |= dict(zip(names, weights, strict=True))
            return functional_call(self, tensors, (run,))

    def forward(self, run: Callable[[Callable[..., Any]], Any]) -> Any:
        return run(self._step)

    def _step(self, x: Tensor, state: Any, lengths: Tensor | None) -> Any:
        if lengths is None or self.coarse is None:
            return self.cell(x, state)
        return self.coarse(x, state, lengths)


class KeptCell:
    """What a cell depends on besides its arguments and weights, as needed to evaluate it again.

    Buffers are stored. Plain values that the code of the cell reads, and tensors from outside the
    cell, are not stored, but a change in them is detected.

    Parameters
    ----------
    cell : callable
        The user's cell.

    Examples
    --------
    >>> cell = nn.Sequential(nn.RNNCell(2, 3), nn.Dropout(0.1))
    >>> kept = KeptCell(cell)
    >>> kept.check()
    >>> cell[1].p = 0.2
    >>> kept.check()
    Traceback (most recent call last):
    RuntimeError: TimeParallel began a backward pass, but its cell, Sequential, was changed after \
the forward pass, as by train(), eval() or another value of an attribute; change it after the \
backward pass, or use mode='serial'
    """

    def __init__(self, cell: Any):
        self._cell = cell
        self.buffers = dict(cell.named_buffers()) if isinstance(cell, nn.Module) else {}
        self.about, self._outside = self._look()
        self._versions = self._now()

    def looks_the_same(self) -> bool:
        """Whether plain values are unchanged; replaced tensors count as the cell's own."""
        about, outside = self._look()
        now = {id(x) for x in outside}
        self._outside = [x for x in self._outside if id(x) in now]
        self._versions = self._now()
        return about == self.about

    def check(self) -> None:
        """Check that another evaluation would agree with that of the forward pass.

        Raises
        ------
        RuntimeError
            If the cell, or a tensor that it reads, has changed.
        """
        name = f"TimeParallel began a backward pass, but its cell, {type(self._cell).__name__},"
        about, outside = self._look()
        if about != self.about:
            raise RuntimeError(
                f"{name} was changed after the forward pass, as by train(), eval() or another "
                "value of an attribute; change it after the backward pass, or use mode='serial'"
            )
        gone = {id(x) for x in self._outside} - {id(x) for x in outside}
        if gone or self._now() != self._versions:
            raise RuntimeError(
                f"{name} reads a buffer or another tensor that was edited in place, or replaced, "
                "after the forward pass, which needs it as it was; edit it after the backward "
                "pass, or use mode='serial'"
            )

    def _look(self) -> tuple[Any, list[Tensor]]:
        with lending():
            about, tensors = surroundings(self._cell)
            named = {}
            if isinstance(self._cell, nn.Module):
                named = dict(self._cell.named_parameters(remove_duplicate=False))
                named |= dict(self._cell.named_buffers(remove_duplicate=False))
        own = {id(x) for x in (*named.values(), *self.buffers.values())}
        return (about, tuple(named)), [x for x in tensors if id(x) not in own]

    def _now(self) -> list[int]:
        return [version_of(x) for x in (*self.buffers.values(), *self._outside)]
