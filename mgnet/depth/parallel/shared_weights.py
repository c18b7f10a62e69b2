"""Weights that belong to all layers, where several processes hold the layers.

Each process has all of the shared weights or control points. What the layers say about them is
added interval by interval, in the order of the layers: one process hands the sum to the next, so
it has the same bits for any number of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mgnet.depth.batched.layers import Layers
from mgnet.depth.mgrit.communicator import Communicator
from mgnet.depth.network.layer_stack import LayerSlots
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.depth.parallel.coarse_layers import sums

if TYPE_CHECKING:
    from mgnet.depth.network.ode_net import ODENet

__all__ = ["layers_of"]


def layers_of(net: ODENet, communicator: Communicator, interval: int) -> Layers:
    """The own layers of a net, whose gradients reach joint weights from all processes.

    All processes differentiate together.

    Parameters
    ----------
    net : ODENet
    communicator : Communicator
    interval : int
        Every process holds whole intervals of so many layers, but for the last one.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
    >>> net = ODENet(torch.nn.Linear(1, 1), layers=6, weights="shared")
    >>> layers_of(net, SERIAL_COMMUNICATOR, 2).parameters[1].sum().backward()
    >>> net.block.bias.grad
    tensor([[6.]])
    """
    if net.weights == "per layer":
        return net.own_layers()
    with torch.no_grad():
        layers = net.own_layers()
    joint, _ = LayerSlots(net.block).tensors()
    values = _values(net)[net.kept.start : net.kept.stop]
    made = _Joint.apply(values, communicator, interval, layers.parameters, *joint)
    return Layers(tuple(made), layers.buffers, layers.times, layers.steps)


def _values(net: ODENet) -> np.ndarray:
    """What each weight counts for in each layer: (layers, weights)."""
    if isinstance(net.weights, DepthSpline):
        return net.weights.matrix(net.depth)
    return np.ones((net.depth, 1))


class _Joint(torch.autograd.Function):
    """Joint weights -> weights of the own layers, which `made` holds."""

    @staticmethod
    def forward(
        ctx: Any,
        values: np.ndarray,
        communicator: Communicator,
        interval: int,
        made: tuple[Tensor, ...],
        *joint: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.values, ctx.communicator, ctx.interval = values, communicator, interval
        ctx.like = [torch.zeros_like(x) for x in joint]
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        found: list[Tensor | None] = []
        for like, gradient, needed in zip(
            ctx.like, gradients, ctx.needs_input_grad[4:], strict=True
        ):
            total = None
            if needed:
                total = ctx.communicator.receive(like, False).clone()
                _add(total, gradient, ctx.values, ctx.interval)
                ctx.communicator.send(total, False)
                total = ctx.communicator.broadcast_from_last(total, False)
            found.append(total)
        return None, None, None, None, *found


def _add(total: Tensor, gradient: Tensor, values: np.ndarray, interval: int) -> None:
    """Add to each joint weight what the layers say, interval by interval."""
    for number, column in enumerate(values.T):
        layers = np.flatnonzero(column)
        if not len(layers):
            continue
        begin = layers[0] // interval * interval
        end = (layers[-1] // interval + 1) * interval
        part = gradient[begin:end]
        shares = torch.tensor(column[begin:end]).to(part).reshape(-1, *(1,) * (part.dim() - 1))
        for each in sums(shares * part, interval):
            total[number] += each
