"""An optimizer for the parameters of a refined network, with the state of the old one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from mgnet.training.loss.parameters import lift
from mgnet.training.optimizers.carried_levels import carried_levels, refined_transfers
from mgnet.training.optimizers.multilevel_gradient import MultilevelGradient
from mgnet.training.optimizers.optimizer import carried_moments, carried_pairs
from mgnet.transfer import AxisTransfer, PackedTransfer

__all__ = ["check_refinement", "refined_optimizer"]

Transfers = Mapping[Any, AxisTransfer | None]


def check_refinement(optimizer: Any, coarse: Any, fine: Any, kind: type) -> None:
    """Check that the arguments are an optimizer and two networks of this kind.

    Raises
    ------
    TypeError
        If one of the objects has the wrong type.

    Examples
    --------
    >>> check_refinement(None, None, None, torch.nn.Linear)
    Traceback (most recent call last):
    TypeError: refine_optimizer got (NoneType, NoneType, NoneType); give the optimizer, the coarse \
Linear and the fine Linear
    """
    if not isinstance(optimizer, torch.optim.Optimizer) or not (
        isinstance(coarse, kind) and isinstance(fine, kind)
    ):
        got = ", ".join(type(part).__name__ for part in (optimizer, coarse, fine))
        name = kind.__name__
        raise TypeError(
            f"refine_optimizer got ({got}); give the optimizer, the coarse {name} and the fine "
            f"{name}"
        )


def refined_optimizer(
    optimizer: torch.optim.Optimizer, counterparts: Mapping[Any, Any], transfers: Transfers
) -> torch.optim.Optimizer:
    """An optimizer of the same class for the refined parameters, with the same options and state.

    Entries with one row per point of a refined axis are prolonged without negative weights and
    scaled like the gradient (`carried_moments`); the pairs of L-BFGS are carried by
    `carried_pairs`; step counts and options do not change.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Optimizer of the coarse network.
    counterparts : mapping
        The refined parameter for each old one; other parameters remain in the optimizer.
    transfers : mapping
        Transfer of each old parameter; None, or no entry, if it was not refined.

    Raises
    ------
    ValueError
        If the optimizer contains none of these parameters.

    Examples
    --------
    >>> coarse, fine = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(2))
    >>> optimizer = torch.optim.SGD([coarse], lr=0.1, momentum=0.9)
    >>> coarse.sum().backward()
    >>> optimizer.step()
    >>> P = AxisTransfer(torch.ones(2, 1))
    >>> carried = refined_optimizer(optimizer, {coarse: fine}, {coarse: P})
    >>> carried.state[fine]["momentum_buffer"]
    tensor([1., 1.])
    """
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if not any(p in counterparts for p in held):
        raise ValueError(
            "refine_optimizer got an optimizer that holds no parameter of the coarse network; "
            "give the one that trained it"
        )
    groups = [
        {**group, "params": [counterparts.get(p, p) for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    if isinstance(optimizer, MultilevelGradient):
        return _refined_levels(optimizer, groups, counterparts, transfers)
    kind: Any = type(optimizer)
    carried = kind(groups)
    old = optimizer.state_dict()
    if isinstance(optimizer, torch.optim.LBFGS):
        whole = PackedTransfer(tuple((tuple(p.shape), transfers.get(p)) for p in held))
        state = {number: carried_pairs(_lifted(e), whole) for number, e in old["state"].items()}
    else:
        state = {
            number: _carried(entries, held[number], transfers.get(held[number]))
            for number, entries in old["state"].items()
        }
    carried.load_state_dict({**old, "state": state})
    return carried


def _refined_levels(
    optimizer: MultilevelGradient,
    groups: list[dict[str, Any]],
    counterparts: Mapping[Any, Any],
    transfers: Transfers,
) -> MultilevelGradient:
    """The old levels with, for every refined parameter, a new finest one; other parameters stay."""
    # Parameters that are not refined have counterparts, too, and keep their levels.
    chains: dict[Any, Any] = {
        counterparts.get(p, p): system.transfers for p, system in optimizer.systems.items()
    }
    for p, fine in counterparts.items():
        transfer = transfers.get(p)
        if transfer is not None:
            chains[fine] = refined_transfers(optimizer.systems.get(p), transfer, optimizer.levels)
    options, levels = optimizer.options, optimizer.levels
    refined = MultilevelGradient(optimizer.kind, chains, options, levels=levels, groups=groups)
    state = {}
    entries: Any
    p: Any
    for p, entries in optimizer.state.items():
        fine = counterparts.get(p, p)
        system, transfer = refined.systems.get(fine), transfers.get(p)
        if transfer is None:
            state[fine] = entries  # loading makes copies
        elif system is None:
            state[fine] = _carried(entries, p, transfer)
        else:
            state[fine] = carried_levels(entries, optimizer.systems.get(p), system)
    told = refined.state_dict()
    held = [p for group in refined.param_groups for p in group["params"]]
    numbers = {p: number for number, p in enumerate(held)}
    refined.load_state_dict({**told, "state": {numbers[p]: each for p, each in state.items()}})
    return refined


def _carried(
    entries: dict[str, Any], parameter: torch.Tensor, transfer: AxisTransfer | None
) -> dict[str, Any]:
    """The state of one parameter: entries with the refined axis are prolonged."""
    if transfer is None:
        return copy.deepcopy(entries)
    axis: Any = transfer.axis
    up = {
        name: lift(value)
        for name, value in entries.items()
        if isinstance(value, torch.Tensor)
        and value.dim() == parameter.dim()
        and value.shape[axis] == parameter.shape[axis]
        # Adafactor's means over the last axis but one, which may have only one row.
        and not (name == "col_var" and axis == parameter.dim() - 2)
    }
    rest = {name: value for name, value in entries.items() if name not in up}
    return copy.deepcopy(rest) | carried_moments(up, transfer)


def _lifted(entries: dict[str, Any]) -> dict[str, Any]:
    """Convert half precision to float32, even in lists; `load_state_dict` rounds it again."""
    return {
        name: [lift(each) for each in value] if isinstance(value, list) else lift(value)
        for name, value in entries.items()
    }
