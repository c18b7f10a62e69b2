"""A hierarchy of ODE nets that differ only in depth."""

from __future__ import annotations

import copy

import torch

from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.network.refinement import check_finest, kind_of, layer_transfers
from mgnet.hierarchy import Hierarchy
from mgnet.level import Level
from mgnet.limits import is_count, shown
from mgnet.smoother import Smoother
from mgnet.training.levels import network_levels
from mgnet.training.loss.objective import Objective, check_objective
from mgnet.training.loss.parameters import FlatParameters
from mgnet.transfer import PackedTransfer

__all__ = ["depth_hierarchy", "depth_transfer"]


def depth_hierarchy(
    net: ODENet,
    objective: Objective,
    levels: int,
    smoother: Smoother,
    *,
    factor: int = 2,
    how: str | None = None,
    form: str = "subspace",
) -> Hierarchy:
    """Build levels of ODE nets, each with `factor` times as many layers as the next coarser one.

    From coarse to fine levels, as in a cascade, refinement by learnable steps is exact. From fine
    to coarse levels, trained weights are of little use, so a line search safeguards every
    correction: no correction raises the objective.

    Parameters
    ----------
    net : ODENet
        The coarsest network.
    objective : Objective
        The objective; `objective.with_network(network)` returns it for the network of a level.
    levels : int
        Number of levels.
    smoother : Smoother
        The smoother for all levels, including the coarsest.
    factor : int
        Refinement factor, at least 2.
    how : str, optional
        The kind of refinement, as in `ODENet.refine`.
    form : "subspace" or "injected"
        The coarse problem for a fine state u. "subspace": minimize the fine objective over u + P w,
        at the cost of the fine level. "injected": the objective of the coarse network from
        `coarsen`, with a linear term that makes the gradients agree (MG/OPT: Nash, Optim. Methods
        Softw. 14 (2000) 99-116).

    Returns
    -------
    Hierarchy
        The levels. `hierarchy.network(level, u)` returns the network of a level with the parameters
        u; `hierarchy.with_data(batch)` returns the same levels with `objective.with_data(batch)`.
        The cost assigned to a level is its number of layers.

    Raises
    ------
    TypeError
        If `net` is not an `ODENet`.
    ValueError
        If `levels`, `factor`, `how` or `form` is invalid.

    Examples
    --------
    >>> from mgnet import cascade, run
    >>> from mgnet.training import Objective, TorchOptimizer
    >>> _ = torch.manual_seed(0)
    >>> x = torch.linspace(-1, 1, 50).unsqueeze(1)
    >>> block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    >>> ends = torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)
    >>> net = ODENet(block, 2, learnable_steps=True, before=ends[0], after=ends[1])
    >>> problem = Objective(net, torch.nn.functional.mse_loss, (x, torch.sin(3 * x)))
    >>> adam = TorchOptimizer(torch.optim.Adam, {"lr": 0.01})
    >>> hierarchy = depth_hierarchy(net, problem, 3, adam)
    >>> u, _ = run(cascade([50] * 3), hierarchy, hierarchy[0].operator.start(), None)
    >>> hierarchy.network(0, u).depth, hierarchy[0].operator.value(u) < 0.02
    (8, True)
    """
    _check_net("depth_hierarchy", net)
    how = kind_of(net, factor, how)
    check_objective("depth_hierarchy", objective)
    if not is_count(levels):
        raise ValueError(f"depth_hierarchy got {shown(levels)} levels; it needs at least 1")
    check_finest(f"depth_hierarchy of {shown(levels)} levels", net, factor, how, levels)
    if form not in ("subspace", "injected"):
        raise ValueError(f"depth_hierarchy got form {form!r}; it must be 'subspace' or 'injected'")
    networks = [net]
    for _ in range(int(levels) - 1):
        networks.insert(0, networks[0].refine(factor, how))
    transfers = [depth_transfer(network, factor, how) for network in networks[1:]]

    costs = [float(network.depth) for network in networks]
    names = [f"{network.depth} layers" for network in networks]

    def built(objective: Objective) -> list[Level]:
        problems = [objective.with_network(network) for network in networks]
        return network_levels(problems, transfers, smoother, form, costs, names)

    def network_of(level: int, u: torch.Tensor) -> ODENet:
        made = copy.deepcopy(networks[level])
        FlatParameters(made).write(u)
        return made

    return Hierarchy(
        built(objective),
        bind=lambda batch: built(objective.with_data(batch)),
        nested=how in ("steps", "knots"),
        network=network_of,
    )


def depth_transfer(net: ODENet, factor: int = 2, how: str | None = None) -> PackedTransfer:
    """The transfer between the trained parameters of `net` and of `net.refine(factor, how)`.

    Residuals are restricted by the transpose of P, and solutions as in `net.coarsen`. Parameters of
    `before`, `after` and the boundary layers do not change.

    Parameters
    ----------
    net : ODENet
        The coarse network.
    factor, how
        The arguments of `ODENet.refine`.

    Returns
    -------
    PackedTransfer
        The transfer between flat vectors of parameters.

    Examples
    --------
    >>> net = ODENet(torch.nn.Linear(1, 1, bias=False), 2, learnable_steps=True)
    >>> u = torch.tensor([0.5, 0.5, 3.0, 4.0])  # learnable_steps, weights
    >>> depth_transfer(net).prolong(u).tolist()
    [0.5, 0.0, 0.5, 0.0, 3.0, 3.0, 4.0, 4.0]
    """
    _check_net("depth_transfer", net)
    transfers = layer_transfers(net, factor, kind_of(net, factor, how))
    trained = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    return PackedTransfer(tuple((tuple(p.shape), transfers.get(name)) for name, p in trained))


def _check_net(owner: str, net: ODENet) -> None:
    if not isinstance(net, ODENet):
        raise TypeError(f"{owner} got a {type(net).__name__}; it refines an ODENet")
    net.check_derived(owner)
