"""Refinement of a PyTorch optimizer's state with an ODE net, for custom training loops."""

from __future__ import annotations

import torch

from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.network.refinement import kind_of, layer_transfers
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.training.optimizers.refined_optimizer import check_refinement, refined_optimizer
from mgnet.transfer import AxisTransfer

__all__ = ["refine_optimizer"]


def refine_optimizer(
    optimizer: torch.optim.Optimizer, coarse: ODENet, fine: ODENet, how: str | None = None
) -> torch.optim.Optimizer:
    """Create an optimizer for a refined net with the state of the coarse net's optimizer.

    Moments of weights and steps are transferred like the gradients; step counts, groups and options
    stay the same. For KANs, use `mgnet.knots.refine_optimizer`.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer of the parameters of `coarse`, of any class. Parameters of other modules stay
        in it. The levels of a `MultilevelGradient` keep their state, below a new finest level.
    coarse, fine : ODENet
        The coarse net, and `fine = coarse.refine(factor, how)`.
    how : str, optional
        The kind of refinement, if it was passed to `ODENet.refine`.

    Returns
    -------
    torch.optim.Optimizer
        A new optimizer of the same class; learning-rate schedulers must be created again.

    Raises
    ------
    TypeError
        If the arguments are not an optimizer and two ODE nets.
    ValueError
        If `fine` is not a refinement of `coarse`, or the optimizer has no parameters of `coarse`.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> x = torch.linspace(-1, 1, 50).unsqueeze(1)
    >>> block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    >>> ends = torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)
    >>> net = ODENet(block, 2, learnable_steps=True, before=ends[0], after=ends[1])
    >>> optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    >>> for step in range(150):
    ...     if step in (50, 100):
    ...         fine = net.refine()
    ...         net, optimizer = fine, refine_optimizer(optimizer, net, fine)
    ...     loss = (net(x) - torch.sin(3 * x)).square().mean()
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    >>> net.depth, float(loss.detach()) < 0.02
    (8, True)
    """
    check_refinement(optimizer, coarse, fine, ODENet)
    knots = how == "knots" or coarse.depth == fine.depth
    sizes = [_knot_intervals(net) if knots else net.depth for net in (coarse, fine)]
    factor, rest = divmod(sizes[1], max(sizes[0], 1))
    transfers: dict[str, AxisTransfer] = {}
    refinable = factor > 1 and not rest
    if refinable:
        how = kind_of(coarse, factor, "knots" if knots else how)
        transfers = layer_transfers(coarse, factor, how)
    named, refined = dict(coarse.named_parameters()), dict(fine.named_parameters())
    wanted = {name: tuple(p.shape) for name, p in named.items()}
    wanted |= {name: (len(t.P), *wanted[name][1:]) for name, t in transfers.items()}
    # Shared and spline weights do not change if steps are equal.
    if not refinable or wanted != {name: tuple(p.shape) for name, p in refined.items()}:
        raise ValueError(
            f"refine_optimizer got ODENet({coarse.extra_repr()}) and ODENet({fine.extra_repr()}); "
            "the second must be coarse.refine(factor, how), with the same how"
        )
    counterparts = {p: refined[name] for name, p in named.items()}
    return refined_optimizer(optimizer, counterparts, {named[n]: t for n, t in transfers.items()})


def _knot_intervals(net: ODENet) -> int:
    weights = net.weights
    return weights.control_points - weights.degree if isinstance(weights, DepthSpline) else 0
