"""Many modules of one architecture as one module whose tensors have the layers on axis 0."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

from mgnet.depth.batched.lending import lending
from mgnet.depth.network.copies import copied
from mgnet.depth.network.differences import difference, named_tensors
from mgnet.depth.network.dropout import use_torch
from mgnet.depth.network.layer_rates import but_for_rates, place_rates
from mgnet.depth.network.net_options import check_layer_count, drawn_layer
from mgnet.depth.network.spline_weights import DepthSpline

__all__ = [
    "LayerSlots",
    "Net",
    "StackedNetwork",
    "checked_state",
    "draw_layers",
    "layer_of",
    "per_layer",
    "share",
    "stack",
    "warn_of_copies",
]

Tensors = Sequence[torch.Tensor]


class StackedNetwork(Protocol):
    """A network with its layers in one stacked block: the part of `ODENet` that refinement uses."""

    depth: int
    final_time: float
    scheme: str
    timed: bool
    training: bool
    weights: Any
    learnable_steps: Any
    shared_buffers: tuple[str, ...]
    kept: range
    block: Any
    before: Any
    after: Any
    opening: Any
    closing: Any
    _parameters: dict[str, Any]

    @property
    def times(self) -> torch.Tensor:
        """The start time of each layer."""
        ...

    def layer(self, n: int) -> Any:
        """A copy of layer n as an ordinary module."""
        ...

    def get_parameter(self, target: str, /) -> torch.nn.Parameter:
        """Return a parameter by its name."""
        ...

    def train(self, mode: bool = True, /) -> Any:
        """Set training or evaluation mode."""
        ...


Net = TypeVar("Net", bound=StackedNetwork)


def draw_layers(
    block: torch.nn.Module | Callable[[int], torch.nn.Module],
    count: int,
    start: str = "independent",
) -> list[Any]:
    """Create one module per layer: copies of a template with their own parameters, or `block(n)`.

    The parameters of each copy are drawn by `reset_parameters` of its submodules (PyTorch's
    convention), or by `_reset_parameters` if there is no such method, as in attention. A module
    is reset after its submodules, as in constructors. A submodule with parameters but neither
    method keeps the template's values; see `warn_of_copies`.

    Parameters
    ----------
    block : torch.nn.Module, or function `n -> module`
        The template, or a function that returns the module of layer n.
    count : int
        Number of layers.
    start : "independent" or "identical"
        "identical" makes all layers exact copies of the template.

    Raises
    ------
    TypeError
        If `block` is neither a module nor a function that returns modules.
    ValueError
        If `start` is "identical" but `block` is a function.

    Examples
    --------
    >>> first, second = draw_layers(torch.nn.Linear(1, 1), 2)
    >>> bool(first.weight == second.weight)
    False
    """
    if not callable(block) or isinstance(block, type):
        got = block.__name__ if isinstance(block, type) else type(block).__name__
        raise TypeError(f"ODENet got {got} as a block; give a module, or a function n -> module")
    if not isinstance(block, torch.nn.Module):
        if start == "identical":
            raise ValueError(
                "ODENet got start='identical' and a function n -> module, which itself determines "
                "how each layer starts; give one module instead"
            )
        return [drawn_layer(block, n, count) for n in range(count)]
    check_layer_count(block, count)
    layers = [copied(block, "ODENet") for _ in range(count)]
    for layer in layers if start == "independent" else []:
        _reset(layer, set())
    return layers


def _reset(module: torch.nn.Module, done: set[torch.nn.Module]) -> None:
    done.add(module)
    for part in module.children():
        if part not in done:
            _reset(part, done)
    methods = [getattr(module, each, None) for each in ("reset_parameters", "_reset_parameters")]
    next((each for each in methods if callable(each)), lambda: None)()


def warn_of_copies(template: torch.nn.Module, layers: Sequence[torch.nn.Module]) -> None:
    """Warn about parameters that start with equal values in all layers, as no method draws them.

    Parameters with equal entries, such as scales of 1 and biases of 0, are assumed to be intended.

    Parameters
    ----------
    template : torch.nn.Module
        The module from which the layers were made.
    layers : sequence of torch.nn.Module
        The layers made by `draw_layers`.

    Examples
    --------
    >>> import warnings
    >>> template = torch.nn.ParameterList([torch.rand(2)])
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warn_of_copies(template, draw_layers(template, 2))
    >>> print(caught[0].message)
    ODENet draws each layer separately, but all start with the template's 0 (of the \
ParameterList), which no reset_parameters draws; write one, or give a function n -> module
    """
    others = [dict(layer.named_parameters()) for layer in layers[1:]]
    alike = {}
    for name, value in layers[0].named_parameters():
        constant = value.is_meta or bool((value == value.flatten()[:1]).all())
        if others and not constant and all(torch.equal(value, each[name]) for each in others):
            alike[name] = type(template.get_submodule(name.rpartition(".")[0])).__name__
    alike = {name: alike[name] for name in _left_alone(template, alike)}
    if alike:
        named = ", ".join(f"{name} (of the {kind})" for name, kind in alike.items())
        warnings.warn(
            f"ODENet draws each layer separately, but all start with the template's {named}, which "
            "no reset_parameters draws; write one, or give a function n -> module",
            stacklevel=3,
        )


def _left_alone(template: torch.nn.Module, names: Mapping[str, Any]) -> list[str]:
    """The names of those parameters that a reset leaves untouched."""
    if not names:
        return []
    probe = copy.deepcopy(template)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for name in names:
            probe.get_parameter(name).zero_()
        _reset(probe, set())
    return [name for name in names if not probe.get_parameter(name).any()]


def stack(modules: Sequence[torch.nn.Module]) -> Any:
    """Stack modules: the result has their parameters and buffers stacked along axis 0.

    Parameters
    ----------
    modules : sequence of torch.nn.Module
        Modules of one architecture; only their dropout rates may differ.

    Raises
    ------
    ValueError
        If a module differs from module 0; the message names the first module that does.

    Examples
    --------
    >>> stacked = stack([torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)])
    >>> {name: tuple(p.shape) for name, p in stacked.named_parameters()}
    {'weight': (2, 3, 2), 'bias': (2, 3)}
    """
    alike, rates = but_for_rates(modules)
    for number, module in enumerate(alike):
        found = difference(alike[0], module)
        if found:
            raise ValueError(
                f"layer {number} differs from layer 0: {found}; all must have the same architecture"
            )
    result = copied(alike[0], "ODENet")
    named = [dict(named_tensors(module)) for module in modules]
    slots = LayerSlots(result)
    for name, places in slots.parameters.items():
        whole = torch.stack([tensors[name].detach() for tensors in named])
        parameter = torch.nn.Parameter(whole, requires_grad=named[0][name].requires_grad)
        _fill(places, parameter)
    for name, places in slots.buffers.items():
        _fill(places, torch.stack([tensors[name] for tensors in named]))
    place_rates(result, rates)
    return result


def share(stacked: torch.nn.Module, weights: str | DepthSpline, layers: int) -> None:
    """Keep the parameters of layer 0 only, or of as many layers as there are control points.

    Examples
    --------
    >>> stacked = stack([torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)])
    >>> share(stacked, "shared", 2)
    >>> stacked.weight.shape
    torch.Size([1, 3, 2])
    """
    count = 1
    if isinstance(weights, DepthSpline):
        weights.check_layers(layers, sum(p.numel() for p in stacked.parameters()) // layers)
        count = weights.control_points
    for name, places in LayerSlots(stacked).parameters.items():
        parameter = stacked.get_parameter(name)
        chosen = torch.arange(count, device=parameter.device) % layers  # there may be more points
        kept = torch.nn.Parameter(parameter.detach()[chosen], parameter.requires_grad)
        _fill(places, kept)


def layer_of(stacked: torch.nn.Module, parameters: Tensors, buffers: Tensors) -> Any:
    """Return an ordinary module with copies of the tensors of one layer.

    Examples
    --------
    >>> stacked = stack([torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)])
    >>> layer_of(stacked, [stacked.weight[1], stacked.bias[1]], []).weight.shape
    torch.Size([3, 2])
    """
    own, memo = LayerSlots(stacked).tensors(), {}
    for old, value in zip(own[0], parameters, strict=True):
        memo[id(old)] = torch.nn.Parameter(value.detach().clone(), old.requires_grad)
    for old, value in zip(own[1], buffers, strict=True):
        memo[id(old)] = value.detach().clone()
    return use_torch(copy.deepcopy(stacked, memo))  # without copying the tensors of all layers


def checked_state(block: torch.nn.Module, u: torch.Tensor) -> torch.Tensor:
    """Return the state if its precision, device and width (for a first `Linear`) fit the block.

    Parameters
    ----------
    block : torch.nn.Module
        The stacked block, with the parameters of all layers on axis 0.
    u : tensor of shape (batch, ...)
        The state to check.

    Raises
    ------
    TypeError, ValueError
        If the state is not a tensor, or does not match the block.

    Examples
    --------
    >>> checked_state(torch.nn.Linear(4, 4), torch.zeros(2, 3))
    Traceback (most recent call last):
    ValueError: ODENet got a state of shape (2, 3), but its block takes 4 numbers on the last axis;
    change the input, or put a module `before` that makes them
    """
    if not isinstance(u, torch.Tensor):
        raise TypeError(f"ODENet got a state of type {type(u).__name__}; give a tensor")
    weight = next((p for p in block.parameters() if p.is_floating_point()), None)
    if weight is None:
        return u
    if u.dtype != weight.dtype and not torch.is_autocast_enabled(u.device.type):
        raise TypeError(
            f"ODENet got a state of {u.dtype}, but its block has weights of {weight.dtype}; "
            f"convert one of them, as with x.to({weight.dtype})"
        )
    if u.device != weight.device:
        raise ValueError(
            f"ODENet got a state on {u.device}, but its block is on {weight.device}; move one of "
            f"them, as with x.to({str(weight.device)!r})"
        )
    first = block[0] if isinstance(block, torch.nn.Sequential) and len(block) else block
    if type(first) is torch.nn.Linear and u.shape[-1:] != (first.in_features,):
        raise ValueError(
            f"ODENet got a state of shape {tuple(u.shape)}, but its block takes "
            f"{first.in_features} numbers on the last axis; change the input, or put a module "
            "`before` that makes them"
        )
    return u


class LayerSlots:
    """The places where a module stores its tensors; tied tensors form one entry.

    Parameters
    ----------
    module : torch.nn.Module
        The module whose tensors are replaced temporarily.

    Examples
    --------
    >>> linear = torch.nn.Linear(1, 1, bias=False)
    >>> slots = LayerSlots(linear)
    >>> with slots.lent():
    ...     slots.put([torch.tensor([[3.0]])], [])
    ...     linear(torch.ones(1)).tolist()
    [3.0]
    """

    def __init__(self, module: torch.nn.Module):
        self.parameters = _slots(module, "_parameters")
        self.buffers = _slots(module, "_buffers")
        self._parameters = list(self.parameters.values())
        self._buffers = list(self.buffers.values())

    def tensors(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The current parameters and buffers of the module."""
        with lending():
            return (
                [holder[name] for ((holder, name), *_) in self._parameters],
                [holder[name] for ((holder, name), *_) in self._buffers],
            )

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Provide a context in which `put` is allowed; it restores the module's own tensors."""
        with lending():
            kept = self.tensors()
            try:
                yield
            finally:
                self.put(*kept)

    def put(self, parameters: Tensors, buffers: Tensors) -> None:
        """Place these tensors in the module."""
        for value, places in zip(parameters, self._parameters, strict=True):
            _fill(places, value)
        for value, places in zip(buffers, self._buffers, strict=True):
            _fill(places, value)

    def renew_buffers(self, before: Sequence[Tensors], after: Sequence[Tensors]) -> None:
        """Stack the buffers of all layers after a call if the call replaced them.

        The old buffers may be needed by a backward pass, so they are not overwritten.
        """
        rows = zip(*before, strict=True), zip(*after, strict=True)
        for old, new, places in zip(*rows, self._buffers, strict=False):  # no rows without layers
            if any(a is not b for a, b in zip(old, new, strict=True)):
                _fill(places, torch.stack([each.detach() for each in new]))


def per_layer(tensors: Tensors, count: int) -> list[tuple[torch.Tensor, ...]]:
    """Return each layer's tensors, `count` layers in all; their gradients need only one `stack`.

    Examples
    --------
    >>> per_layer([torch.tensor([1.0, 2.0])], 2)
    [(tensor(1.),), (tensor(2.),)]
    """
    return list(zip(*(tensor.unbind() for tensor in tensors), strict=True)) or [()] * count


Places = list[tuple[dict, str]]


def _slots(module: torch.nn.Module, kind: str) -> dict[str, Places]:
    """Places of the tensors by name, in the order of `named_parameters` and `named_buffers`."""
    found: dict[int, tuple[str, Places]] = {}
    for prefix, part in module.named_modules():
        holder = getattr(part, kind)
        for name, tensor in holder.items():
            if tensor is not None:
                path = f"{prefix}.{name}" if prefix else name
                found.setdefault(id(tensor), (path, []))[1].append((holder, name))
    return dict(found.values())


def _fill(places: Places, value: torch.Tensor) -> None:
    for holder, name in places:
        holder[name] = value
