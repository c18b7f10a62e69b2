"""The data that `LayerParallel` keeps between calls: the layers of every level, and hierarchies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.tape import Tape
from mgnet.depth.mgrit.communicator import (
    SERIAL_COMMUNICATOR,
    Communicator,
    Gathered,
    SerialCommunicator,
)
from mgnet.depth.mgrit.layer_hierarchy import layer_levels, posed
from mgnet.depth.parallel.coarse_layers import (
    coarse_layers,
    layers_of_all,
    renew,
    renew_means,
    shares_of,
    sums,
)
from mgnet.depth.parallel.fused_layers import FusedLayers, FusedTape
from mgnet.depth.parallel.layer_jacobians import backward_jacobians, work_of
from mgnet.depth.parallel.method import MGRITMethod
from mgnet.depth.parallel.turns import in_turn, summed
from mgnet.hierarchy import Hierarchy

__all__ = ["PropagationSetup", "detached"]

HIERARCHIES = 256  # largest number kept, for states of different shapes
STEPS = 2048  # largest number of slices of steps kept, for states of different shapes


class PropagationSetup:
    """The layers of every level, and the two hierarchies over them for each shape of states.

    A setup is kept between calls. Its tensors are views of the network's own tensors, so they
    change with an optimizer's step; `refresh` updates the coarse layers. This class is the forward
    `Propagator`.

    Parameters
    ----------
    kernel : StackedBlock
        The block, which evaluates many layers in one call.
    method : MGRITMethod
        The levels and cycles.
    levels : list of Layers or FusedLayers
        The layers of each level, finest first, followed by those of the gathered level if there is
        one. For identity coarse layers, which have no tensors, only their number is stored.
    communicator : Communicator
        The processes that hold other layers, if there are any.
    gathered : Gathered or None
        The position of this process in the gathered level.
    shares : list of Tensor or None
        For each coarse level, the coefficients of the means; None if steps change between calls.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(2, 2), 8)
    >>> method = MGRITMethod.from_texts((4,), "V", "V", ("F",))
    >>> setup = PropagationSetup.of(net.kernel, detached(net.layers()), method)
    >>> [len(layers) for layers in setup.levels]
    [8, 2]
    """

    reverse = False

    def __init__(
        self,
        kernel: StackedBlock,
        method: MGRITMethod,
        levels: list[Layers | FusedLayers],
        communicator: Communicator,
        gathered: Gathered | None,
        shares: list[Tensor] | None,
    ):
        self.kernel = kernel
        self.method = method
        self.fine: Layers = levels[0]  # type: ignore[assignment]
        self.levels = levels
        self.communicator = communicator
        self.gathered = gathered
        self.shares = shares
        self.count = len(levels[0])
        self._scales: dict[Any, Any] = {}
        self._steps: dict[Any, tuple[Callable[[Tensor], Tensor], Tensor]] = {}
        self.compiled: dict[Any, Any] = {}  # see `compiled_serial.py`
        # Hierarchies that are not in use by a solution.
        self._idle: OrderedDict[tuple[bool, tuple[int, ...]], Hierarchy] = OrderedDict()

    @classmethod
    def of(
        cls,
        kernel: StackedBlock,
        layers: Layers,
        method: MGRITMethod,
        communicator: Communicator = SERIAL_COMMUNICATOR,
        *,
        state_bytes: int = 0,
        fixed_steps: bool = False,
    ) -> PropagationSetup:
        """Create a setup with coarse layers; small coarsest levels are gathered on all processes.

        Parameters
        ----------
        kernel : StackedBlock
            The block, which evaluates many layers in one call.
        layers : Layers
            All N layers, whose tensors have no autograd graph.
        method : MGRITMethod
            The levels and cycles.
        communicator : Communicator
            The processes that hold other layers, if there are any.
        state_bytes : int
            Size of one state in bytes.
        fixed_steps : bool
            Whether the steps are constant between calls.
        """
        strides, first = method.strides, method.coarse != "mean"
        levels: list[Any] = [layers]
        for stride in strides[1:]:
            if method.coarse == "fused":
                levels.append(FusedLayers(kernel, layers, stride))
            else:
                levels.append(coarse_layers(layers, stride, kernel.stages, first))
        gathered = cls.place(layers, method, communicator, state_bytes)
        if gathered:
            levels.append(layers_of_all(levels[-1], communicator))
        shares = [shares_of(layers.steps, stride) for stride in strides[1:]]
        return cls(kernel, method, levels, communicator, gathered, shares if fixed_steps else None)

    @staticmethod
    def place(
        layers: Layers, method: MGRITMethod, communicator: Communicator, state_bytes: int
    ) -> Gathered | None:
        """The position in the gathered coarsest level; None if that level is not gathered."""
        if communicator is SERIAL_COMMUNICATOR or not method.factors or method.coarse == "fused":
            return None
        size = state_bytes + sum(prod(x.shape[1:]) * x.itemsize for x in layers.tensors())
        return communicator.gathered(size)

    def serves(self, state_bytes: int) -> bool:
        """Whether a setup for states of this size would be the same."""
        place = self.place(self.fine, self.method, self.communicator, state_bytes)
        return place == self.gathered

    def changes_buffers(self, u: Tensor) -> bool:
        """Whether a recorded sweep may change buffers, such as running statistics of batch norm."""
        fine = self.fine
        if not self.kernel.has_state:
            return False
        own = self.kernel.changes_buffers(fine, u[None])
        if isinstance(self.communicator, SerialCommunicator):
            return own
        # A process without layers makes the same choice as the other processes.
        return bool(self.communicator.gather(torch.full((1, min(len(fine), 1)), own)).any())

    def is_recorded(self, u: Tensor, steps: Tensor, parameters: Sequence[Tensor]) -> bool:
        """Whether autograd records a call with these inputs.

        Raises
        ------
        ValueError
            If recording is needed only because of a tensor from outside that the block uses.
        """
        if not torch.is_grad_enabled():
            return False
        recorded = any([tensor.requires_grad for tensor in (u, steps, *parameters)])
        if not recorded:
            self.kernel.check_gradients(self.fine, u.detach()[None])
        return recorded

    def refresh(self) -> None:
        """Recompute the coarse layers, because the fine layers are trained."""
        fine, kind = self.fine, self.method.coarse
        for number, stride in enumerate(self.method.strides[1:]):
            coarse: Any = self.levels[number + 1]
            if kind == "first":  # views of the fine ones, except for the steps
                coarse.steps.copy_(sums(fine.steps, stride))
            elif kind == "mean" and self.shares is None:
                renew(coarse, coarse_layers(fine, stride, self.kernel.stages))
            elif kind == "mean":
                renew_means(coarse, fine, stride, self.shares[number])  # type: ignore[index]
        if self.gathered and kind != "identity":
            own: Any = self.levels[-2:]
            renew(own[1], layers_of_all(own[0], self.communicator))

    @contextmanager
    def hierarchy(self, propagator: Any, initial: Tensor) -> Iterator[Hierarchy]:
        """A context with the levels of the forward or adjoint equation for one solution.

        A hierarchy serves one solution at a time: threads that call the module concurrently get
        separate hierarchies.

        Parameters
        ----------
        propagator : PropagationSetup or Adjoint
            The forward or adjoint steps.
        initial : Tensor
            The value at one point, as in `layer_hierarchy`.
        """
        key = propagator.reverse, tuple(initial.shape)
        kept = self._idle.pop(key, None)  # atomic: no other thread gets the same one
        if kept is None:
            method = self.method
            # Norms over all processes are not needed: `History` gathers them before a decision.
            kept = Hierarchy(
                layer_levels(
                    self.count,
                    initial.shape,
                    method.factors,
                    method.relaxation,
                    reverse=propagator.reverse,
                    c_points_only=True,
                    communicator=self.communicator,
                    gathered=self.gathered,
                    finest=method.sweep(propagator.reverse),
                )
            )
        with posed(kept, propagator, initial) as hierarchy:
            yield hierarchy
        self._idle[key] = kept
        while len(self._idle) > HIERARCHIES:
            self._idle.popitem(last=False)

    def scale(self, level: int, which: slice, states: Tensor) -> Tensor:
        """The steps of some layers, reshaped to multiply states."""
        key = level, which.start, which.stop, which.step, states.dim()
        found = self._scales.get(key)
        if found is None:
            steps = self.levels[level].steps[which]
            found = self._scales[key] = steps.reshape(-1, *(1,) * (states.dim() - 1))
        return found

    def scales(self, level: int, states: Tensor) -> Sequence[Tensor]:
        """The step of each layer of a level, reshaped to multiply a state."""
        key = level, states.dim()
        found = self._scales.get(key)
        if found is None:
            whole = self.scale(level, slice(0, len(self.levels[level])), states)
            found = self._scales[key] = whole.split(1)
        return found

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Compute forward steps of some layers of a level, all at once (`Propagator`)."""
        if level and self.method.coarse == "identity":
            return states
        key = level, which.start, which.stop, which.step, states.shape, states.dtype
        step = self._steps.get(key)
        if step is None:
            if len(self._steps) >= STEPS:
                self._steps.clear()
            layers = self.levels[level]
            if isinstance(layers, FusedLayers):
                slope = layers.bound_slope(which, states)
            else:
                slope = self.kernel.bound_slope(layers[which], states)
            step = self._steps[key] = slope, self.scale(level, which, states)
        slope, scale = step
        return torch.addcmul(states, scale, slope(states))

    def linearize(
        self, level: int, which: slice, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """Compute forward steps and their Jacobians for each sample; see `NewtonSweep`."""
        scale = self.scale(level, which, states)
        tape = self.kernel.record(self.fine[which], states)
        found = backward_jacobians(self.kernel, tape, scale, states, structure)
        new = torch.addcmul(states, scale, tape.value) if len(states) else states
        return new, found.mT if structure == "dense" else found

    def linearization_work(self, structure: str, states: Tensor) -> float:
        """The work of `linearize`, in evaluations and vector-Jacobian products of all layers."""
        return work_of(self.kernel, structure, states)

    def march(
        self, level: int, layers: int, start: Tensor, rows: Sequence[Tensor] | None, reverse: bool
    ) -> list[Tensor]:
        """Compute forward steps of the layers of a level one by one; see `march_by_advance`."""
        if not layers:  # other processes hold all layers
            return [start]
        if level and self.method.coarse == "identity":
            return summed(layers, start, rows)
        own = self.levels[level]
        if isinstance(own, FusedLayers):
            slopes: Sequence[Callable[[Tensor], Tensor]] = own.slopes(start)
        else:
            slopes = self.kernel.programs("slope", own, start)
            self.kernel.evaluations += self.kernel.stages * layers
        order = slice(None, None, -1 if reverse else 1)
        return in_turn(slopes[order], self.scales(level, start)[order], start, rows)

    def record(self, level: int, states: Tensor) -> Tape | FusedTape:
        """Record the tape of all layers of this process on a coarser level."""
        layers = self.levels[level]
        if isinstance(layers, FusedLayers):
            return layers.record(states)
        return self.kernel.record(layers, states)


def detached(layers: Layers) -> Layers:
    """The same layers, whose tensors have no autograd graph."""
    return Layers(
        tuple(x.detach() for x in layers.parameters),
        tuple(x.detach() for x in layers.buffers),
        layers.times.detach(),
        layers.steps.detach(),
    )
