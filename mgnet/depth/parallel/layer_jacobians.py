"""Jacobians of recorded layers, for Newton's method over layers."""

from __future__ import annotations

from math import prod
from typing import Protocol

import torch
from torch import Tensor

from mgnet.limits import check_memory

__all__ = ["backward_jacobians", "work_of"]


class Recorded(Protocol):
    """What is asked of a tape."""

    def vjp(self, lam: Tensor) -> Tensor:
        """`(d slope / d state)^T lam`."""
        ...


def work_of(structure: str, states: Tensor) -> float:
    """Evaluations and vector-Jacobian products for each layer: one more than a state has entries.

    Examples
    --------
    >>> work_of("dense", torch.zeros(8, 16, 5))
    6.0
    """
    return 1.0 + prod(states.shape[2:])


def backward_jacobians(tape: Recorded, scale: Tensor, states: Tensor, structure: str) -> Tensor:
    """The transposed Jacobians of `u + s F(u)`, or their diagonals, for each layer and sample.

    One vector-Jacobian product for each entry of a state, of all layers and samples at once. A
    block that mixes the samples of a batch, as batch norm does in training, has Jacobians that
    those of single samples only approximate.

    Parameters
    ----------
    tape : Tape
        Of k layers.
    scale : Tensor
        The steps s, shaped to multiply states.
    states : Tensor of shape (k, batch, ...)
        With H entries for each sample.
    structure : {"dense", "diagonal"}

    Returns
    -------
    Tensor of shape (k, batch, H, H), whose columns are the products; of the shape of the states

    Raises
    ------
    ValueError
        If dense ones would not fit into the memory of the machine.

    Examples
    --------
    >>> class Double:
    ...     def vjp(self, lam):
    ...         return 2.0 * lam
    >>> backward_jacobians(Double(), torch.full((1, 1, 1), 0.5), torch.ones(1, 1, 2), "dense")
    tensor([[[[2., 0.],
              [0., 2.]]]])
    """
    entries, dense = prod(states.shape[2:]), structure == "dense"
    if dense:
        check_memory(
            3 * states.numel() * entries * states.itemsize,
            f"Newton's method with dense Jacobians of states of {entries} entries",
            "take newton(diagonal), newton(identity) or cycles",
        )
    flat = states.flatten(2) if states.dim() > 2 else states[..., None]
    found = states.new_empty((*flat.shape, entries)) if dense else torch.empty_like(flat)
    for j in range(entries):
        unit = torch.zeros_like(flat)
        unit[..., j] = 1.0
        product = (unit.view(states.shape) + scale * tape.vjp(unit.view(states.shape))).view(
            flat.shape
        )
        if dense:
            found[..., j] = product
        else:
            found[..., j] = product[..., j]
    return found if dense else found.view(states.shape)
