"""Serial propagation by the compiled loops: buffers, parameters, adjoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgnet.depth.batched.graphs import extract, results
from mgnet.depth.batched.layers import is_joint
from mgnet.depth.compiled import operations as ops
from mgnet.depth.compiled.layer_code import LayerCode
from mgnet.threads import share

__all__ = ["CompiledMarch", "MarchedLayers"]

BYTES = 64  # of a vector
WIDEST = 128  # samples of one part
KEPT = 4  # buffers that wait for the next pass, none of more numbers than
MOST = 2**24
aten = torch.ops.aten


class _Memory:
    """Numbers for one pass, which go back to the pool with their last user."""

    def __init__(self, pool: list[Tensor], size: int, dtype: torch.dtype):
        self.pool = pool
        found = [k for k, each in enumerate(pool) if len(each) == size]
        try:
            self.numbers = pool.pop(found[-1])
        except IndexError:  # none, or another thread was faster
            self.numbers = torch.empty(size, dtype=dtype)
        if len(self.numbers) != size:
            self.numbers = torch.empty(size, dtype=dtype)

    def __del__(self) -> None:
        if len(self.pool) < KEPT and len(self.numbers) <= MOST:
            self.pool.append(self.numbers)


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where values and adjoints stand, for S samples."""

    at: np.ndarray  # of values
    of: np.ndarray  # of adjoints
    empty: np.ndarray
    size: int
    record: int  # rows of a layer that are kept
    gates: int  # where the adjoints of matrices' results begin
    per_layer: int  # their rows
    lam: int


class CompiledMarch:
    """The layers of a block in compiled loops.

    Parameters
    ----------
    code : LayerCode
    dtype : torch.dtype
        float32 or float64.

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
    >>> torch.allclose(marched.last, net(u), atol=1e-6)
    True
    """

    def __init__(self, code: LayerCode, dtype: torch.dtype):
        self.code = code
        self.dtype = dtype
        self.width = code.values[0].rows
        self.lanes = BYTES // dtype.itemsize
        self.operations = np.array(code.code, np.int64).reshape(-1, 10)
        kind = np.float32 if dtype == torch.float32 else np.float64
        self.numbers = np.array(code.numbers, kind).reshape(-1, 2)
        self.prepared = _Prepared(code)
        self._layouts: dict[tuple[int, int, bool], _Layout] = {}
        self._pool: list[Tensor] = []

    def layout(self, layers: int, S: int, record: bool) -> _Layout:
        """Where everything stands; the same for all passes of one size."""
        key = layers, S, record
        if key not in self._layouts:
            if len(self._layouts) >= 64:
                self._layouts.clear()
            self._layouts[key] = _layout(self.code, layers, S, record)
        return self._layouts[key]

    def parts(self, S: int) -> list[int]:
        """The ends of the parts of S samples that are done one after another, or by threads.

        They do not depend on the number of threads, so neither do sums over samples.
        """
        vectors = S // self.lanes
        each = max(min(-(-vectors // 4), WIDEST // self.lanes), 1 if vectors < 4 else 2)
        return [*range(0, S, each * self.lanes), S]

    def forward(self, tensors: Sequence[Tensor], u: Tensor, record: bool) -> MarchedLayers:
        """Through all layers.

        Parameters
        ----------
        tensors : sequence of Tensor
            Of the layers, `Layers.tensors()`.
        u : Tensor of shape (batch, ..., features)
        record : bool
            Whether gradients follow.
        """
        layers, width = len(tensors[-1]), self.width
        samples = u.numel() // width
        S = -(-samples // self.lanes) * self.lanes
        layout = self.layout(layers, S, record)
        memory = _Memory(self._pool, layout.size, self.dtype)
        mem = memory.numbers
        first = mem[: width * S].view(width, S)
        first[:, :samples] = u.reshape(samples, width).T
        first[:, samples:] = first[:, :1]  # as good as any: no overflow that the others have not
        parameters, par_at = self.prepared.packed(tensors, self._pool)
        marched = MarchedLayers(self, layout, memory, parameters, par_at, tensors, u, S)
        marched.run(_loops().forward, (self.code.slope, width, layers, S))
        return marched


def _loops() -> Any:
    from mgnet.depth.compiled import loops  # numba takes a second to load

    return loops


def _layout(code: LayerCode, layers: int, S: int, record: bool) -> _Layout:
    values = code.values
    roots = [k for k, value in enumerate(values) if value.root == k]
    kept = [k for k in roots if values[k].kept]
    begins, rows = {}, 0
    for k in kept:
        begins[k], rows = rows * S, rows + values[k].rows
    stride = rows * S if record else 0
    end = (layers + 1) * rows * S if record else rows * S
    at, of = np.zeros((len(values), 2), np.int64), np.zeros((len(values), 2), np.int64)
    for k in roots:
        if k in begins:
            at[k] = begins[k], stride
        else:
            at[k] = end, 0
            end += values[k].rows * S
    empty: list[tuple[int, int, int]] = []
    gates, per_layer, lam = end, 0, 0
    if record:
        many = [k for k in roots if values[k].per_layer]
        per_layer = sum(values[k].rows for k in many)
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
    for k, value in enumerate(values):
        if value.root != k:
            for table in (at, of):
                table[k] = table[value.root] + (value.first * S, 0)
    return _Layout(
        at, of, np.array(empty, np.int64).reshape(-1, 3), end, rows, gates, per_layer, lam
    )


class MarchedLayers:
    """Layers that were marched through, and their adjoint.

    Attributes
    ----------
    last : Tensor
        The state after all layers, like the one before them.
    """

    def __init__(
        self,
        march: CompiledMarch,
        layout: _Layout,
        memory: _Memory,
        parameters: _Memory,
        par_at: np.ndarray,
        tensors: Sequence[Tensor],
        u: Tensor,
        S: int,
    ):
        self.march, self.layout, self.memory = march, layout, memory
        self.parameters, self.par_at, self.tensors, self.S = parameters, par_at, tensors, S
        self.shape, self.samples = u.shape, u.numel() // march.width

    def run(self, loop: Callable[..., None], given: tuple[Any, ...], *sums: np.ndarray) -> None:
        """Call a loop for all parts of the samples, on as many threads as PyTorch uses."""
        march, layout = self.march, self.layout
        mem, par = self.memory.numbers.numpy(), self.parameters.numbers.numpy()
        ends = march.parts(self.S)
        backward = (layout.of, layout.empty) if sums else ()

        def work(start: int, stop: int) -> None:
            for k, (s, end) in list(enumerate(pairwise(ends)))[start:stop]:
                own = [x[k] for x in sums]
                count = [own[0].shape[0] // given[2]] if own else []
                loop(
                    march.operations, march.numbers, layout.at, *backward, par, self.par_at, mem,
                    *own, *count, *given, s, end, march.lanes,
                )  # fmt: skip

        share(work, len(ends) - 1, torch.get_num_threads())

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.tensors[-1])

    @cached_property
    def last(self) -> Tensor:
        """The state after all layers."""
        width, S = self.march.width, self.S
        at = self.layers * self.layout.at[0, 1]
        rows = self.memory.numbers[at : at + width * S].view(width, S)
        return rows[:, : self.samples].T.reshape(self.shape).clone()

    def adjoint(self, gradient: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The gradients by the state before all layers, and by their tensors.

        Parameters
        ----------
        gradient : Tensor
            By the state after all layers.
        """
        march, layout, S, N = self.march, self.layout, self.S, self.layers
        width, mem = march.width, self.memory.numbers
        lam = mem[layout.lam : layout.lam + width * S].view(width, S)
        lam.zero_()
        lam[:, : self.samples] = gradient.reshape(self.samples, width).T
        parts = len(march.parts(S)) - 1
        sums = torch.zeros(parts, N * march.code.sums, dtype=march.dtype)
        self.run(_loops().backward, (march.code.slope, width, N, S), sums.numpy())
        found = sums[0] if parts == 1 else sums.sum(0)
        found = found.view(N, march.code.sums)
        of_parameters = self._of_parameters(found)
        of_tensors = march.prepared.pull(self.tensors, of_parameters, found[:, 0])
        return lam[:, : self.samples].T.reshape(self.shape).clone(), of_tensors

    def _of_parameters(self, sums: Tensor) -> dict[int, Tensor]:
        """By the number of each parameter of the loops, (layers, ...)."""
        layout, S, N = self.layout, self.S, self.layers
        mem = self.memory.numbers
        kept = mem[: (N + 1) * layout.record * S].view(N + 1, layout.record, S)[:N]
        size = N * layout.per_layer * S
        gates = mem[layout.gates : layout.gates + size].view(N, layout.per_layer, S)
        found: dict[int, Tensor] = {}

        def add(p: int, value: Tensor) -> None:
            found[p] = found[p] + value if p in found else value

        for op, out, a, _, rows, columns, p, q, _, place in self.march.code.code:
            if op == ops.LINEAR:
                first = int(layout.of[out, 0] - layout.gates) // S
                g, x = gates[:, first : first + rows], int(layout.at[a, 0]) // S
                given = kept[:, x : x + columns]
                add(p, (g @ given.mT).mT)  # the other way round, as most weights are
                if q:
                    add(q, g.sum(2))
            elif op in (ops.SHIFT, ops.SCALE, ops.FILL):
                add(p, sums[:, place : place + rows])
        return found


class _Prepared:
    """The parameters of the loops, from the tensors of the layers."""

    def __init__(self, code: LayerCode):
        graph = code.prepared.graph
        inputs = graph.find_nodes(op="placeholder")
        self.shapes = code.shapes
        self.nodes = results(graph)
        self.slots, at = [], 1
        for _ in self.nodes:
            self.slots.append(at)
            at += len(code.shapes[at])
        index = {node: k for k, node in enumerate(inputs)}
        self.needs: list[set[int]] = []
        self.direct: list[tuple[int, bool] | None] = []
        for node in self.nodes:
            turned = node.target is aten.t.default
            source = node.args[0] if turned else node
            self.direct.append((index[source], turned) if source in index else None)
            left, seen = [node], set()
            while left:
                each = left.pop()
                if each not in seen:
                    seen.add(each)
                    left += each.all_input_nodes
            self.needs.append({index[each] for each in seen if each in index})
        self.mapped = [
            None if direct else torch.vmap(extract(code.prepared, inputs, node))
            for node, direct in zip(self.nodes, self.direct, strict=True)
        ]

    def values(self, tensors: Sequence[Tensor], whole: bool) -> list[Tensor]:
        """Each (layers, ...) or, unless `whole`, (1, ...) where all layers have the same."""
        rows = [x[:1] if is_joint(x) and not whole else x for x in tensors]
        found = []
        for needs, direct, mapped in zip(self.needs, self.direct, self.mapped, strict=True):
            source = rows if all(len(rows[k]) == 1 for k in needs) else tensors
            if direct is not None:
                k, turned = direct
                found.append(source[k].mT if turned else source[k])
            elif source is rows:
                found.append(mapped(*[x[:1] for x in rows]))  # type: ignore[misc]
            else:
                found.append(mapped(*tensors))  # type: ignore[misc]
        return found

    def shaped(self, tensors: Sequence[Tensor], whole: bool) -> list[Tensor]:
        """As the loops have them: a number may stand for each row of a vector."""
        pairs = zip(self.values(tensors, whole), self.slots, strict=True)
        shaped = []
        for value, slot in pairs:
            shape = self.shapes[slot]
            if len(shape) == 1:
                value = value.reshape(len(value), -1).expand(len(value), *shape)
            shaped.append(value)
        return shaped

    def packed(self, tensors: Sequence[Tensor], pool: list[Tensor]) -> tuple[_Memory, np.ndarray]:
        """All parameters in one array, and where each begins and goes on for the next layer."""
        with torch.no_grad():
            steps = tensors[-1]
            steps = steps[:1] if is_joint(steps) else steps
            parts: list[Tensor] = [steps]
            for value in self.shaped(tensors, whole=False):
                parts += [value, value.mT] if value.dim() == 3 else [value]
            at, end = np.zeros((len(parts), 2), np.int64), 0
            for k, part in enumerate(parts):
                at[k] = end, part[0].numel() if len(part) > 1 else 0
                end += part.numel()
            memory = _Memory(pool, end, steps.dtype)
            for (first, _), part in zip(at, parts, strict=True):
                memory.numbers[first : first + part.numel()].view(part.shape).copy_(part)
        return memory, at

    def pull(
        self, tensors: Sequence[Tensor], of_parameters: dict[int, Tensor], of_steps: Tensor
    ) -> list[Tensor | None]:
        """The gradients by the tensors of the layers; None by those that cannot have one."""
        leaves = [
            x.detach().requires_grad_() if x.is_floating_point() else x.detach() for x in tensors
        ]
        wanted = [x for x in leaves if x.requires_grad]
        with torch.enable_grad():
            shaped = self.shaped(leaves, whole=True)
        pairs = [
            (value, of_parameters[slot])
            for value, slot in zip(shaped, self.slots, strict=True)
            if value.requires_grad and slot in of_parameters
        ]
        found: Any = iter([None] * len(wanted))
        if pairs:
            values, gradients = zip(*pairs, strict=True)
            found = iter(torch.autograd.grad(values, wanted, gradients, allow_unused=True))
        every = [next(found) if x.requires_grad else None for x in leaves]
        every[-1] = of_steps if every[-1] is None else every[-1] + of_steps
        return every
