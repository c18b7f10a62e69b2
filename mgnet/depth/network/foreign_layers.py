"""Transfer of weights between the layers of another model and an ODE net."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mgnet.depth.batched.layers import Layers
from mgnet.depth.network.differences import named_tensors, plain_tensors
from mgnet.depth.network.layer_stack import LayerSlots, StackedNetwork, layer_of
from mgnet.depth.network.sequential import Increment
from mgnet.depth.network.shared_buffers import own_buffers

__all__ = ["load_layers", "to_layers"]

Tensors = Mapping[str, torch.Tensor]


def load_layers(net: StackedNetwork, layers: Layers, given: Any) -> None:
    """Implement `ODENet.load_layers`, which documents the errors; `layers` are the net's own.

    Raises
    ------
    ValueError
        If the net has no separate weights for each layer, or the layers do not match.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net, linear = ODENet(torch.nn.Linear(2, 2), 2), torch.nn.Linear(2, 2)
    >>> load_layers(net, net.layers(), [linear, linear])
    >>> bool((net.block.weight == linear.weight).all())
    True
    """
    if net.weights != "per layer":
        raise ValueError(
            f"load_layers got an ODENet with weights {net.weights!r}, which has none of its own "
            "for each layer; make it with weights='per layer'"
        )
    modules = _checked("load_layers", net, given)
    ours = _tensors_of_layers(net, layers)
    theirs = [dict(named_tensors(module)) for module in modules]
    for n, (into, source) in enumerate(zip(ours, theirs, strict=True)):
        _check_alike("load_layers", n, source, into)
        _check_there("load_layers got an ODENet", into)
        _check_there(f"load_layers got layer {n}", source)
    first = len(net.opening)
    for n, source in enumerate(theirs[first : first + net.depth], first):
        _check_once(net, n, source, theirs[first])
    _copy(theirs, ours)


def to_layers(net: StackedNetwork, layers: Layers, into: Any = None) -> Any:
    """Implement `ODENet.to_layers`, which documents the errors; `layers` are the net's own.

    Raises
    ------
    ValueError
        If a step is not 1, the scheme is not Euler's, or the layers do not match.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(2, 2), 2, 2.0)
    >>> to_layers(net, net.layers())
    ModuleList(
      (0-1): 2 x Linear(in_features=2, out_features=2, bias=True)
    )
    """
    ours = _tensors_of_layers(net, layers)
    for source in ours:
        _check_there("to_layers got an ODENet", source)
    steps = layers.steps.detach()
    if net.scheme != "euler" or not bool((steps == 1.0).all()):
        least, most = (f"{float(each):.9g}" for each in (steps.min(), steps.max()))
        raise ValueError(
            f"to_layers got an ODENet with scheme {net.scheme!r} and steps from {least} to {most}; "
            "layers without mgnet do Euler's step of 1: use net.to_sequential(), whose modules "
            "have scheme and step in them"
        )
    if into is None:
        return _made(net, layers)
    modules = _checked("to_layers", net, into)
    theirs = [dict(named_tensors(module)) for module in modules]
    written: dict[int, torch.Tensor] = {}
    for n, (source, target) in enumerate(zip(ours, theirs, strict=True)):
        _check_alike("to_layers", n, target, source)
        _check_there(f"to_layers got layer {n}", target)
        for name, tensor in target.items():
            other = written.setdefault(id(tensor), source[name])
            if not torch.equal(other, source[name]):
                raise ValueError(
                    f"to_layers got layer {n} whose {name} is shared with an earlier layer, but "
                    "those of the ODENet differ; give layers with separate tensors, such as copies"
                )
    _copy(ours, theirs)
    return into


def _made(net: StackedNetwork, layers: Layers) -> torch.nn.ModuleList:
    middle = [
        _inner(
            layer_of(net.block, [p[n] for p in layers.parameters], [b[n] for b in layers.buffers])
        )
        for n in range(net.depth)
    ]
    ends = [[_inner(each.block) for each in part] for part in (net.opening, net.closing)]
    opening, closing = copy.deepcopy(ends)
    made = torch.nn.ModuleList([*opening, *middle, *closing])
    made.training = net.training
    return made


def _inner(block: torch.nn.Module) -> torch.nn.Module:
    return block.block if isinstance(block, Increment) else block


def _tensors_of_layers(net: StackedNetwork, layers: Layers) -> list[Tensors]:
    """The tensors of every layer by name, in the order of depth; views of the net's own tensors."""
    inner, slots = _inner(net.block), LayerSlots(net.block)
    names, tensors = [*slots.parameters, *slots.buffers], [*layers.parameters, *layers.buffers]
    stacked = dict(zip(names, tensors, strict=True))
    known = {*slots.parameters, *own_buffers(net.block)}
    stacked = {name: x for name, x in stacked.items() if name in known}
    if inner is not net.block:
        stacked = {name.removeprefix("block."): x for name, x in stacked.items()}
    middle = [{name: x.detach()[n] for name, x in stacked.items()} for n in range(net.depth)]
    opening, closing = (
        [{name: x.detach() for name, x in named_tensors(_inner(each.block))} for each in part]
        for part in (net.opening, net.closing)
    )
    return [*opening, *middle, *closing]


def _checked(owner: str, net: StackedNetwork, given: Any) -> list[torch.nn.Module]:
    """Return the modules, one per layer, after checking type and number."""
    known = isinstance(given, (torch.nn.ModuleList, torch.nn.Sequential, Sequence))
    if not known or not all(isinstance(each, torch.nn.Module) for each in given):
        raise TypeError(
            f"{owner} got a {type(given).__name__}; give a ModuleList, a Sequential or a list of "
            "modules, one for each layer"
        )
    first, last = len(net.opening), len(net.closing)
    if len(given) != first + net.depth + last:
        ends = f", {first} before and {last} after them" if first or last else ""
        raise ValueError(
            f"{owner} got {len(given)} modules for an ODENet of {net.depth} layers{ends}; give "
            "one for each"
        )
    ours = [each.block for each in net.opening] + [net.block] * net.depth
    ours += [each.block for each in net.closing]
    modules = []
    for n, (block, module) in enumerate(zip(ours, given, strict=True)):
        if isinstance(block, Increment):
            block, module = block.block, _inner(module)
        _check_plain(owner, n, block, module)
        modules.append(module)
    return modules


def _check_plain(owner: str, n: int, block: torch.nn.Module, module: torch.nn.Module) -> None:
    theirs = dict(plain_tensors(module))
    for name, tensor in plain_tensors(block):
        got = theirs.get(name, tensor)
        if not (tensor.is_meta or got.is_meta or torch.equal(tensor.cpu(), got.to(tensor).cpu())):
            raise ValueError(
                f"{owner} got layer {n} with another {name} than the block of the ODENet; it is "
                "not a buffer, so it would not be copied: use register_buffer"
            )


def _check_alike(owner: str, n: int, theirs: Tensors, ours: Tensors) -> None:
    """Raise an error unless the user's tensors for layer n can be exchanged with the net's."""
    missing, more = ([*a.keys() - b.keys()] for a, b in ((ours, theirs), (theirs, ours)))
    if missing or more:
        told = [f"without {', '.join(sorted(missing))}"] * bool(missing)
        told += [f"with {', '.join(sorted(more))}, which it has not"] * bool(more)
        raise ValueError(
            f"{owner} got layer {n} that is not of the architecture of the ODENet's block: "
            f"{' and '.join(told)}; give layers of the class from which the net was made"
        )
    for name, tensor in ours.items():
        got = theirs[name]
        if got.shape != tensor.shape or _kind(got) != _kind(tensor):
            raise ValueError(
                f"{owner} got layer {n} with {name} of {got.dtype} and shape {tuple(got.shape)}; "
                f"that of the ODENet is of {tensor.dtype} and shape {tuple(tensor.shape)}: give "
                "layers of the same sizes"
            )


def _kind(tensor: torch.Tensor) -> Any:
    """The kind of a tensor's numbers; like `load_state_dict`, mgnet converts within a kind."""
    if tensor.is_floating_point():
        return "floating"
    return "complex" if tensor.is_complex() else tensor.dtype


def _check_there(owner: str, tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise ValueError(
                f"{owner} whose {name} is on the meta device and has no numbers; load the model's "
                "weights first, or allocate them with to_empty"
            )


def _check_once(net: StackedNetwork, n: int, source: Tensors, first: Tensors) -> None:
    for name in net.shared_buffers:
        name = name if name in source else name.removeprefix("block.")
        if not torch.equal(source[name], first[name]):
            raise ValueError(
                f"load_layers got layer {n} whose {name} differs from that of the first, but the "
                "ODENet keeps one for all of them; make it without that in shared_buffers"
            )


def _copy(sources: Sequence[Tensors], targets: Sequence[Tensors]) -> None:
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):
            for name, tensor in source.items():
                target[name].copy_(tensor)
