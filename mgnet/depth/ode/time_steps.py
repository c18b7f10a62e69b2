"""The steps of a time grid as the layers of a net with shared weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.mgrit.communicator import Communicator, SerialCommunicator
from mgnet.depth.network.layer_stack import LayerSlots
from mgnet.depth.parallel.shared_weights import layers_of, spreading, with_side_inputs

__all__ = ["TimeSteps"]


@dataclass(eq=False)
class TimeSteps:
    """The interface of an `ODENet` that propagation uses, for a right-hand side on a time grid.

    The weights are those of the right-hand side itself, not copies.

    Parameters
    ----------
    kernel : StackedBlock
        The calls of the right-hand side.
    points : Tensor of shape (N + 1,)
        Points of the time grid, in the precision of the states.
    steps_of_all : Tensor of shape (N,)
        Step sizes of all steps.
    kept : range
        The steps of this process.

    Examples
    --------
    >>> from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
    >>> from mgnet.depth.ode.right_hand_side import RightHandSide
    >>> from mgnet.depth.ode.state_tree import StateTree
    >>> side = RightHandSide(lambda t, y: -y, StateTree.of(torch.ones(1)))
    >>> steps = TimeSteps.of(StackedBlock(side), torch.tensor([0.0, 1.0, 3.0]))
    >>> _, layers = steps.layers(SERIAL_COMMUNICATOR, 1)
    >>> layers.times, layers.steps
    (tensor([0., 1.]), tensor([1., 2.]))
    """

    kernel: StackedBlock
    points: Tensor
    steps_of_all: Tensor
    kept: range
    weights: str = field(default="shared", init=False)
    layer_inputs: Sequence[str] = field(default=("shift",), init=False)
    shared_buffers: Sequence[str] = field(default=(), init=False)
    opening: Sequence[Any] = field(default=(), init=False)
    learnable_steps: None = field(default=None, init=False)

    @classmethod
    def of(
        cls, kernel: StackedBlock, points: Tensor, dtype: torch.dtype | None = None
    ) -> TimeSteps:
        """Create the steps between the points of a grid, in this precision, all in one process."""
        lengths = (points[1:] - points[:-1]).to(dtype or points.dtype)
        return cls(kernel, points.to(lengths.dtype), lengths, range(len(lengths)))

    @property
    def depth(self) -> int:
        """The number of steps, N."""
        return len(self.steps_of_all)

    @property
    def times(self) -> Tensor:
        """The start time of each step of this process."""
        return self.points.detach()[self.kept.start : self.kept.stop]

    @property
    def steps(self) -> Tensor:
        """The step sizes of this process's steps."""
        return self.steps_of_all[self.kept.start : self.kept.stop]

    @property
    def block(self) -> Any:
        """The right-hand side."""
        return self.kernel.template

    def slots(self) -> _Tensors:
        """The tensors of the right-hand side, with an axis for the steps."""
        return _Tensors(self.block)

    def own_buffers(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The buffers of the right-hand side for each step of this process; views."""
        return tuple([x.expand(len(self.kept), *x.shape[1:]) for x in tensors])

    def state_dict(self, keep_vars: bool) -> dict[str, Any]:
        """The `state_dict` of the right-hand side, with the names that error messages use."""
        found = self.block.state_dict(keep_vars=keep_vars)
        return {f"block.{name}": value for name, value in found.items()}

    def layers(self, communicator: Communicator, interval: int) -> tuple[StackedBlock, Layers]:
        """The block and the layers of this process's steps, differentiable.

        Gradients with respect to the times, if needed, pass through the step sizes and through
        zeros added to the start time of each step.
        """
        net: Any = self
        if not self.points.requires_grad and isinstance(communicator, SerialCommunicator):
            parameters, buffers = self.slots().tensors()
            both = self.own_buffers(parameters), self.own_buffers(buffers)
            return self.kernel, Layers(*both, self.times, self.steps)
        if not self.points.requires_grad:
            return self.kernel, layers_of(net, communicator, interval)
        left = self.points[:-1]
        return with_side_inputs(net, {"shift": left - left.detach()}, communicator, interval)

    def spread(
        self, communicator: Communicator, interval: int
    ) -> Callable[[Sequence[Tensor]], Sequence[Tensor]] | None:
        """The map from shared weights to this process's steps; None if times need gradients."""
        if self.points.requires_grad:
            return None
        if isinstance(communicator, SerialCommunicator):
            return self.own_buffers
        net: Any = self
        return spreading(net, communicator, interval, {})


class _Tensors:
    def __init__(self, block: torch.nn.Module):
        self._slots = LayerSlots(block)

    def tensors(self) -> tuple[list[Tensor], list[Tensor]]:
        parameters, buffers = self._slots.tensors()
        return [x[None] for x in parameters], [x[None] for x in buffers]
