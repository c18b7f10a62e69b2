"""What an optimizer remembers of the levels of a parameter, when that is refined."""

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
    """Those of a refined parameter: its levels are the former ones below a new finest.

    Parameters
    ----------
    system : GeneratingSystem or None
        Of the parameter before; None where it had one level.
    transfer : AxisTransfer
        From it to the refined one.
    levels : int or None
        The most levels.

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
    """What an optimizer remembers of the levels of a parameter, on those of the refined one.

    Levels that both have keep theirs, digit for digit: their gradients are the same on both. The
    new finest level begins with what `carried_moments` makes of the former finest; but the momentum
    of plain SGD is carried as the average of gradients that it is, since the former finest level
    goes on with those steps itself.

    Parameters
    ----------
    state : mapping
    system : GeneratingSystem or None
        Of the parameter before; None where it had one level.
    refined : GeneratingSystem
        With `refined_transfers`.

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
