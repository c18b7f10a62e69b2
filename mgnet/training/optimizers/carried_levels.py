"""The optimizer state for the levels of a parameter after the parameter is refined."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from mgnet.training.loss.parameters import lift
from mgnet.training.optimizers.generating_system import GeneratingSystem, sparse
from mgnet.training.optimizers.optimizer import POWERS, carried_moments
from mgnet.transfer import AxisTransfer

__all__ = ["carried_levels", "refined_transfers"]


def refined_transfers(
    system: GeneratingSystem | None, transfer: AxisTransfer, levels: int | None
) -> list[AxisTransfer]:
    """The transfers of a refined parameter, whose levels are the old levels and a new finest one.

    Parameters
    ----------
    system : GeneratingSystem or None
        Levels of the parameter before; None if it had one level.
    transfer : AxisTransfer
        Transfer from the parameter to the refined one.
    levels : int or None
        Largest number of levels.

    Examples
    --------
    >>> P = AxisTransfer(torch.ones(2, 1))
    >>> len(refined_transfers(GeneratingSystem((2,), [P]), AxisTransfer(torch.eye(2)), None))
    2
    """
    former = () if system is None else system.transfers
    return [transfer, *former][: None if levels is None else levels - 1]


def carried_levels(
    state: Mapping[str, Any],
    system: GeneratingSystem | None,
    refined: GeneratingSystem,
) -> dict[str, Any]:
    """The optimizer state of the levels of a parameter, moved to the levels of the refined one.

    Levels that both parameters have keep their state exactly, since their gradients are the same.
    The new finest level begins with `carried_moments` of the old finest level. The momentum of
    plain SGD, however, is carried like an average of gradients, because the old finest level itself
    continues its steps.

    Parameters
    ----------
    state : mapping
        State of the optimizer for the parameter.
    system : GeneratingSystem or None
        Levels of the parameter before; None if it had one level.
    refined : GeneratingSystem
        Levels of the refined parameter, from `refined_transfers`.

    Examples
    --------
    >>> P = AxisTransfer(torch.tensor([[1.0], [1.0]]))
    >>> state = {"step": 3, "exp_avg": torch.tensor([4.0])}
    >>> carried_levels(state, None, GeneratingSystem((2,), [P]))
    {'step': 3, 'exp_avg': tensor([2., 2., 4.])}
    """
    first, kept = refined.sizes[1], sum(refined.sizes[1:])
    P = sparse(refined.transfers[0].P)
    plain = not POWERS.keys() & state.keys()
    carried = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or not value.dim():
            carried[name] = copy.deepcopy(value)
            continue
        value = lift(value if system is not None else value.movedim(refined.axis, 0))
        up = AxisTransfer(P.to(value), axis=0)
        if plain and name == "momentum_buffer":
            finest = up.carry_gradient(value[:first])
        else:
            finest = carried_moments({name: value[:first]}, up)[name]
        carried[name] = torch.cat([finest, value[:kept]])
    return carried
