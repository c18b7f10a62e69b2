"""The memory of a PyTorch optimizer refines with the network, for training loops of one's own."""

from __future__ import annotations

import copy
from typing import Any

import torch

from mgnet.knots.hierarchy import parameter_transfers
from mgnet.knots.kan import KAN
from mgnet.training.loss.parameters import lift
from mgnet.training.optimizers.carried_levels import carried_levels, refined_transfers
from mgnet.training.optimizers.multilevel_gradient import MultilevelGradient
from mgnet.training.optimizers.optimizer import carried_moments, carried_pairs
from mgnet.transfer import AxisTransfer, PackedTransfer

__all__ = ["refine_optimizer"]


def refine_optimizer(
    optimizer: torch.optim.Optimizer, coarse: KAN, fine: KAN
) -> torch.optim.Optimizer:
    """The optimizer of a refined network, with the memory of the coarse one's.

    What has an entry per coefficient goes through the prolongation, scaled as the gradient is
    (`carried_moments`), without negative weights; the pairs of L-BFGS by
    `carried_pairs`; step counts and options stay. Where the loss fell steeply, Adam's second
    moments are stale, with or without refinement, and a new optimizer may do better.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Of any class, on the parameters of `coarse`. Parameters of other modules stay in it. The
        levels of a `MultilevelGradient` keep their memory, below a new finest level.
    coarse, fine : KAN
        `fine` has the intervals of `coarse.refine(factor, layers)`.

    Returns
    -------
    torch.optim.Optimizer
        A new one of the same class; learning-rate schedulers must be made anew.

    Raises
    ------
    TypeError
        If these are not an optimizer and two KANs.
    ValueError
        If `fine` is not a refinement of `coarse`, or the optimizer has none of its parameters.

    Examples
    --------
    >>> x = torch.linspace(-1, 1, 100, dtype=torch.float64).unsqueeze(1)
    >>> kan = KAN([1, 3, 1], intervals=2)
    >>> optimizer = torch.optim.Adam(kan.parameters(), lr=1e-2)
    >>> for epoch in range(150):
    ...     if epoch in (100, 125):
    ...         fine = kan.refine()
    ...         kan, optimizer = fine, refine_optimizer(optimizer, kan, fine)
    ...     loss = (kan(x) - torch.sin(8 * x)).square().mean()
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    >>> kan.intervals, float(loss.detach()) < 0.1
    ((8, 8), True)
    """
    if not isinstance(optimizer, torch.optim.Optimizer) or not (
        isinstance(coarse, KAN) and isinstance(fine, KAN)
    ):
        got = ", ".join(type(part).__name__ for part in (optimizer, coarse, fine))
        raise TypeError(
            f"refine_optimizer got ({got}); give the optimizer, the coarse KAN and the fine KAN"
        )
    pairs = zip(coarse.intervals, fine.intervals, strict=False)
    layers = [number for number, (few, many) in enumerate(pairs) if few != many]
    factor = fine.intervals[layers[0]] // coarse.intervals[layers[0]] if layers else 1
    refined = [factor * n if k in layers else n for k, n in enumerate(coarse.intervals)]
    kept = [(one.widths, one.degree, one.domain, one.hidden) for one in (coarse, fine)]
    if factor < 2 or kept[0] != kept[1] or fine.intervals != tuple(refined):
        raise ValueError(
            f"refine_optimizer got networks KAN({coarse.extra_repr()}) and "
            f"KAN({fine.extra_repr()}); "
            "the second must be a refinement of the first"
        )
    counterparts = dict(zip(coarse.parameters(), fine.parameters(), strict=True))
    transfers = dict(parameter_transfers(coarse, factor, layers))
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
    counterparts: dict[Any, Any],
    transfers: dict[Any, AxisTransfer | None],
) -> MultilevelGradient:
    """The former levels of the splines, and a finer one; other parameters as they are."""
    # Layers that are not refined have counterparts, too, and keep their levels.
    chains: dict[Any, Any] = {
        counterparts.get(p, p): system.transfers for p, system in optimizer.systems.items()
    }
    for p, fine in counterparts.items():
        transfer = transfers[p]
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
            state[fine] = entries  # loading copies
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
    """The state of one parameter: what has its spline axis goes up, the rest is copied."""
    if transfer is None:
        return copy.deepcopy(entries)
    up = {
        name: lift(value)
        for name, value in entries.items()
        if isinstance(value, torch.Tensor)
        and value.dim() == 3
        and value.shape[1] == parameter.shape[1]
    }
    rest = {name: value for name, value in entries.items() if name not in up}
    return copy.deepcopy(rest) | carried_moments(up, transfer)


def _lifted(entries: dict[str, Any]) -> dict[str, Any]:
    """Half precision in float32, also in lists; `load_state_dict` rounds it again."""
    return {
        name: [lift(each) for each in value] if isinstance(value, list) else lift(value)
        for name, value in entries.items()
    }
