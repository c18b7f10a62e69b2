"""A network of which a process stores only some layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mgnet.depth.network.layer_stack import LayerSlots

if TYPE_CHECKING:
    from mgnet.depth.network.ode_net import ODENet

__all__ = ["first_not_finite", "keep_layers", "layered_names", "naming_divergence"]


def keep_layers(net: ODENet, which: range) -> None:
    """Remove the parameters and buffers of all layers except those to keep.

    Data that belong to all layers remain: `depth`, shared weights and control points, and the
    modules before and after the layers.

    Parameters
    ----------
    net : ODENet
        The network, changed in place; its parameters are new objects, so create optimizers
        afterwards.
    which : range
        Consecutive layers to keep; may be empty.

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
    net.check_whole()
    slots = LayerSlots(net.block)
    cut = slice(which.start, which.stop)
    parameters, buffers = slots.tensors()
    if net.weights == "per layer":
        parameters = [_cut(each, cut) for each in parameters]  # type: ignore[arg-type]
    named = zip(slots.buffers, buffers, strict=True)
    once = net.shared_buffers
    slots.put(parameters, [x if name in once else x[cut].clone() for name, x in named])
    if net.learnable_steps is not None:
        net.learnable_steps = _cut(net.learnable_steps, cut)
    net.kept = which


def layered_names(net: ODENet) -> set[str]:
    """The names in `net.state_dict()` of the tensors that have the layers on axis 0.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(2, 2), 8, learnable_steps=True, after=torch.nn.Linear(2, 1))
    >>> sorted(layered_names(net))
    ['block.bias', 'block.weight', 'learnable_steps']
    """
    every = net.block.state_dict()  # options, such as a KAN's, belong to all layers
    names = {f"block.{name}" for name in every if not name.endswith("_extra_state")}
    if net.weights != "per layer":
        names -= {f"block.{name}" for name, _ in net.block.named_parameters(remove_duplicate=False)}
    once = {id(net.block.get_buffer(name)) for name in net.shared_buffers}
    buffers = net.block.named_buffers(remove_duplicate=False)
    names -= {f"block.{name}" for name, buffer in buffers if id(buffer) in once}
    return names if net.learnable_steps is None else names | {"learnable_steps"}


def first_not_finite(net: ODENet, optimizer: torch.optim.Optimizer | None = None) -> int | None:
    """The first layer with NaN or infinite weights; -1 if only other weights have them, or None.

    Parameters
    ----------
    net : ODENet
        The network.
    optimizer : torch.optim.Optimizer, optional
        An optimizer whose state for the weights is also checked.

    Returns
    -------
    int or None
        The number of the layer, -1, or None if all weights are finite.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(2, 2), 8)
    >>> net.block.bias.data[5, 1] = torch.inf
    >>> first_not_finite(net)
    5
    """
    layered, found = layered_names(net), []
    for name, weights in net.state_dict(keep_vars=True).items():
        if not isinstance(weights, torch.Tensor):  # other data kept by a user's module
            continue
        kept = {} if optimizer is None else optimizer.state.get(weights, {})
        for tensor in (weights, *kept.values()):
            if isinstance(tensor, torch.Tensor) and not tensor.isfinite().all():
                bad = (~tensor.isfinite()).nonzero()
                found.append(net.kept[int(bad[0, 0])] if name in layered else -1)
    layers = [number for number in found if number >= 0]
    return min(layers or found, default=None)


@contextmanager
def naming_divergence(
    net: ODENet, direction: str, forecast: Callable[[], str] = str
) -> Iterator[None]:
    """Extend the error for a non-finite state: in which layers, and whether weights are the cause.

    Parameters
    ----------
    net : ODENet
        The network.
    direction : str
        "forward" or "backward".
    forecast : callable, optional
        A function that returns additional text; it is called only if the weights are finite.

    Raises
    ------
    FloatingPointError
        If a state is not finite; the message contains the additional information.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> with naming_divergence(ODENet(torch.nn.Linear(2, 2), 8), "forward"):
    ...     raise FloatingPointError("step 1")
    Traceback (most recent call last):
    FloatingPointError: the forward pass meets a state that is not finite in layers 0 to 7 (step \
1); the weights are finite: check the input, or take smaller training steps
    """
    try:
        yield
    except FloatingPointError as error:
        broken = first_not_finite(net)
        if broken is None:
            why = "the weights are finite: check the input, or take smaller training steps"
            told = forecast()
            why += f"; {told}" if told else ""
        else:
            where = f"of layer {broken}" if broken >= 0 else "before, after or shared by the layers"
            why = f"weights {where} are not finite"
        raise FloatingPointError(
            f"the {direction} pass meets a state that is not finite in layers {net.kept.start} to "
            f"{net.kept.stop - 1} ({error}); {why}"
        ) from None


def _cut(parameter: torch.Tensor, which: slice) -> torch.nn.Parameter:
    return torch.nn.Parameter(parameter.detach()[which].clone(), parameter.requires_grad)
