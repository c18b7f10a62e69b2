"""What an ODE net refuses at its border: states that its block cannot take."""

from __future__ import annotations

import torch

__all__ = ["checked_state"]


def checked_state(block: torch.nn.Module, u: torch.Tensor) -> torch.Tensor:
    """The state, if precision, device and, where the block begins with a Linear, width fit.

    Parameters
    ----------
    block : torch.nn.Module
        With the parameters of all layers, stacked on axis 0.
    u : tensor of shape (batch, ...)

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> checked_state(torch.nn.Linear(4, 4), torch.zeros(2, 3))
    Traceback (most recent call last):
    ValueError: ODENet got a state of shape (2, 3), but its block takes 4 numbers on the last axis;
    change the input, or put a module `before` that makes them
    """
    if not isinstance(u, torch.Tensor):
        raise TypeError(f"ODENet got a state of type {type(u).__name__}; give a tensor")
    weight = next((p for p in block.parameters() if p.is_floating_point()), None)
    if weight is None:
        return u
    if u.dtype != weight.dtype and not torch.is_autocast_enabled(u.device.type):
        raise TypeError(
            f"ODENet got a state of {u.dtype}, but its block has weights of {weight.dtype}; "
            f"convert one of them, as with x.to({weight.dtype})"
        )
    if u.device != weight.device:
        raise ValueError(
            f"ODENet got a state on {u.device}, but its block is on {weight.device}; move one of "
            f"them, as with x.to({str(weight.device)!r})"
        )
    first = block[0] if isinstance(block, torch.nn.Sequential) and len(block) else block
    if type(first) is torch.nn.Linear and u.shape[-1:] != (first.in_features,):
        raise ValueError(
            f"ODENet got a state of shape {tuple(u.shape)}, but its block takes "
            f"{first.in_features} numbers on the last axis; change the input, or put a module "
            "`before` that makes them"
        )
    return u
