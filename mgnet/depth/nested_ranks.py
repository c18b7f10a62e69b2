"""`train_in_depth` over MPI ranks: distributes a net for part of the training, then gathers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from mgnet.depth.mgrit.communicator import Communicator, of_first
from mgnet.depth.nested_checks import checked_module
from mgnet.depth.network.layer_stack import LayerSlots
from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.parallel.whole_state import distributed_parts, gather_state, load_state
from mgnet.training.optimizers.multilevel_gradient import MultilevelGradient
from mgnet.training.optimizers.refined_optimizer import refined_optimizer

__all__ = ["Spread", "spread"]


class Spread(NamedTuple):
    """The module and optimizer that are trained in one process.

    Attributes
    ----------
    module : torch.nn.Module
        The module that `wrap` returned.
    optimizer : torch.optim.Optimizer
        The optimizer for the parameters that this process holds.
    communicator : Communicator, or None
        The ranks that share the module; None if this process has all layers.

    Examples
    --------
    >>> Spread(torch.nn.Linear(1, 1), None, None).communicator is None
    True
    """

    module: torch.nn.Module
    optimizer: Any
    communicator: Communicator | None


@contextmanager
def spread(
    wrap: Callable[[ODENet], torch.nn.Module], net: ODENet, optimizer: torch.optim.Optimizer
) -> Iterator[Spread]:
    """Provide a context with the wrapped net and its optimizer; afterwards, `net` is whole again.

    If `wrap` distributes the layers, each process has an optimizer for its own layers inside this
    context. After the context, each process again has the whole net and the whole optimizer, with
    the trained values. After an exception, the layers and the optimizer are as they were before the
    context.

    Parameters
    ----------
    wrap : callable
        The argument `wrap` of `train_in_depth`, which makes a module from a net.
    net : ODENet
        The net; before and after the context, each process has all of its layers.
    optimizer : torch.optim.Optimizer
        The optimizer of the parameters of the whole net.

    Raises
    ------
    ValueError
        If `wrap` copied the net, or if the optimizer does not work with distributed layers.

    Examples
    --------
    >>> from mgnet.depth import LayerParallel
    >>> net = ODENet(torch.nn.Linear(2, 2), 4)
    >>> with spread(LayerParallel, net, torch.optim.SGD(net.parameters(), 0.1)) as own:
    ...     own.communicator is None
    True
    """
    slots, named = LayerSlots(net.block), dict(net.named_parameters())
    whole = slots.tensors(), net.learnable_steps, net.kept
    module = checked_module(wrap(net))
    parallel = next(iter(distributed_parts(module)), None)
    if parallel is None:
        yield Spread(module, optimizer, None)
        return
    try:
        if parallel.net is not net:
            raise ValueError(
                "train_in_depth got a distributed copy from wrap; distribute a LayerParallel of "
                "the net passed to it"
            )
        if isinstance(optimizer, MultilevelGradient):
            raise ValueError(
                "train_in_depth got MultilevelGradient and distributed layers, whose coarse levels "
                "would need those of other ranks; use an optimizer such as AdamW, or one process"
            )
        held = {p for group in optimizer.param_groups for p in group["params"]}
        if parallel.communicator.batches and held - {*named.values(), *module.parameters()}:
            raise ValueError(
                "train_in_depth got an optimizer of parameters outside the module, whose "
                "gradients several networks would not add; put them into `before` or `after`, or "
                "use distribute(..., batches=1)"
            )
        own = dict(net.named_parameters())
        local = refined_optimizer(optimizer, {p: own[name] for name, p in named.items()}, {})
        load_state(parallel, optimizer.state_dict(), local)
        yield Spread(module, local, parallel.communicator)
        states = [gather_state(parallel, each) for each in (None, local)]
        learned, moments = of_first(parallel.communicator, states)
    finally:
        tensors, net.learnable_steps, net.kept = whole
        slots.put(*tensors)
    net.load_state_dict({name[4:]: x for name, x in learned.items() if name.startswith("net.")})
    optimizer.load_state_dict(moments)
