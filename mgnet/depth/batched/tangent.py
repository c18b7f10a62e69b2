"""Layers together with their derivative in one direction, as another block.

`u+ = u + s F(u; theta)` and its tangent `w+ = w + s (F_u w + F_theta b) + b_s F` are a layer of the
state (u, w). Every way to propagate through layers, serial or by multigrid, thus works for
derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.batched.block import StackedBlock

__all__ = ["TangentBlock"]


class TangentBlock(StackedBlock):
    """The block of states (u, w), stacked on axis 0, where w is the derivative of u in a direction.

    The parameters of this block are those of the given block, followed by the direction in which
    they change. PyTorch computes the derivative from a vector-Jacobian product, so it is as often
    differentiable as the given block is.

    Parameters
    ----------
    block : StackedBlock
        The block; it may be a `TangentBlock`, for derivatives of higher order.
    with_steps : bool
        Whether the steps also change. Each layer then has one more parameter: the factor by which
        its step differs from the constant step in `Layers.steps`.

    Examples
    --------
    >>> from mgnet.depth import Layers
    >>> class Square(torch.nn.Module):
    ...     def forward(self, u):
    ...         return u * u
    >>> tangent = TangentBlock(StackedBlock(Square()), with_steps=False)
    >>> state = torch.tensor([[3.0], [1.0]])  # u and w of one sample
    >>> tangent.slope(Layers((), (), *torch.ones(2, 1)), state[None])[0].ravel()
    tensor([9., 6.])
    """

    def __init__(self, block: StackedBlock, with_steps: bool):
        self.block = block
        self.with_steps = with_steps
        self.template = block.template
        self.scheme = block.scheme
        self.traced = block.traced
        self.takes_time = block.takes_time
        self.names = 2 * (*block.names, *["step"] * with_steps)
        self.buffer_names = block.buffer_names
        self.has_state, self.fixed = block.has_state, block.fixed
        self.own_buffers = block.own_buffers
        self.stages = block.stages
        self.evaluations = 0
        self.vjps = 0
        self._start()

    def evaluate(
        self,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        time: Tensor,
        step: Tensor,
        state: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """The slopes of u and w for one layer, and its unchanged buffers."""
        count = len(self.names) // 2
        own, direction = (state[0], *parameters[:count]), (state[1], *parameters[count:])
        slope = partial(self._slope, buffers, time, step)
        return torch.stack(_Pushed.apply(slope, *own, *direction)), list(buffers)

    def _slope(
        self, buffers: Sequence[Tensor], time: Tensor, step: Tensor, own: Sequence[Tensor]
    ) -> Tensor:
        u, *parameters = own
        kept = [x.clone() for x in buffers]  # the block may edit them
        if not self.with_steps:
            return self.block.evaluate(parameters, kept, time, step, u)[0]
        factor = parameters.pop()
        return factor * self.block.evaluate(parameters, kept, time, factor * step, u)[0]


Slope = Callable[[Sequence[Tensor]], Tensor]


class _Pushed(torch.autograd.Function):
    """Map (inputs, their direction) to the slope, and its derivative in that direction.

    The backward pass differentiates one vector-Jacobian product of the slope. The forward pass has
    already differentiated twice, so differentiating its result would require derivatives one order
    higher, which PyTorch does not support for some modules, such as layer norm.
    """

    @staticmethod
    def forward(ctx: Any, slope: Slope, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        own, direction = inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]
        ctx.slope = slope
        ctx.save_for_backward(*inputs)
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in own]
            value = slope(leaves)
            lam = torch.zeros_like(value).requires_grad_()
            pulled = _pulled(value, leaves, lam)
        # A vector-Jacobian product is linear in lam: its derivative is a Jacobian-vector product.
        pushed = _gradients(pulled, direction, [lam])[0]
        ctx.graph = leaves, value
        return value.detach(), pushed.detach()

    @staticmethod
    def backward(ctx: Any, mu: Tensor, nu: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        inputs, in_graph = ctx.saved_tensors, torch.is_grad_enabled()
        own, direction = inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]
        leaves, value = ctx.graph
        with torch.enable_grad():
            if in_graph:  # separate inputs, regardless of how they were computed
                leaves = [
                    x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in own
                ]
                value = ctx.slope(leaves)
            pulled = _pulled(value, leaves, nu)
            found = _gradients([value, *pulled], [mu, *direction], leaves, in_graph)
        if not in_graph:
            pulled = [x.detach() for x in pulled]
        return None, *found, *pulled


def _pulled(value: Tensor, inputs: Sequence[Tensor], lam: Tensor) -> list[Tensor]:
    return _gradients([value], [lam], inputs, True)


def _gradients(
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    inputs: Sequence[Tensor],
    in_graph: bool = False,
) -> list[Tensor]:
    """Gradients, with respect to the inputs, of all outputs that have a graph."""
    pairs = [(x, c) for x, c in zip(outputs, cotangents, strict=True) if x.requires_grad]
    if not pairs:
        return [torch.zeros_like(x) for x in inputs]
    outputs, cotangents = zip(*pairs, strict=True)
    return list(
        torch.autograd.grad(
            outputs,
            inputs,
            cotangents,
            retain_graph=True,
            create_graph=in_graph,
            materialize_grads=True,
        )
    )
