"""`train_in_depth` over MPI ranks: a net is spread for a part of the training, then whole again."""

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
    """What is trained in one process.

    Attributes
    ----------
    module : torch.nn.Module
    optimizer : torch.optim.Optimizer
    communicator : Communicator, or None
        None: the process has all layers.

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
    """What `wrap` makes of a net, with an optimizer of its parameters; `net` is whole afterwards.

    Where `wrap` distributes the layers, each process has an optimizer of its own layers inside, and
    the whole net and optimizer after it, with what was learned. After an exception the layers and
    the optimizer are as before.

    Parameters
    ----------
    wrap : callable
    net : ODENet
    optimizer : torch.optim.Optimizer

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
                "the net that it is given"
            )
        if isinstance(optimizer, MultilevelGradient):
            raise ValueError(
                "train_in_depth got MultilevelGradient and distributed layers, whose coarse levels "
                "would need those of other ranks; use an optimizer as AdamW, or one process"
            )
        held = {p for group in optimizer.param_groups for p in group["params"]}
        if parallel.communicator.batches and held - {*named.values(), *module.parameters()}:
            raise ValueError(
                "train_in_depth got an optimizer of parameters outside of the module, whose "
                "gradients several networks would not add; put them into `before` or `after`, or "
                "take distribute(..., batches=1)"
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
