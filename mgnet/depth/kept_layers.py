"""A network of whose layers a process keeps only its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mgnet.depth.layer_stack import LayerSlots

if TYPE_CHECKING:
    from mgnet.depth.ode_net import ODENet

__all__ = ["check_whole", "keep_layers", "layered_names"]


def keep_layers(net: ODENet, which: range) -> None:
    """Forget the parameters and buffers of all layers but these.

    What belongs to all layers stays: `depth`, shared weights and control points, the modules before
    and after.

    Parameters
    ----------
    net : ODENet
        Changed in place; its parameters are new objects, so an optimizer comes later.
    which : range
        Consecutive layers, or none.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(2, 2), 8)
    >>> keep_layers(net, range(4, 6))
    >>> net.block.weight.shape, net.own_layers().times
    (torch.Size([2, 2, 2]), tensor([0.5000, 0.6250]))
    >>> net(torch.ones(1, 2))
    Traceback (most recent call last):
    ValueError: ODENet holds the layers 4 to 5 of 0 to 7 only; call the LayerParallel module that \
was distributed, or load its gathered state into a whole net
    """
    check_whole(net)
    slots = LayerSlots(net.block)
    cut = slice(which.start, which.stop)
    parameters, buffers = slots.tensors()
    if net.weights == "per layer":
        parameters = [_cut(each, cut) for each in parameters]  # type: ignore[arg-type]
    slots.put(parameters, [each[cut].clone() for each in buffers])
    if net.gates is not None:
        net.gates = _cut(net.gates, cut)
    net.kept = which


def layered_names(net: ODENet) -> set[str]:
    """The names in `net.state_dict()` of the tensors with the layers on axis 0.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(2, 2), 8, gates=True, after=torch.nn.Linear(2, 1))
    >>> sorted(layered_names(net))
    ['block.bias', 'block.weight', 'gates']
    """
    names = {f"block.{name}" for name in net.block.state_dict()}
    if net.weights != "per layer":
        names -= {f"block.{name}" for name, _ in net.block.named_parameters(remove_duplicate=False)}
    return names if net.gates is None else names | {"gates"}


def check_whole(net: ODENet) -> None:
    """Raise a ValueError if other processes hold some of the layers.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> check_whole(ODENet(torch.nn.Linear(2, 2), 8))
    """
    kept = net.kept
    if len(kept) < net.depth:
        held = f"the layers {kept.start} to {kept.stop - 1}" if kept else "none of the layers"
        raise ValueError(
            f"ODENet holds {held} of 0 to {net.depth - 1} only; call the LayerParallel module that "
            "was distributed, or load its gathered state into a whole net"
        )


def _cut(parameter: torch.Tensor, which: slice) -> torch.nn.Parameter:
    return torch.nn.Parameter(parameter.detach()[which].clone(), parameter.requires_grad)
