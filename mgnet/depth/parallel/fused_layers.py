"""Coarse layers that add all slopes of an interval, evaluated at the interval's first state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.tape import Tape

__all__ = ["FusedLayers", "FusedTape"]


class FusedLayers:
    """Coarse layers `u + sum_j s_j F(t_j, u; theta_j)`, where j runs over the represented layers.

    They are consistent with the layers that they represent even if the weights of those layers
    differ strongly or the slope contains products of weights, as in attention. A coarse layer costs
    one evaluation for each layer that it represents, all in one batched call.

    Parameters
    ----------
    kernel : StackedBlock
        The block, which evaluates many layers in one call.
    fine : Layers
        All layers of the finest level.
    stride : int
        Number of fine layers per coarse layer; the last coarse layer may have fewer.

    Attributes
    ----------
    steps : Tensor
        Ones, because the slopes contain the steps.

    Examples
    --------
    >>> fine = Layers((torch.tensor([1.0, 3.0]).reshape(2, 1, 1),), (), *torch.ones(2, 2))
    >>> fused = FusedLayers(StackedBlock(torch.nn.Linear(1, 1, bias=False)), fine, 2)
    >>> fused.bound_slope(slice(0, 1), torch.ones(1, 1, 1))(torch.ones(1, 1, 1))
    tensor([[[4.]]])
    """

    def __init__(self, kernel: StackedBlock, fine: Layers, stride: int):
        self.kernel = kernel
        self.fine = fine
        self.stride = stride
        self.steps = torch.ones_like(fine.steps[::stride])
        self._scales: dict[tuple[int, ...], Tensor] = {}

    def __len__(self) -> int:
        return len(self.steps)

    def bound_slope(self, which: slice, states: Tensor) -> Callable[[Tensor], Tensor]:
        """Return `states -> sum_j s_j F_j(state)` for coarse layers `which`; see `StackedBlock`."""
        parts = self._parts(which)
        if len(range(len(self))[which]) == 1 or which.step in (1, None):
            return self._together(parts, states)
        runs = [
            (self.kernel.bound_slope(self.fine[part], states[:count]), self._scale(part, states))
            for part, count in parts
        ]

        def slope(states: Tensor) -> Tensor:
            return _sum([scale * run(states[: len(scale)]) for run, scale in runs])

        return slope

    def _together(
        self, parts: Sequence[tuple[slice, int]], states: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """Evaluate all the fine layers, which are consecutive, in one call."""
        fine = slice(parts[0][0].start, 1 + max(range(len(self.fine))[p][-1] for p, _ in parts))
        count, c = fine.stop - fine.start, self.stride
        run = self.kernel.bound_slope(self.fine[fine], self._repeated(states, count))
        scale = self._scale(fine, states)

        def slope(states: Tensor) -> Tensor:
            value = scale * run(self._repeated(states, count))
            return _sum([value[j::c] for j in range(min(c, count))])

        return slope

    def slopes(self, start: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """The `bound_slope` of each coarse layer, for a state like `start`, with a layer axis."""
        return [self.bound_slope(slice(n, n + 1), start) for n in range(len(self))]

    def record(self, states: Tensor) -> FusedTape:
        """Evaluate all coarse layers and store the data for their vector-Jacobian products."""
        count, c = len(self.fine), self.stride
        tape = self.kernel.record(self.fine, self._repeated(states, count))
        value = self._scale(slice(0, count), states) * tape.value
        return FusedTape(self, tape, _sum([value[j::c] for j in range(min(c, count))]))

    def _repeated(self, states: Tensor, count: int) -> Tensor:
        """The state repeated for each fine layer."""
        return states.repeat_interleave(self.stride, 0)[:count]

    def _parts(self, which: slice) -> list[tuple[slice, int]]:
        """The fine layers at offset j = 0, 1, ... of these coarse layers, and their number."""
        c, n = self.stride, len(self.fine)
        start, stop, step = which.indices(len(self))
        parts = [slice(start * c + j, min((stop - 1) * c + j + 1, n), step * c) for j in range(c)]
        counted = [(part, len(range(n)[part])) for part in parts]
        return [each for each in counted if each[1]]

    def _scale(self, part: slice, states: Tensor) -> Tensor:
        """The step sizes of fine layers, reshaped to multiply states."""
        key = part.start, part.stop, part.step or 1, states.dim()
        found = self._scales.get(key)
        if found is None:
            shape = -1, *(1,) * (states.dim() - 1)
            found = self._scales[key] = self.fine[part].steps.reshape(shape)
        return found


class FusedTape:
    """The tape of fused layers, based on the tape of the fine layers that they represent.

    Parameters
    ----------
    layers : FusedLayers
        The fused layers.
    tape : Tape
        The tape of all their fine layers.
    value : Tensor
        The slopes of the fused layers.
    which : slice, optional
        The fused layers of this tape; all by default.

    Examples
    --------
    >>> fine = Layers((torch.tensor([1.0, 3.0]).reshape(2, 1, 1),), (), *torch.ones(2, 2))
    >>> fused = FusedLayers(StackedBlock(torch.nn.Linear(1, 1, bias=False)), fine, 2)
    >>> fused.record(torch.ones(1, 1, 1)).vjp(torch.ones(1, 1, 1))
    tensor([[[4.]]])
    """

    linear = True  # for any block: steps are ones, and cotangents are scaled here

    def __init__(self, layers: FusedLayers, tape: Tape, value: Tensor, which: slice | None = None):
        self.layers = layers
        self.tape = tape
        self.value = value
        self.which = slice(0, len(layers), 1) if which is None else which

    def vjp(self, lam: Tensor) -> Tensor:
        """Return `(d slope / d state)^T lam`, like `Tape.vjp`."""
        layers = self.layers
        if len(lam) == 1 or self.which.step == 1:
            c, n = layers.stride, len(layers.fine)
            fine = slice(self.which.start * c, min((self.which.start + len(lam)) * c, n))
            count = fine.stop - fine.start
            scaled = layers._scale(fine, lam) * layers._repeated(lam, count)
            value = self.tape[fine].vjp(scaled)
            return _sum([value[j::c] for j in range(min(c, count))])
        return _sum(
            [
                self.tape[part].vjp(layers._scale(part, lam) * lam[:count])
                for part, count in layers._parts(self.which)
            ]
        )

    def __getitem__(self, which: slice) -> FusedTape:
        """The tape of some of the fused layers, without an evaluation."""
        numbers = range(len(self.layers))[self.which][which]
        chosen = slice(numbers.start, numbers.stop, numbers.step)
        return FusedTape(self.layers, self.tape, self.value[which], chosen)

    def vjp_each(self, lam: Tensor) -> Sequence[Callable[[Tensor], Tensor]]:
        """The `vjp` of each fused layer alone."""
        return [self[n : n + 1].vjp for n in range(len(self.value))]


def _sum(terms: Sequence[Tensor]) -> Tensor:
    """Add terms one by one, so that the order is fixed; some terms may be shorter."""
    total = terms[0]
    for term in terms[1:]:
        if len(term) == len(total):
            total = total + term
        else:
            total = torch.cat([total[: len(term)] + term, total[len(term) :]])
    return total
