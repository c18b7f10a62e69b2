"""Conversion of residual blocks that are called in sequence to ODE nets, and back."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from mgnet.depth.batched.scheme import needed_arguments, of_its_shape
from mgnet.depth.network.copies import copied
from mgnet.depth.network.layer_rates import first_difference
from mgnet.depth.network.layer_stack import Net, StackedNetwork
from mgnet.depth.network.residual_block import ResidualBlock
from mgnet.depth.network.subclass import check_calls

__all__ = ["Increment", "from_sequential", "to_sequential"]


class Increment(torch.nn.Module):
    """The increment of a residual block: F(u) = block(u) - u.

    Parameters
    ----------
    block : torch.nn.Module
        A module that computes `x + f(x)`, or any other function that preserves the shape of x.

    Raises
    ------
    TypeError
        If the block needs more than one argument.

    Examples
    --------
    >>> block = torch.nn.Linear(1, 1, bias=False)
    >>> _ = block.weight.data.fill_(3.0)
    >>> Increment(block)(torch.tensor([1.0])).tolist()
    [2.0]
    """

    def __init__(self, block: torch.nn.Module):
        super().__init__()
        if len(needed_arguments(block)) > 1:
            raise TypeError(
                f"{type(block).__name__}.forward takes {inspect.signature(block.forward)}; a layer "
                "x -> y is called with x alone: give the other arguments defaults, or keep the "
                "corresponding tensors as buffers"
            )
        self.block = block

    def forward(self, u: torch.Tensor, **side: Any) -> torch.Tensor:
        """Compute the block's output minus its input; `side` are keyword arguments of the block."""
        return of_its_shape(self.block(u, **side), u) - u


def to_sequential(net: StackedNetwork) -> torch.nn.Sequential:
    """Implement `ODENet.to_sequential`.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(2, 2), 3, after=torch.nn.Linear(2, 1))
    >>> [type(module).__name__ for module in to_sequential(net)]
    ['ResidualBlock', 'ResidualBlock', 'ResidualBlock', 'Linear']
    """
    modules = [*net.opening, *(net.layer(n) for n in range(net.depth)), *net.closing]
    ends = [[] if end is None else [end] for end in (net.before, net.after)]
    modules = copy.deepcopy([*ends[0], *modules, *ends[1]])
    return torch.nn.Sequential(*modules).train(net.training)


def from_sequential(
    kind: type[Net],
    sequential: torch.nn.Module,
    blocks: tuple[int, int] | None = None,
    learnable_steps: bool = False,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Net:
    """Implement `ODENet.from_sequential` for the class `kind`; `names` lists its other options.

    Raises
    ------
    ValueError
        If `ResidualBlock`s and other modules are mixed.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> block, options = torch.nn.Linear(2, 2), {"learnable_steps": True, "boundary_layers": (1, 0)}
    >>> net = ODENet(block, 3, final_time=2.0, **options)
    >>> from_sequential(ODENet, net.to_sequential())
    ODENet(
      layers=3, final_time=2, scheme='euler', learnable_steps=True, weights='per layer'
      ...
    """
    given, blocks = _modules(sequential, blocks)
    modules = copied(given, "from_sequential")
    start, stop = _range(modules, blocks)
    before, middle, after = modules[:start], modules[start:stop], modules[stop:]
    foreign = [not isinstance(each, ResidualBlock) for each in middle]
    if any(foreign) and not all(foreign):
        raise ValueError(
            f"from_sequential got {type(middle[foreign.index(True)]).__name__} as module "
            f"{start + foreign.index(True)}, among ResidualBlocks; give blocks=(first, end) "
            "without it"
        )
    chosen: Any = middle
    if foreign[0]:
        chosen = [ResidualBlock(Increment(each), 1.0, n) for n, each in enumerate(middle)]
    ends = _one(before), _one(after)
    net = _from_blocks(kind, chosen, learnable_steps, start, ends, names or {})
    return net.train(sequential.training)


def _modules(
    sequential: Any, blocks: tuple[int, int] | None
) -> tuple[list[torch.nn.Module], tuple[int, int] | None]:
    """The modules called in sequence, and the range of the blocks among them if it is known."""
    kinds = torch.nn.Sequential, torch.nn.ModuleList, torch.nn.TransformerEncoder
    known: Any = next((each for each in kinds if isinstance(sequential, each)), None)
    if known is None:
        raise TypeError(
            f"from_sequential got a {type(sequential).__name__}; give a torch.nn.Sequential, a "
            "ModuleList or a TransformerEncoder"
        )
    check_calls("from_sequential", sequential, known, ("__call__", "forward"))
    if sequential._forward_pre_hooks or sequential._forward_hooks:
        raise ValueError(
            f"from_sequential got a {type(sequential).__name__} with hooks, which it would leave "
            "out; remove them, or put what they do into modules"
        )
    if not isinstance(sequential, torch.nn.TransformerEncoder):
        return list(sequential), blocks
    # Nested tensors are created only from a padding mask, and here there is none.
    layers: Any = sequential.layers
    end = [] if sequential.norm is None else [sequential.norm]
    return [*layers, *end], blocks or (0, len(layers))


def _range(modules: Sequence[torch.nn.Module], blocks: tuple[int, int] | None) -> tuple[int, int]:
    if blocks is None:
        ours = [n for n, each in enumerate(modules) if isinstance(each, ResidualBlock)]
        blocks = (ours[0], ours[-1] + 1) if ours else (0, len(modules))
    start, stop = blocks
    if not 0 <= start < stop <= len(modules):
        raise ValueError(
            f"from_sequential got blocks {blocks} of {len(modules)} modules; "
            "give (first, end), at least one of them"
        )
    return start, stop


def _from_blocks(
    kind: Callable[..., Net],
    layers: Sequence[ResidualBlock],
    learnable_steps: bool,
    start: int,
    ends: tuple[Any, Any],
    names: Mapping[str, Sequence[str]],
) -> Net:
    """The net with these layers; leading and trailing layers of step 1 become boundary layers."""
    typical = layers[len(layers) // 2]
    first, last = _leading(layers, typical), _leading(layers[::-1], typical)
    middle = layers[first : len(layers) - last]
    start += first
    _check_alike(middle, start)
    steps = [layer.number for layer in middle]
    learnable_steps = learnable_steps or isinstance(typical.step, torch.nn.Parameter)
    if not learnable_steps and (min(steps) != max(steps) or steps[0] <= 0.0):
        raise ValueError(
            f"from_sequential got steps from {min(steps):g} to {max(steps):g}; "
            "give learnable_steps=True, unless all are the same and positive"
        )
    count = len(middle)
    T = count * middle[1].time if learnable_steps and count > 1 else sum(steps)
    blocks = [layer.block for layer in layers]
    options: dict[str, Any] = {
        "scheme": typical.scheme,
        "learnable_steps": learnable_steps,
        "before": ends[0],
        "after": ends[1],
        "boundary_layers": (first, last),
    }
    options |= {name: value for name, value in names.items() if value}  # subclasses may lack them
    arguments = (lambda n: blocks[n]), count, T if T > 0.0 else 1.0
    try:
        inspect.signature(kind).bind(*arguments, **options)
    except TypeError as error:
        raise TypeError(
            f"from_sequential cannot make a {getattr(kind, '__name__', kind)}, whose constructor "
            f"takes other arguments than that of ODENet ({error}); make an ODENet, and use it "
            "inside a module of your own"
        ) from None
    net = kind(*arguments, **options)
    _check_times(net, layers, start)
    if net.learnable_steps is not None:
        with torch.no_grad():
            net.learnable_steps.copy_(torch.tensor(steps, dtype=torch.float64))
    return net


def _check_alike(layers: Sequence[ResidualBlock], start: int) -> None:
    blocks = [
        each.block.block if isinstance(each.block, Increment) else each.block for each in layers
    ]
    found = first_difference(blocks)
    for n, layer in enumerate(layers):
        if layer.scheme != layers[0].scheme and (found is None or n <= found[0]):
            found = n, f"scheme {layer.scheme!r} instead of {layers[0].scheme!r}"
            break
    if found:
        raise ValueError(
            f"module {start + found[0]} differs from module {start}: {found[1]}; residual blocks "
            "must have the same architecture: give blocks=(first, end) of those that have"
        )


def _check_times(net: StackedNetwork, layers: Sequence[ResidualBlock], start: int) -> None:
    """Raise an error unless the times of blocks F(t, u) agree with those of the net."""
    given = [layer.time for layer in layers]
    first, last = len(net.opening), len(net.closing)
    ours = [0.0] * first + net.times.tolist() + [net.final_time] * last
    for n, (got, expected) in enumerate(zip(given, ours, strict=True)):
        if net.timed and abs(got - expected) > 1e-6 * net.final_time:
            raise ValueError(
                f"module {start + n} has time {got:g}; residual blocks F(t, u) must be evenly "
                f"spaced in time, this one at {expected:g}"
            )


def _leading(layers: Sequence[ResidualBlock], typical: ResidualBlock) -> int:
    """The number of leading layers with step 1."""
    fixed = not isinstance(typical.step, torch.nn.Parameter)
    if fixed and typical.step == 1.0:
        return 0
    for n, layer in enumerate(layers):
        if isinstance(layer.step, torch.nn.Parameter) or layer.step != 1.0:
            return n
    return 0


def _one(modules: Sequence[torch.nn.Module]) -> torch.nn.Module | None:
    if len(modules) > 1:
        return torch.nn.Sequential(*modules)
    return modules[0] if modules else None
