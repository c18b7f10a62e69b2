"""Runs of layers, each from a state of its own: all intervals of a level in one compiled call."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mgnet.depth.compiled.layout import blocks_of
from mgnet.depth.compiled.march import PackedLayers, Place
from mgnet.depth.compiled.parameters import Memory
from mgnet.threads import share

__all__ = ["LayerRuns", "Runs"]

SHARED = 2**15  # size of the states from which a second thread is useful


def _loops() -> Any:
    from mgnet.depth.compiled import run_loops  # loading numba takes a second

    return run_loops


class Runs(NamedTuple):
    """`count` runs of `length` layers (the last run: `last`) from `first`, `first + step`, ...

    Examples
    --------
    >>> Runs.of_intervals(layers=7, factor=3)
    Runs(first=0, step=3, count=3, length=3, last=1)
    """

    first: int
    step: int
    count: int
    length: int
    last: int

    @classmethod
    def of_intervals(cls, layers: int, factor: int) -> Runs:
        """All layers, of which there is at least one, in runs of this length."""
        count, length = -(-layers // factor), min(factor, layers)
        return cls(0, factor, count, length, layers - (count - 1) * factor)

    @classmethod
    def of_slice(cls, which: slice, layers: int) -> Runs:
        """One run with a single layer for each layer of a slice."""
        numbers = range(layers)[which]
        return cls(numbers.start, numbers.step, len(numbers), 1, 1)


class LayerRuns:
    """Memory in which runs of layers, and their adjoints, are processed in one call.

    Parameters
    ----------
    layers : PackedLayers
        The layers.
    runs : Runs
        The runs.
    shape : tuple of int
        Shape of a state, (batch, ..., features).
    kept : collection of int, optional
        The parameters of the loops whose gradients are needed. If this is given, even if it is
        empty, all states and the data for an adjoint are stored; otherwise, only the last state of
        each run is stored.
    rows : bool
        Whether there is space for terms added to the adjoint before each layer.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.batched.tracing import trace_for_autograd
    >>> from mgnet.depth.compiled.graph_operations import code_of
    >>> from mgnet.depth.compiled.march import CompiledMarch
    >>> net, u = ODENet(torch.nn.Linear(2, 2), 8), torch.ones(2, 5, 2)
    >>> tensors = [x.detach() for x in net.layers().tensors()]
    >>> one = [x[0] for x in tensors]
    >>> traced = trace_for_autograd(net.kernel.evaluate, [*one, u[0]], len(net.kernel.names))
    >>> packed = PackedLayers(CompiledMarch(code_of(traced, u[0]), u.dtype), tensors, False, None)
    >>> halves = LayerRuns(packed, Runs.of_intervals(8, 4), u.shape[1:])
    >>> middle = halves.forward(u)[:1]
    >>> torch.allclose(halves.forward(torch.cat([u[:1], middle]))[1], net(u[0]))
    True
    """

    def __init__(
        self,
        layers: PackedLayers,
        runs: Runs,
        shape: Sequence[int],
        kept: Collection[int] | None = None,
        rows: bool = False,
    ):
        self.packed, self.runs, self.march = layers, runs, layers.march
        self.shape = tuple(shape)
        march, self.batch = self.march, math.prod(shape) // self.march.width
        wanted = None if kept is None else frozenset(kept)
        counts = [runs.length if len(x) == layers.count else 1 for x in layers.given]
        widest, size = max([value.rows for value in march.code.values]), 0
        self.places: list[Place] = []
        for block in blocks_of(self.batch, march.lanes, widest, alone=False):
            layout = march.layout(runs.length, block.S, wanted, tuple(counts), rows)
            self.places.append(Place(block, layout, size))
            size += runs.count * block.parts * layout.size
        self.memory = Memory(size, march.dtype)
        with torch.no_grad():
            for k, value in zip(march.given, layers.given, strict=True):
                self._give(k, value)

    def _view(self, place: Place, table: str, k: int, slots: int, skip: int) -> Tensor:
        """Value k, or its adjoint, in all runs: (runs, parts, slots, rows, S)."""
        block, size, rows = place.block, place.layout.size, self.march.code.values[k].rows
        first, stride = map(int, getattr(place.layout, table)[k])
        return self.memory.numbers.as_strided(
            (self.runs.count, block.parts, slots, rows, block.S),
            (block.parts * size, size, stride, block.S, 1),
            place.first + first + skip * stride,
        )

    def _give(self, k: int, value: Tensor) -> None:
        """Write (layers or 1, batch, ..., rows) to the position of a given value."""
        first, step, count, length, _ = self.runs
        if len(value) < self.packed.count or self.packed.count == 1:
            value = value[None].expand(count, *value[None].shape[1:])
        else:
            numbers = first + step * np.arange(count)[:, None] + np.arange(length)
            numbers = np.minimum(numbers, len(value) - 1)  # a last run may have fewer
            value = value[torch.from_numpy(numbers)]
        value = value.reshape(count, value.shape[1], -1, value.shape[-1])
        for place in self.places:
            block, into = place.block, self._view(place, "at", k, value.shape[1], 0)
            some = value[:, :, block.first : block.first + block.samples]
            if block.samples < block.S:  # see MarchedLayers
                into[:, 0, ..., : block.samples] = some.mT
                into[..., block.samples :] = into[..., :1]
            else:
                parts = some.unflatten(2, (block.parts, block.S))
                into.copy_(parts.permute(0, 2, 1, 4, 3))

    def of_layers(self, table: str, k: int = 0, skip: int = 0) -> Tensor:
        """Value k or its adjoint, (layers, batch, rows), for consecutive runs."""
        found = []
        for place in self.places:
            rows = self._view(place, table, k, self.runs.length, skip).permute(0, 2, 1, 4, 3)
            found.append(rows.flatten(2, 3)[:, :, : place.block.samples])
        whole = torch.cat(found, 2).flatten(0, 1)
        return whole[: len(whole) - self.runs.length + self.runs.last]

    def states(self) -> Tensor:
        """The states after each layer, for consecutive runs that store them."""
        found = self.of_layers("at", skip=1)
        return found.reshape(len(found), *self.shape)

    def forward(self, states: Tensor, rows: Tensor | None = None, every: bool = False) -> Tensor:
        """March over the layers of each run from these states, (runs, batch, ..., features).

        Parameters
        ----------
        states : Tensor
            The states before the runs.
        rows : Tensor of shape (runs, length, batch, ..., features), optional
            Terms to be added to the states after layers, which must be stored.
        every : bool
            Whether to return all states, which must be stored.

        Returns
        -------
        Tensor
            The state after each run, or after each layer, (runs, length, batch, ..., features).
        """
        count, length = self.runs.count, self.runs.length
        out = states.new_empty((count, length, *self.shape) if every else (count, *self.shape))
        given = _flat(states), _flat(states[:0] if rows is None else rows)
        for place in self.places:
            some = partial(self._forward, place, *given, _flat(out))
            share(some, count * place.block.parts, self._threads(self.runs))
        return out

    def _forward(
        self,
        place: Place,
        given: np.ndarray,
        added: np.ndarray,
        out: np.ndarray,
        start: int,
        stop: int,
    ) -> None:
        march, packed, layout = self.march, self.packed, place.layout
        _loops().forward_runs(
            (start, stop), self._block(place), layout.size, tuple(self.runs), march.operations,
            march.numbers, layout.at, packed.parameters.numbers.numpy(), packed.at,
            self._memory(place), given, added, out, march.code.slope, march.adds, march.width,
            march.lanes,
        )  # fmt: skip

    def backward(
        self,
        adjoint: Tensor,
        runs: Runs | None = None,
        rows: Tensor | None = None,
        every: bool = False,
        sums: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Tensor:
        """Compute the adjoint before each run from that after it, (runs, batch, ..., features).

        Parameters
        ----------
        adjoint : Tensor
            The adjoint after the runs.
        runs : Runs, optional
            The runs to process, by default all stored ones. Others must lie inside stored runs,
            unless each stored run is a single layer.
        rows : Tensor of shape (layers, batch, ..., features), optional
            Terms to be added to the adjoint before each layer.
        every : bool
            Whether to return the adjoints before all layers, (layers, batch, ..., features); those
            of layers outside the runs are undefined.
        sums : (ndarray, ndarray), optional
            Gradients of parameters are added to the first array, at the positions in the second
            one.

        Returns
        -------
        Tensor
            The adjoint before each run, or before each layer.
        """
        chosen = self.runs if runs is None else runs
        out = adjoint.new_empty(self.packed.count if every else chosen.count, *self.shape)
        given = _flat(adjoint), _flat(adjoint[:0] if rows is None else rows), _flat(out)
        inner = every or rows is not None
        for place in self.places:
            # Parts of a run contribute to the same sums, so one thread must process them.
            whole = 1 if sums is None else place.block.parts
            some = partial(self._backward, place, chosen, given, inner, sums, whole)
            share(some, chosen.count * place.block.parts // whole, self._threads(chosen))
        return out

    def _backward(
        self,
        place: Place,
        runs: Runs,
        given: tuple[np.ndarray, np.ndarray, np.ndarray],
        inner: bool,
        sums: tuple[np.ndarray, np.ndarray] | None,
        whole: int,
        start: int,
        stop: int,
    ) -> None:
        march, packed, span = self.march, self.packed, self.runs.length
        _loops().backward_runs(
            (start * whole, stop * whole), self._block(place), place.layout.size, span,
            tuple(runs), march.operations, march.numbers,
            *self._tables(place, runs.first % span, inner), packed.parameters.numbers.numpy(),
            packed.at, self._memory(place), *given, *(sums or self._nowhere()), march.code.slope,
            march.adds, march.width, march.lanes,
        )  # fmt: skip

    def _nowhere(self) -> tuple[np.ndarray, np.ndarray]:
        """Placeholders for `sums` if no gradients of parameters are needed."""
        places = np.zeros_like(self.packed.at)
        places[:, 0] = -1
        return np.zeros(1, self.march.numbers.dtype), places

    def _tables(self, place: Place, skip: int, inner: bool) -> tuple[Any, ...]:
        """The tables at, of, empty, after, by, turned, relative to the layer `skip` of a run."""
        layout = place.layout
        at, of, by = layout.at, layout.of, self.march.width * place.block.S
        empty = layout.empty
        if self.runs.length == 1:  # the next layer is in the memory of the next run
            at, of, empty = at.copy(), of.copy(), empty.copy()
            at[:, 1] = by = place.block.parts * layout.size
            empty[:, 1] = of[:, 1] = 0
        elif skip:
            at, of, empty = (_moved(table, skip) for table in (at, of, empty))
        return at, of, empty, layout.source + skip * by if inner else -1, by, layout.turned

    def _block(self, place: Place) -> tuple[int, ...]:
        block = place.block
        return block.first, block.samples, block.parts, block.S, self.batch

    def _memory(self, place: Place) -> np.ndarray:
        end = place.first + self.runs.count * place.block.parts * place.layout.size
        return self.memory.numbers[place.first : end].numpy()

    def _threads(self, runs: Runs) -> int:
        work = runs.count * runs.length * math.prod(self.shape)
        return torch.get_num_threads() if work >= SHARED else 1

    def gradients(self, adjoint: Tensor, rows: Tensor | None) -> tuple[Tensor, list[Any]]:
        """Run `backward` for all runs, and compute the gradients with respect to the tensors."""
        leaves = self.packed.leaves()
        sums = self.packed.sums(leaves[1])
        found = adjoint.new_zeros(1, sums.size)
        start = self.backward(adjoint, rows=rows, sums=(found[0].numpy(), sums.at))
        of_given = []
        for k, value in zip(self.march.given, leaves[2], strict=True):
            gradient = self.of_layers("of", k)
            if len(value) < self.packed.count:
                gradient = gradient.sum(0, keepdim=True)
            of_given.append(gradient.reshape(-1, *value.shape[1:]))
        return start, self.packed.pull(leaves, sums, found, of_given)


def _moved(table: np.ndarray, layers: int) -> np.ndarray:
    """The offsets for a later layer."""
    moved = table.copy()
    moved[:, 0] += layers * table[:, 1]
    return moved


def _flat(states: Tensor) -> np.ndarray:
    return states.detach().contiguous().resolve_neg().numpy().reshape(-1)
