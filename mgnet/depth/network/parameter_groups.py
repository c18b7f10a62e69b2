"""Parameter groups for weight decay if layers are stacked."""

from __future__ import annotations

from collections import Counter
from numbers import Real
from typing import Any

import torch

from mgnet.depth.network.ode_net import ODENet

__all__ = ["parameter_groups"]


def parameter_groups(net: torch.nn.Module, weight_decay: float = 0.01) -> list[dict[str, Any]]:
    """Divide the trainable parameters into two groups: only matrices decay, not biases and norms.

    The usual rule, "decay if `p.ndim >= 2`", is wrong for an ODE net, whose biases have the
    shape (layers, width). Here the axis of the layers is not counted.

    Parameters
    ----------
    net : torch.nn.Module
        An ODENet, a LayerParallel, or a module that contains them; other modules follow the usual
        rule. For a distributed module, call this function after `distribute_layers`.
    weight_decay : float
        Weight decay of the first group.

    Returns
    -------
    list of two dict
        Groups with "params" and "weight_decay". The first contains the parameters with at least two
        axes besides that of the layers; the second contains the others, with decay 0.

    Raises
    ------
    TypeError
        If `net` is not a module, or `weight_decay` is not a number.
    ValueError
        If `weight_decay` is negative.

    Examples
    --------
    >>> block = torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.Linear(8, 8), torch.nn.Tanh())
    >>> net = ODENet(block, 16, after=torch.nn.Linear(8, 5))
    >>> optimizer = torch.optim.AdamW(parameter_groups(net, 0.1), lr=1e-3)
    >>> for group in optimizer.param_groups:
    ...     print(group["weight_decay"], [tuple(p.shape) for p in group["params"]])
    0.1 [(16, 8, 8), (5, 8)]
    0.0 [(16, 8), (16, 8), (16, 8), (5,)]
    """
    if not isinstance(net, torch.nn.Module):
        raise TypeError(
            f"parameter_groups got a {type(net).__name__}; give the module whose parameters are "
            "trained"
        )
    if not isinstance(weight_decay, Real):
        raise TypeError(f"parameter_groups got weight_decay {weight_decay!r}; it must be a number")
    if not weight_decay >= 0.0:  # also true for NaN
        raise ValueError(
            f"parameter_groups got weight_decay {weight_decay}; it must not be negative"
        )
    nets = [part for part in net.modules() if isinstance(part, ODENet)]
    stacked = Counter(p for part in nets for p in part.block.parameters())
    trained = [p for p in net.parameters() if p.requires_grad]
    decays = [p for p in trained if p.ndim - stacked[p] >= 2]
    others = [p for p in trained if p.ndim - stacked[p] < 2]
    return [
        {"params": decays, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
