"""Serial propagation through layers that several processes hold, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from mgnet.depth.neighbours import Neighbours
    from mgnet.depth.ode_net import ODENet

__all__ = ["relay"]


def relay(net: ODENet, neighbours: Neighbours, u: Tensor) -> Tensor:
    """The state after all layers from the one before them; all processes call it and get it.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.neighbours import ALONE
    >>> net, u = ODENet(torch.nn.Linear(2, 2), 8), torch.ones(1, 2)
    >>> bool((relay(net, ALONE, u) == net(u)).all())
    True
    """
    own = [*net.block.parameters()] + ([] if net.gates is None else [net.gates])
    return _Relay.apply(net, neighbours, u, *own)


class _Relay(torch.autograd.Function):
    """(u_0, parameters of the own layers) -> u_N."""

    @staticmethod
    def forward(ctx: Any, net: ODENet, neighbours: Neighbours, u: Tensor, *own: Tensor) -> Tensor:
        start = neighbours.receive(u.detach(), False).clone()
        with torch.enable_grad():
            start.requires_grad_(any(ctx.needs_input_grad))
            end = start
            for state in net._states(start, net.own_layers()):
                end = state
        neighbours.send(end.detach(), False)
        ctx.neighbours, ctx.start, ctx.end = neighbours, start, end
        ctx.save_for_backward(*own)
        return neighbours.from_end(end.detach(), False).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        lam = ctx.neighbours.receive(gradient, True)
        leaves = [ctx.start, *ctx.saved_tensors]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = torch.autograd.grad(
            ctx.end, wanted, lam, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        ctx.neighbours.send(found[0], True)
        start = ctx.neighbours.from_end(found[0], True)
        rest = iter(found[1:])
        others = [next(rest) if leaf.requires_grad else None for leaf in leaves[1:]]
        return None, None, start, *others
