"""Buffers that are the same in all layers and stored once: masks, rotary embedding caches.

The user must name these buffers, because equal values at construction do not imply equal values
later: running statistics also start equal. Shared buffers have the shape (1, ...), like shared
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mgnet.depth.batched.draws import KEY
from mgnet.depth.batched.layer_rate import LayerRate
from mgnet.depth.network.dropout import KeyedDropout
from mgnet.depth.network.layer_stack import LayerSlots
from mgnet.limits import shown

__all__ = ["convert_state", "own_buffers", "share_buffers"]


def own_buffers(block: torch.nn.Module) -> list[str]:
    """The names of the buffers of a stacked block that come from its layers.

    Examples
    --------
    >>> own_buffers(torch.nn.Sequential(torch.nn.BatchNorm1d(2), KeyedDropout(0.5, False, 4)))
    ['0.running_mean', '0.running_var', '0.num_batches_tracked']
    """
    added = {KEY}
    for prefix, part in block.named_modules():
        rates = [x.buffer for x in vars(part).values() if isinstance(x, LayerRate)]
        for name in (*rates, *["key"] * isinstance(part, KeyedDropout)):
            added.add(f"{prefix}.{name}" if prefix else name)
    return [name for name, _ in block.named_buffers() if name not in added]


def share_buffers(block: torch.nn.Module, names: Any, within: str = "") -> tuple[str, ...]:
    """Store these buffers of a stacked block once, with the shape (1, ...).

    Parameters
    ----------
    block : torch.nn.Module
        The stacked block, changed in place.
    names : sequence of str
        Names of the buffers.
    within : str
        Prefix of the names, for buffers of a submodule.

    Returns
    -------
    tuple of str
        The full names of the buffers in the block.

    Raises
    ------
    TypeError, ValueError
        If there is no such buffer, or if its values differ between layers.

    Examples
    --------
    >>> block = torch.nn.Module()
    >>> block.register_buffer("mask", torch.ones(4, 3, 3))
    >>> share_buffers(block, ["mask"]), block.mask.shape
    (('mask',), torch.Size([1, 3, 3]))
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(
            f"ODENet got shared_buffers={shown(names)}; give a list of names of buffers"
        )
    known, places = own_buffers(block), LayerSlots(block).buffers
    for name in names:
        if f"{within}{name}" not in known:
            have = ", ".join(each.removeprefix(within) for each in known) or "none"
            raise ValueError(
                f"ODENet got shared_buffers with {shown(name)}; the buffers of its block are {have}"
            )
        value = block.get_buffer(f"{within}{name}")
        number = _first_other(value)
        if number:
            raise ValueError(
                f"ODENet got shared_buffers with {name}, which has other values in layer {number} "
                "than in layer 0; leave it out, so that each layer keeps its own"
            )
        for holder, key in places[f"{within}{name}"]:
            holder[key] = value[:1].clone()
    return tuple([f"{within}{name}" for name in names])


def _first_other(value: torch.Tensor) -> int | None:
    """The number of the first layer whose values differ from those of layer 0."""
    if value.is_meta:
        return None
    return next((n for n in range(len(value)) if not torch.equal(value[n], value[0])), None)


def convert_state(
    state: Any, prefix: str, block: torch.nn.Module, shared: Sequence[str], layers: int
) -> None:
    """Convert a state in place: one row for shared buffers, one row per layer for the others.

    Parameters
    ----------
    state : dict of str to Tensor
        The state to be loaded.
    prefix : str
        Prefix of the names of tensors in the block.
    block : torch.nn.Module
        The block that will load the state.
    shared : sequence of str
        Names of the buffers that the block stores once.
    layers : int
        Number of layers of the block.

    Raises
    ------
    RuntimeError
        If the rows of a buffer that the block stores once differ.

    Examples
    --------
    >>> block, state = torch.nn.Module(), {"mask": torch.ones(4, 3)}
    >>> block.register_buffer("mask", torch.zeros(1, 3))
    >>> convert_state(state, "", block, ["mask"], 4)
    >>> state["mask"].shape
    torch.Size([1, 3])
    """
    first = {id(x): name for name, x in block.named_buffers()}
    for name, own in block.named_buffers(remove_duplicate=False):
        given = state.get(f"{prefix}{name}")
        if given is None or given.dim() != own.dim() or given.shape[1:] != own.shape[1:]:
            continue
        if first[id(own)] not in shared:
            if len(given) == 1 and len(own) == layers:
                state[f"{prefix}{name}"] = given.expand(own.shape).clone()
        elif len(given) == layers:
            if _first_other(given):
                raise RuntimeError(
                    f"ODENet got a state whose {name} has a value for each layer, and keeps one "
                    "for all of them; make the net without it in shared_buffers"
                )
            state[f"{prefix}{name}"] = given[:1].clone()
