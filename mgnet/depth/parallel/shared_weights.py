"""Weights that all layers have in common, if several processes hold the layers.

Each process has all shared weights or control points. The layers' contributions to the gradients of
these are added interval by interval, in the order of the layers, and each process passes the sum to
the next one, so the bits do not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.side_inputs import SideBlock, SideInputs
from mgnet.depth.mgrit.communicator import Communicator
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.depth.parallel.coarse_layers import sums

if TYPE_CHECKING:
    from mgnet.depth.network.ode_net import ODENet

__all__ = ["layers_of", "spreading", "with_side_inputs"]


def layers_of(net: ODENet, communicator: Communicator, interval: int) -> Layers:
    """The layers of this process; gradients of joint weights include all other layers.

    All processes must differentiate together.

    Parameters
    ----------
    net : ODENet
        The network.
    communicator : Communicator
        The processes that hold the layers of the network.
    interval : int
        Number of layers of an interval. Every process holds whole intervals, but the last interval
        may be short.

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
    joint, buffers = net.slots().tensors()
    made = _Joint.apply(_Spread(net.weights, net.depth, net.kept, communicator, interval), *joint)
    return Layers(tuple(made), net.own_buffers(buffers), net.times, net.steps)


def spreading(
    net: ODENet, communicator: Communicator, interval: int, side: Mapping[str, Any]
) -> Callable[[Sequence[Tensor]], Sequence[Tensor]] | None:
    """The map from a net's shared weights to the weights of this process's layers, or None.

    Parameters
    ----------
    net, communicator, interval
        The arguments of `layers_of`.
    side : mapping
        Side inputs of a call; if there are any, there is no such map.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
    >>> net = ODENet(torch.nn.Linear(1, 1), layers=6, weights="shared")
    >>> spread = spreading(net, SERIAL_COMMUNICATOR, 2, {})
    >>> [len(x) for x in spread([net.block.weight[None]])]
    [6]
    """
    if side or net.weights != "shared":
        return None
    spread = _Spread(net.weights, net.depth, net.kept, communicator, interval)
    return lambda joint: _Joint.apply(spread, *joint)


def with_side_inputs(
    net: ODENet, side: Mapping[str, Any], communicator: Communicator, interval: int
) -> tuple[StackedBlock, Layers]:
    """A block that takes side inputs, and this process's layers with the side inputs of a call.

    Parameters
    ----------
    net : ODENet
        The network.
    side : mapping
        Side inputs, as in `ODENet.forward`, the same and complete on every process. Their gradients
        include the layers of all processes, as for joint weights.
    communicator, interval
        The arguments of `layers_of`.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
    >>> class Scaled(torch.nn.Module):
    ...     def forward(self, u, scale=1.0):
    ...         return u * scale
    >>> side = {"scale": torch.ones(1, requires_grad=True)}
    >>> _, layers = with_side_inputs(ODENet(Scaled(), 6), side, SERIAL_COMMUNICATOR, 2)
    >>> layers.parameters[0].sum().backward()
    >>> side["scale"].grad
    tensor([6.])
    """
    told = SideInputs.of(side, net.layer_inputs)
    layers = layers_of(net, communicator, interval)
    each, joint = (
        _Spread(kind, net.depth, net.kept, communicator, interval)
        for kind in ("per layer", "shared")
    )
    between = slice(len(net.opening), len(net.opening) + net.depth)

    def of_layers(x: Tensor, has_rows: bool) -> Tensor:
        spread, x = (each, x[between]) if has_rows else (joint, x[None])
        return _Joint.apply(spread, x)[0] if x.requires_grad else spread.layers(x.detach())

    learned = map(of_layers, told.learned, told.learned_rows)
    fixed = map(of_layers, told.fixed, told.fixed_rows)
    parameters, buffers = (*layers.parameters, *learned), (*layers.buffers, *fixed)
    block = net.kernel.variant(told.key, lambda: SideBlock(net.kernel, told))
    return block, Layers(parameters, buffers, layers.times, layers.steps)


@dataclass(frozen=True)
class _Spread:
    """The linear map from joint weights, or from all layers' weights, to those of this process."""

    weights: str | DepthSpline
    depth: int
    kept: range
    communicator: Communicator
    interval: int

    def values(self) -> np.ndarray | None:
        """The coefficient of each joint weight in each of this process's layers, (layers, weights).

        None stands for one weight that all layers share.
        """
        if isinstance(self.weights, DepthSpline):
            return self.weights.matrix(self.depth)[self.kept.start : self.kept.stop]
        return None  # the one weight counts fully in all

    def layers(self, joint: Tensor) -> Tensor:
        """The weights of this process's layers."""
        if self.weights == "per layer":
            return joint[self.kept.start : self.kept.stop]
        if isinstance(self.weights, DepthSpline):
            return self.weights.at_layers(joint, self.depth, self.kept)
        return joint.expand(len(self.kept), *joint.shape[1:])

    def collect(self, like: Tensor, gradient: Tensor) -> Tensor:
        """Apply the adjoint of the map `layers`, summed over all processes."""
        if self.weights == "per layer":
            return self.communicator.broadcast(self.communicator.gather_layers(gradient))
        total = self.communicator.receive(like, False).clone()
        _add(total, gradient, self.values(), self.interval)
        self.communicator.send(total, False)
        return self.communicator.broadcast_from_last(total, False)


class _Joint(torch.autograd.Function):
    """Map joint weights to the weights of this process's layers."""

    @staticmethod
    def forward(ctx: Any, spread: _Spread, *joint: Tensor) -> tuple[Tensor, ...]:
        ctx.spread, ctx.like = spread, [torch.zeros_like(x) for x in joint]
        return tuple([spread.layers(x) for x in joint])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        needed = ctx.needs_input_grad[1:]
        return None, *_Collected.apply(ctx.spread, needed, ctx.like, *gradients)


class _Collected(torch.autograd.Function):
    """Map cotangents of this process's layers to joint weights; its adjoint is `_Joint` again."""

    @staticmethod
    def forward(
        ctx: Any,
        spread: _Spread,
        needed: Sequence[bool],
        like: Sequence[Tensor],
        *gradients: Tensor,
    ) -> tuple[Tensor | None, ...]:
        ctx.spread, ctx.like = spread, like
        return tuple(
            [
                spread.collect(x, gradient) if need else None
                for x, gradient, need in zip(like, gradients, needed, strict=True)
            ]
        )

    @staticmethod
    def backward(ctx: Any, *joint: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        given = [x if d is None else d for x, d in zip(ctx.like, joint, strict=True)]
        return None, None, None, *_Joint.apply(ctx.spread, *given)


def _add(total: Tensor, gradient: Tensor, values: np.ndarray | None, interval: int) -> None:
    """Add the gradients of the layers to each joint weight, interval by interval."""
    if values is None:
        for each in sums(gradient, interval) if len(gradient) else ():
            total[0] += each
        return
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
