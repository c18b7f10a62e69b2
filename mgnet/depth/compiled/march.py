"""Serial propagation by the compiled loops: buffers, parameters, adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgnet.depth.compiled.layer_code import LayerCode
from mgnet.depth.compiled.layout import Block, Layout, Sums, blocks_of, kept_values, operations_of
from mgnet.depth.compiled.parameters import Memory, Prepared
from mgnet.threads import share

__all__ = ["CompiledMarch", "MarchedLayers", "PackedLayers", "Place"]

BYTES = 64  # of a vector
GROUPS = 16  # number of groups of parts with separate sums; each needs memory


@dataclass(frozen=True, eq=False)
class Place:
    """Positions of the parts of a block in the memory of a pass; each part has `size` numbers."""

    block: Block
    layout: Layout
    first: int


class CompiledMarch:
    """The layers of a block in compiled loops.

    Parameters
    ----------
    code : LayerCode
        The operations of a layer.
    dtype : torch.dtype
        Precision, float32 or float64.
    adds : bool
        Whether the slope, times the step, is added to the state; otherwise it replaces the state.
    of_all : bool
        Whether adjoints of all states are needed.

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
        self.operations, self.empty = operations_of(code)
        kind = np.float32 if dtype == torch.float32 else np.float64
        self.numbers = np.array(code.numbers, kind).reshape(-1, 2)
        self.prepared = Prepared(code)
        self.given = [k for k, value in enumerate(code.values) if value.given]
        self._layouts: dict[Any, Layout] = {}

    def layout(
        self,
        layers: int,
        S: int,
        wanted: frozenset[int] | None,
        counts: tuple[int, ...],
        rows: bool = False,
    ) -> Layout:
        """The positions of all values and adjoints.

        The arguments are the numbers of layers and samples; the parameters whose gradients are
        needed, or None without a backward pass; the numbers of rows of given values; and whether
        there is space for terms added to each adjoint even without `of_all`.
        """
        key = layers, S, wanted, counts, rows
        found = self._layouts.get(key)
        if found is None:
            if len(self._layouts) >= 64:
                self._layouts.clear()
            given = dict(zip(self.given, counts, strict=True))
            kept = None if wanted is None else kept_values(self.code, wanted)
            found = self._layouts[key] = Layout(
                self.code, self.empty, layers, S, kept, given, self.lanes, self.of_all or rows
            )
        return found

    def kept(self, wanted: Sequence[bool]) -> float:
        """Size of a layer's data for gradients with respect to these tensors, in states."""
        kept = kept_values(self.code, self.prepared.wanted(wanted))
        return sum(self.code.values[k].rows for k in kept) / self.width

    def forward(
        self,
        tensors: Sequence[Tensor],
        u: Tensor,
        record: bool,
        joint: bool = False,
        wanted: Sequence[bool] | None = None,
    ) -> MarchedLayers:
        """Process all layers.

        Parameters
        ----------
        tensors : sequence of Tensor
            Tensors of the layers, from `Layers.tensors()`; if all layers share a tensor, its shape
            may be (1, ...).
        u : Tensor of shape (batch, ..., features)
            The state before the layers.
        record : bool
            Whether gradients will be needed later.
        joint : bool
            Whether all layers share all parameters, each of shape (1, ...), and no parameter is
            combined with a tensor that differs between layers. If so, `backward` can continue the
            sums of other layers.
        wanted : sequence of bool, optional
            The tensors with respect to which gradients are needed; by default, all tensors of real
            numbers.
        """
        layers = PackedLayers(self, tensors, joint, wanted)
        return self.through(layers, 0, layers.count, u, record)

    def places(
        self, layers: PackedLayers, count: int, u: Tensor, record: bool
    ) -> tuple[list[Place], int]:
        """Positions of the parts of a batch, for this number of layers, and their total size."""
        of_loops = self.prepared.wanted(layers.wanted) if record else None
        places, size, samples = [], 0, u.numel() // self.width
        rows = max(value.rows for value in self.code.values)
        counts = tuple([count if len(x) == layers.count else 1 for x in layers.given])
        for block in blocks_of(samples, self.lanes, rows):
            layout = self.layout(count, block.S, of_loops, counts)
            places.append(Place(block, layout, size))
            size += block.parts * layout.size
        return places, size

    def through(
        self,
        layers: PackedLayers,
        first: int,
        last: int,
        u: Tensor,
        record: bool,
        memory: Memory | None = None,
    ) -> MarchedLayers:
        """Process layers first .. last - 1, from the state before them.

        The given memory is used if it is large enough; otherwise new memory is allocated.
        """
        places, size = self.places(layers, last - first, u, record)
        with torch.no_grad():
            given = [x if len(x) < layers.count else x[first:last] for x in layers.given]
            memory = Memory(size, self.dtype) if memory is None else memory
            marched = MarchedLayers(layers, first, last, places, memory, u)
            marched.put("at", 0, u[None])
            for k, value in zip(self.given, given, strict=True):
                marched.put("at", k, value)
        marched.forward()
        return marched


def _loops() -> Any:
    from mgnet.depth.compiled import loops  # numba takes a second to load

    return loops


class PackedLayers:
    """The tensors of layers, packed for the compiled loops, and the positions of their gradients.

    Parameters
    ----------
    march : CompiledMarch
        The compiled loops.
    tensors, joint, wanted
        The arguments of `CompiledMarch.forward`.

    Attributes
    ----------
    shared : int
        Size of the gradients with respect to the parameters that all layers share.
    """

    def __init__(
        self,
        march: CompiledMarch,
        tensors: Sequence[Tensor],
        joint: bool,
        wanted: Sequence[bool] | None,
    ):
        self.march, self.tensors, self.joint, self.count = march, tensors, joint, len(tensors[-1])
        self.wanted = [x.is_floating_point() for x in tensors] if wanted is None else wanted
        with torch.no_grad():
            values, self.given = march.prepared.shaped(tensors, whole=False)
            self.parameters, self.at = march.prepared.packed(tensors[-1], values)
            self.shared = self.sums(values).shared if joint else 0

    def leaves(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The tensors as leaves of a graph, and the loops' values, which are computed from them."""
        return self.march.prepared.leaves(self.tensors, self.wanted)

    def sums(self, values: Sequence[Tensor]) -> Sums:
        """Positions of the gradients with respect to `values`, the parameters of the loops."""
        prepared = self.march.prepared
        pairs = [(0, self.count), *zip(prepared.slots, map(len, values), strict=True)]
        wanted = prepared.wanted(self.wanted)
        counts = {slot: count for slot, count in pairs if slot in wanted}
        of_tensors = set(range(len(self.tensors) - 2))
        shared = [
            slot
            for slot, needs in zip(prepared.slots, prepared.needs, strict=False)
            if self.joint and slot in counts and needs & of_tensors
        ]
        return Sums(self.march.code, counts, self.march.lanes, shared)

    def pull(self, leaves: Any, sums: Sums, found: Tensor, of_given: Sequence[Tensor]) -> list[Any]:
        """Gradients of the tensors, computed from those of the parameters and given values."""
        prepared, (tensors, values, given) = self.march.prepared, leaves
        total = found[0] if len(found) == 1 else found.sum(0)
        of_parameters = {p: sums.of(total, p) for p in prepared.slots if p in sums.counts}
        pulled = prepared.pull(tensors, values, given, of_parameters, of_given)
        if 0 in sums.counts:
            of_steps = sums.of(total, 0)
            pulled[-1] = of_steps if pulled[-1] is None else pulled[-1] + of_steps
        return pulled


class MarchedLayers:
    """Layers that were processed, and their adjoint."""

    def __init__(
        self,
        packed: PackedLayers,
        first: int,
        last: int,
        places: Sequence[Place],
        memory: Memory,
        u: Tensor,
    ):
        self.march, self.packed, self.places, self.memory = packed.march, packed, places, memory
        self.par_at = _from(packed.at, first)
        self.shape, self.first, self.layers = u.shape, first, last - first
        self.parts = [  # the memory of each, and the positions in it
            (memory.numbers[first : first + layout.size].numpy(), layout, block.S)
            for block, layout, begin in [(x.block, x.layout, x.first) for x in places]
            for first in range(begin, begin + block.parts * layout.size, layout.size)
        ]

    def _rows(self, place: Place, table: str, k: int, count: int, skip: int = 0) -> Tensor:
        """Value k, or its adjoint, in `count` layers: (parts, count, rows, S); a view."""
        layout, block, rows = place.layout, place.block, self.march.code.values[k].rows
        if table == "source":
            first, stride = layout.source, rows * block.S
        else:
            first, stride = map(int, getattr(layout, table)[k])
        return self.memory.numbers.as_strided(
            (block.parts, count, rows, block.S),
            (layout.size, stride, block.S, 1),
            place.first + first + skip * stride,
        )

    def put(self, table: str, k: int, value: Tensor) -> None:
        """Write (count, batch, ..., rows) as rows of samples of the first layers."""
        count, rows = len(value), self.march.code.values[k].rows
        value = value.reshape(count, -1, rows)
        for place in self.places:
            block, into = place.block, self._rows(place, table, k, count)
            some = value[:, block.first : block.first + block.samples]
            if block.samples < block.S:
                into[0, ..., : block.samples] = some.mT
                # Vectors must be full. They are padded with the first sample, which overflows only
                # if that sample does. For adjoints, the padding is 0.
                rest = into[..., :1] if table == "at" else 0.0
                into[..., block.samples :] = rest
            else:
                into.copy_(some.view(count, block.parts, block.S, rows).permute(1, 0, 3, 2))

    def get(self, table: str, k: int, count: int, skip: int = 0) -> Tensor:
        """Value k, or its adjoint, in `count` layers after the first: (count, batch, rows)."""
        found = []
        for place in self.places:
            rows = self._rows(place, table, k, count, skip).permute(1, 0, 3, 2)
            found.append(rows.flatten(1, 2)[:, : place.block.samples])
        return torch.cat(found, 1)  # a copy: the memory may be reused before the caller reads it

    def forward(self) -> None:
        """March over the layers, starting from the state at the position of layer 0."""
        march, par = self.march, self.packed.parameters.numbers.numpy()
        loop = _loops().forward
        about = march.code.slope, march.adds, march.width, self.layers

        def some(start: int, stop: int) -> None:
            for mem, layout, S in self.parts[start:stop]:
                table = march.operations, march.numbers, layout.at
                loop(*table, par, self.par_at, mem, False, *about, S, march.lanes)

        share(some, len(self.parts), torch.get_num_threads())

    def last(self) -> Tensor:
        """The state after all layers."""
        return self.get("at", 0, 1, self.layers).reshape(self.shape)

    def states(self) -> Tensor:
        """The states after each layer of a recorded pass, (layers, batch, ..., features)."""
        return self.get("at", 0, self.layers, 1).reshape(self.layers, *self.shape)

    def adjoint(self, gradient: Tensor) -> tuple[Tensor, list[Any]]:
        """The gradients with respect to the state before all layers, and to their tensors.

        Parameters
        ----------
        gradient : Tensor
            The gradient with respect to the state after all layers or, if `of_all`, to the states
            after each layer.
        """
        start, _, found = self.returned(gradient, self.before())
        return start, found

    def before(self) -> Tensor:
        """Zeros to start the sums over layers, for parameters that all layers share."""
        return self.memory.numbers.new_zeros(self.groups, self.packed.shared)

    def returned(self, gradient: Tensor, before: Tensor) -> tuple[Tensor, Tensor, list[Any]]:
        """Like `adjoint`, but add to the sums of later layers, and return the new sums."""
        leaves = self.packed.leaves()
        sums = self.packed.sums(leaves[1])
        found = self.memory.numbers.new_zeros(self.groups, sums.size)
        found[:, : sums.shared] = before
        with self.memory.lock:
            start, of_given = self.backward(gradient, sums, found), self.of_given(leaves[2])
        return start, found[:, : sums.shared], self.packed.pull(leaves, sums, found, of_given)

    def backward(self, gradient: Tensor, sums: Sums, found: Tensor) -> Tensor:
        """The gradient with respect to the first state; parameter gradients are added to `found`.

        The argument `gradient` is the same as in `adjoint`, `sums` contains the positions for all
        packed layers, and `found`, of shape (groups, sums.size), has one row per group of samples.
        """
        march, par = self.march, self.packed.parameters.numbers.numpy()
        loop, sums_at = _loops().backward, _from(sums.at, self.first)
        self.put(
            "source" if march.of_all else "of", 0, gradient if march.of_all else gradient[None]
        )
        if march.of_all:
            for place in self.places:
                self._rows(place, "of", 0, 1).zero_()
        groups = self.groups
        rows, about = found.numpy(), (march.code.slope, march.adds, march.width, self.layers)

        def some(start: int, stop: int) -> None:
            for k in range(start, stop):
                ends = [len(self.parts) * g // groups for g in (k, k + 1)]
                for mem, layout, S in self.parts[slice(*ends)]:
                    source = layout.source if march.of_all else -1
                    tables = layout.at, layout.of, layout.empty, source, -1, 0, layout.turned
                    loop(
                        march.operations, march.numbers, *tables, par, self.par_at, mem, rows[k],
                        sums_at, *about, S, march.lanes,
                    )  # fmt: skip

        share(some, groups, torch.get_num_threads())
        return self.get("of", 0, 1).reshape(self.shape)

    @property
    def groups(self) -> int:
        """The number of rows of sums, one for each group of samples."""
        return min(len(self.parts), GROUPS)

    def of_given(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The gradients with respect to the values `given`, which are for all packed layers."""
        found = []
        for k, value in zip(self.march.given, given, strict=True):
            gradient = self.get("of", k, self.layers)
            if len(value) < self.packed.count:
                gradient = gradient.sum(0, keepdim=True)
            found.append(gradient.reshape(-1, *value.shape[1:]))
        return found


def _from(table: np.ndarray, first: int) -> np.ndarray:
    """The offsets in a table for a layer after the first."""
    return table + table[:, 1:] * (first, 0)
