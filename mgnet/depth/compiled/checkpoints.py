"""Serial propagation that stores few states and recomputes the rest in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from mgnet.depth.compiled.march import CompiledMarch, PackedLayers
from mgnet.depth.compiled.parameters import Memory

__all__ = ["CheckpointedLayers", "segment_ends"]

MOST = 3.0  # stored states, in units of the square root of the number of layers, if possible
FREE = 2**20  # bytes of states that are always stored: fewer would cost time without benefit


def segment_ends(layers: int, kept: float, size: int = FREE) -> list[int]:
    """Choose the ends of segments of layers so that the backward pass needs little memory.

    The states before all segments are stored. From the last segment to the first, the backward pass
    recomputes the data of a segment, and then drops the state before that segment. Late segments
    are therefore short, because many states are still stored when they are recomputed.

    Parameters
    ----------
    layers : int
        Number of layers.
    kept : float
        Size of a layer's data for its adjoint, in states.
    size : int
        Size of a state in bytes.

    Returns
    -------
    list of int
        The ends, from 0 to `layers`. At most `3 sqrt(layers)` states are stored at a time if `kept`
        is at most 4.5, else about `sqrt(2 kept layers)`. If 1 MiB holds more states, that many are
        stored.

    Examples
    --------
    >>> segment_ends(100, 1.0)
    [0, 29, 57, 84, 100]
    >>> segment_ends(3, 10.0)
    [0, 1, 2, 3]
    """
    if layers < 1:
        return [0]
    held = max(MOST * math.sqrt(layers), math.sqrt(2.0 * kept * layers), FREE / size)
    while True:
        ends, length = [0], 1
        while ends[-1] < layers and length:
            length = int((held - len(ends)) / kept)
            ends.append(ends[-1] + length)
        if ends[-1] >= layers:
            return [*ends[:-1], layers]
        held = max(1.01 * held, held + 1.0, kept + len(ends))


class CheckpointedLayers:
    """Layers that a compiled loop has processed, with states stored only at checkpoints.

    Parameters
    ----------
    march : CompiledMarch
        The compiled loops.
    tensors, u, joint, wanted
        The arguments of `CompiledMarch.forward`.

    Examples
    --------
    >>> import torch
    >>> from mgnet.depth import LayerParallel, ODENet
    >>> net, u = ODENet(torch.nn.Linear(2, 2), 100), torch.ones(5, 2)
    >>> frugal = LayerParallel(net, levels=1, memory="checkpoints")
    >>> frugal(u).sum().backward()
    >>> torch.allclose(frugal(u), net(u), atol=1e-6)
    True
    """

    def __init__(
        self,
        march: CompiledMarch,
        tensors: Sequence[Tensor],
        u: Tensor,
        joint: bool,
        wanted: Sequence[bool],
    ):
        self.march, self.start = march, u
        self.packed = PackedLayers(march, tensors, joint, wanted)
        self.ends = segment_ends(self.packed.count, max(march.kept(wanted), 1.0), u.nbytes)
        self.states: list[Tensor] = []  # states before each segment
        self._end = self._through()

    def last(self) -> Tensor:
        """The state after all layers."""
        return self._end

    def before(self) -> Tensor:
        """Implement `MarchedLayers.before`."""
        return self.march.through(self.packed, 0, 1, self.start, record=False).before()

    def returned(self, gradient: Tensor, before: Tensor) -> tuple[Tensor, Tensor, list[Any]]:
        """Implement `MarchedLayers.returned`."""
        with self.packed.parameters.lock:
            return self._returned(gradient, before)

    def _returned(self, gradient: Tensor, before: Tensor) -> tuple[Tensor, Tensor, list[Any]]:
        if not self.states:  # an earlier backward pass has dropped them
            self._through()
        packed = self.packed
        leaves = packed.leaves()
        sums, of_given = packed.sums(leaves[1]), [x.new_zeros(x.shape) for x in leaves[2]]
        found = before.new_zeros(len(before), sums.size)
        found[:, : sums.shared] = before
        memory = self._memory(record=True)
        for first, last in reversed([*pairwise(self.ends)]):
            state = self.states.pop()
            marched = self.march.through(packed, first, last, state, True, memory)
            gradient = marched.backward(gradient, sums, found)
            for whole, part in zip(of_given, marched.of_given(leaves[2]), strict=True):
                whole[slice(None) if len(whole) < packed.count else slice(first, last)] += part
        return gradient, found[:, : sums.shared], packed.pull(leaves, sums, found, of_given)

    def _through(self) -> Tensor:
        state, memory = self.start, self._memory(record=False)
        for first, last in pairwise(self.ends):
            self.states.append(state)
            state = self.march.through(self.packed, first, last, state, False, memory).last()
        return state

    def _memory(self, record: bool) -> Memory:
        """Memory that is large enough for any segment; the first segment is the longest."""
        return Memory(
            self.march.places(self.packed, self.ends[1], self.start, record)[1], self.march.dtype
        )
