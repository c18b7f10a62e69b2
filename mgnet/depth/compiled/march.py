"""Serial propagation by the compiled loops: buffers, parameters, adjoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgnet.depth.compiled import operations as ops
from mgnet.depth.compiled.layer_code import LayerCode
from mgnet.depth.compiled.parameters import Memory, Prepared
from mgnet.threads import share

__all__ = ["CompiledMarch", "MarchedLayers"]

BYTES = 64  # of a vector
WIDEST = 128  # samples of one part
BLOCK = 1024  # layers whose gradients by a shared matrix are one product


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where values and adjoints stand, for S samples."""

    at: np.ndarray  # of values
    of: np.ndarray  # of adjoints
    empty: np.ndarray
    size: int
    lam: int
    source: int


class CompiledMarch:
    """The layers of a block in compiled loops.

    Parameters
    ----------
    code : LayerCode
    dtype : torch.dtype
        float32 or float64.
    adds : bool
        Whether the slope, times the step, is added to the state; else it takes its place.
    of_all : bool
        Whether adjoints of all states are asked for.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.batched.tracing import trace_for_autograd
    >>> from mgnet.depth.compiled.graph_operations import code_of
    >>> net, u = ODENet(torch.nn.Linear(2, 2), 8), torch.ones(5, 2)
    >>> layers = net.layers()
    >>> one = [x[0].detach() for x in layers.tensors()]
    >>> traced = trace_for_autograd(net.kernel.evaluate, [*one, u], len(net.kernel.names))
    >>> march = CompiledMarch(code_of(traced, u), u.dtype)
    >>> marched = march.forward([x.detach() for x in layers.tensors()], u, record=False)
    >>> torch.allclose(marched.last(), net(u), atol=1e-6)
    True
    """

    def __init__(
        self, code: LayerCode, dtype: torch.dtype, adds: bool = True, of_all: bool = False
    ):
        self.code, self.adds, self.of_all = code, adds, of_all
        self.dtype = dtype
        self.width = code.values[0].rows
        self.lanes = BYTES // dtype.itemsize
        self.operations = np.array(code.code, np.int64).reshape(-1, 10)
        kind = np.float32 if dtype == torch.float32 else np.float64
        self.numbers = np.array(code.numbers, kind).reshape(-1, 2)
        self.prepared = Prepared(code)
        self.given = [k for k, value in enumerate(code.values) if value.given]
        self._layouts: dict[Any, _Layout] = {}

    def layout(self, layers: int, S: int, record: bool, counts: tuple[int, ...]) -> _Layout:
        """Where everything stands; `counts` are the rows of the given values, layers or 1."""
        key = layers, S, record, counts
        found = self._layouts.get(key)
        if found is None:
            if len(self._layouts) >= 64:
                self._layouts.clear()
            given = dict(zip(self.given, counts, strict=True))
            found = self._layouts[key] = _layout(self.code, layers, S, record, given)
        return found

    def parts(self, S: int) -> list[int]:
        """The ends of the parts of S samples that are done one after another, or by threads.

        They do not depend on the number of threads, so neither do sums over samples.
        """
        vectors = S // self.lanes
        each = max(min(-(-vectors // 4), WIDEST // self.lanes), 1 if vectors < 4 else 2)
        return [*range(0, S, each * self.lanes), S]

    def kept(self, u: Tensor) -> float:
        """What a layer that is recorded keeps, in states like u."""
        S = -(-u.numel() // self.width // self.lanes) * self.lanes
        one, two = (self.layout(layers, S, True, (1,) * len(self.given)).size for layers in (1, 2))
        return (two - one) / (self.width * S)

    def forward(self, tensors: Sequence[Tensor], u: Tensor, record: bool) -> MarchedLayers:
        """Through all layers.

        Parameters
        ----------
        tensors : sequence of Tensor
            Of the layers, `Layers.tensors()`; one that all layers share may be (1, ...).
        u : Tensor of shape (batch, ..., features)
        record : bool
            Whether gradients follow.
        """
        layers, width = len(tensors[-1]), self.width
        samples = u.numel() // width
        S = -(-samples // self.lanes) * self.lanes
        with torch.no_grad():
            values, given = self.prepared.shaped(tensors, whole=False)
            layout = self.layout(layers, S, record, tuple(map(len, given)))
            size = layout.size + (layers * width * S if self.of_all else 0)
            memory = Memory(size, self.dtype)
            parameters, par_at = self.prepared.packed(tensors[-1], values)
            marched = MarchedLayers(self, layout, memory, parameters, par_at, tensors, u, S)
            marched.put(0, 1, u[None])
            for k, value in zip(self.given, given, strict=True):
                marched.put(int(layout.at[k, 0]), len(value), value)
        marched.forward()
        return marched


def _loops() -> Any:
    from mgnet.depth.compiled import loops  # numba takes a second to load

    return loops


def _layout(code: LayerCode, layers: int, S: int, record: bool, given: dict[int, int]) -> _Layout:
    values = code.values
    roots = [k for k, value in enumerate(values) if value.root == k]
    kept = [k for k in roots if values[k].kept and k not in given]
    begins, rows = {}, 0
    for k in kept:
        begins[k], rows = rows * S, rows + values[k].rows
    stride = rows * S if record else 0
    end = (layers + 1) * rows * S if record else rows * S
    at, of = np.zeros((len(values), 2), np.int64), np.zeros((len(values), 2), np.int64)
    for k in roots:
        size = values[k].rows * S
        if k in begins:
            at[k] = begins[k], stride
        else:
            at[k] = end, size if given.get(k, 1) > 1 else 0
            end += size * given.get(k, 1)
    empty: list[tuple[int, int, int]] = []
    lam = source = -1
    if record:
        many = [k for k in roots if values[k].per_layer]
        per_layer, gates = sum(values[k].rows for k in many), end
        for k in many:
            of[k] = end, per_layer * S
            end += values[k].rows * S
        empty.append((gates, per_layer * S, per_layer))
        end = lam = gates + layers * per_layer * S
        of[0] = lam, 0
        end += values[0].rows * S
        begin = end
        for k in roots[1:]:
            if not values[k].per_layer:
                of[k] = end, 0
                end += values[k].rows * S
        empty.append((begin, 0, (end - begin) // S))
        source = end
    for k, value in enumerate(values):
        if value.root != k:
            for table in (at, of):
                table[k] = table[value.root] + (value.first * S, 0)
    return _Layout(at, of, np.array(empty, np.int64).reshape(-1, 3), end, lam, source)


class MarchedLayers:
    """Layers that were marched through, and their adjoint."""

    def __init__(
        self,
        march: CompiledMarch,
        layout: _Layout,
        memory: Memory,
        parameters: Memory,
        par_at: np.ndarray,
        tensors: Sequence[Tensor],
        u: Tensor,
        S: int,
    ):
        self.march, self.layout, self.memory = march, layout, memory
        self.parameters, self.par_at, self.tensors, self.S = parameters, par_at, tensors, S
        self.shape, self.samples = u.shape, u.numel() // march.width
        self.layers = len(tensors[-1])

    def put(self, first: int, count: int, value: Tensor) -> None:
        """Write (count, batch, ..., rows) as rows of samples from a place on."""
        rows = value.numel() // (count * self.samples)
        size = count * rows * self.S
        place = self.memory.numbers[first : first + size].view(count, rows, self.S)
        place[..., : self.samples] = value.reshape(count, self.samples, rows).mT
        # Vectors are whole. The first sample is as good as any: it overflows where it does itself.
        place[..., self.samples :] = place[..., :1]

    def rows(self, table: np.ndarray, k: int) -> Tensor:
        """Value k, or its adjoint, in all layers: (layers, rows, S); a view."""
        (first, stride), rows = map(int, table[k]), self.march.code.values[k].rows
        size = self.layers, rows, self.S
        return self.memory.numbers.as_strided(size, (stride, self.S, 1), first)

    def on_parts(self, work: Callable[[int, int, int], None]) -> None:
        """Call `work(part, s, end)` for all parts, on as many threads as PyTorch uses."""
        ends = self.march.parts(self.S)

        def some(start: int, stop: int) -> None:
            for k in range(start, stop):
                work(k, ends[k], ends[k + 1])

        share(some, len(ends) - 1, torch.get_num_threads())

    def forward(self) -> None:
        """March from the state that was put in the place of layer 0."""
        march, at = self.march, self.layout.at
        mem, par = self.memory.numbers.numpy(), self.parameters.numbers.numpy()
        about = march.code.slope, march.adds, march.width, self.layers, self.S
        loop, table = _loops().forward, (march.operations, march.numbers, at)
        self.on_parts(
            lambda k, s, end: loop(*table, par, self.par_at, mem, *about, s, end, march.lanes)
        )

    def backward(self, source: int) -> Tensor:
        """March back from the adjoint that was put in its place; what a layer's `sums` are."""
        march, layout = self.march, self.layout
        mem, par = self.memory.numbers.numpy(), self.parameters.numbers.numpy()
        about = march.code.slope, march.adds, march.width, self.layers, self.S
        loop, table = _loops().backward, (march.operations, march.numbers, layout.at)
        count, parts = march.code.sums, len(march.parts(self.S)) - 1
        sums = torch.zeros(parts, self.layers * count, dtype=march.dtype)
        found = sums.numpy()
        tables = *table, layout.of, layout.empty, source, par, self.par_at, mem
        self.on_parts(lambda k, s, end: loop(*tables, found[k], count, *about, s, end, march.lanes))
        return (sums[0] if parts == 1 else sums.sum(0)).view(self.layers, count)

    def last(self) -> Tensor:
        """The state after all layers."""
        width, S = self.march.width, self.S
        at = self.layers * int(self.layout.at[0, 1])
        rows = self.memory.numbers[at : at + width * S].view(width, S)
        return rows[:, : self.samples].T.reshape(self.shape).clone()

    def states(self) -> Tensor:
        """Those after each layer, (layers, batch, ..., features), of a recorded pass."""
        first, stride = map(int, self.layout.at[0])
        size, strides = (self.layers, self.samples, self.march.width), (stride, 1, self.S)
        rows = self.memory.numbers.as_strided(size, strides, first + stride)
        # A copy: without gradients the memory goes back before the caller has read it.
        return rows.reshape(self.layers, *self.shape).clone()

    def adjoint(self, gradient: Tensor) -> tuple[Tensor, list[Any]]:
        """The gradients by the state before all layers, and by their tensors.

        Parameters
        ----------
        gradient : Tensor
            By the state after all layers or, if `of_all`, by the states after each of them.
        """
        march, layout, S, N = self.march, self.layout, self.S, self.layers
        width, source, numbers = march.width, -1, self.memory.numbers
        lam = numbers[layout.lam : layout.lam + width * S].view(width, S)
        lam.zero_()
        if march.of_all:
            source = layout.source
            self.put(source, N, gradient)
            rest = numbers[source : source + N * width * S].view(N, width, S)
            rest[..., self.samples :] = 0.0
        else:
            lam[:, : self.samples] = gradient.reshape(self.samples, width).T
        found = self.backward(source)
        leaves, values, given = march.prepared.leaves(self.tensors)
        single = {slot: len(x) < N for slot, x in zip(march.prepared.slots, values, strict=True)}
        of_parameters = self._of_parameters(found, single)
        of_given = [self._of_given(k, x) for k, x in zip(march.given, given, strict=True)]
        pulled = march.prepared.pull(leaves, values, given, of_parameters, of_given)
        pulled[-1] = found[:, 0] if pulled[-1] is None else pulled[-1] + found[:, 0]
        return lam[:, : self.samples].T.reshape(self.shape).clone(), pulled

    def _of_given(self, k: int, value: Tensor) -> Tensor:
        found = self.rows(self.layout.of, k)[..., : self.samples].mT
        if len(value) < self.layers:
            found = found.sum(0, keepdim=True)
        return found.reshape(value.shape)

    def _of_parameters(self, sums: Tensor, single: dict[int, bool]) -> dict[int, Tensor]:
        """By the number of each parameter of the loops, (layers, ...), or (1, ...) of a single."""
        found: dict[int, Tensor] = {}

        def add(p: int, value: Tensor) -> None:
            if single[p] and len(value) > 1:
                value = value.sum(0, keepdim=True)
            found[p] = found[p] + value if p in found else value

        for op, out, a, _, rows, _, p, q, _, place in self.march.code.code:
            if op == ops.LINEAR:
                g, x = self.rows(self.layout.of, out), self.rows(self.layout.at, a)
                if single[p]:
                    for left, right in zip(g.split(BLOCK), x.split(BLOCK), strict=True):
                        left, right = (part.transpose(0, 1).flatten(1) for part in (left, right))
                        add(p, (left @ right.T).T[None])
                else:
                    add(p, (g @ x.mT).mT)  # the other way round, as most weights are
                if q:
                    add(q, g.sum(2))
            elif op in (ops.SHIFT, ops.SCALE, ops.FILL):
                add(p, sums[:, place : place + rows])
        return found
