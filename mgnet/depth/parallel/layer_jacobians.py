"""Jacobians of recorded layers, for Newton's method over layers."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Protocol

from torch import Tensor

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.tangent import TangentBlock
from mgnet.limits import check_memory

__all__ = ["backward_jacobians", "work_of"]


class Recorded(Protocol):
    """The part of a tape's interface that is used here."""

    def vjp(self, lam: Tensor) -> Tensor:
        """Return `(d slope / d state)^T lam`."""
        ...


def work_of(kernel: StackedBlock, structure: str, states: Tensor) -> float:
    """The work per layer: one evaluation, plus a vector-Jacobian product per entry of a sample.

    Parameters
    ----------
    kernel : StackedBlock
        The block, which evaluates many layers in one call.
    structure : {"dense", "diagonal"}
        Structure of the Jacobians.
    states : Tensor of shape (k, batch, ...)
        States of k layers.

    Returns
    -------
    float
        The number of evaluations and products per layer.

    Examples
    --------
    >>> import torch
    >>> work_of(StackedBlock(torch.nn.Tanh()), "dense", torch.zeros(8, 16, 5))
    6.0
    """
    axes = _sample_axes(kernel)
    return 1.0 + prod(states.shape[1:axes]) * prod(states.shape[axes + 1 :])


def backward_jacobians(
    kernel: StackedBlock, tape: Recorded | None, scale: Tensor, states: Tensor, structure: str
) -> Tensor:
    """The transposed Jacobians of `u + s F(u)`, or their diagonals, per layer and sample.

    There is one vector-Jacobian product per entry of a sample, for all layers and samples at once.
    If a block mixes the samples of a batch, as batch norm does in training, the Jacobians of single
    samples are only approximations. The same holds for a `TangentBlock`, in which state and tangent
    have separate Jacobians.

    Parameters
    ----------
    kernel : StackedBlock
        The block, which evaluates many layers in one call.
    tape : Tape
        The tape of k layers; None if there are none.
    scale : Tensor
        The steps s, shaped to multiply states.
    states : Tensor of shape (k, batch, ...)
        States with H entries per sample.
    structure : {"dense", "diagonal"}
        Structure of the Jacobians.

    Returns
    -------
    Tensor
        Dense Jacobians of shape (k, batch, H, H), whose columns are the products, or diagonals in
        the shape of the states.

    Raises
    ------
    ValueError
        If dense Jacobians would not fit into the memory of the machine.

    Examples
    --------
    >>> import torch
    >>> class Double:
    ...     def vjp(self, lam):
    ...         return 2.0 * lam
    >>> half, states = torch.full((1, 1, 1), 0.5), torch.ones(1, 1, 2)
    >>> backward_jacobians(StackedBlock(torch.nn.Tanh()), Double(), half, states, "dense")
    tensor([[[[2., 0.],
              [0., 2.]]]])
    """
    axes = _sample_axes(kernel)
    entries, dense = prod(states.shape[axes + 1 :]), structure == "dense"
    if dense:
        check_memory(
            3 * states.numel() * entries * states.itemsize,
            f"Newton's method got dense Jacobians of states of {entries} entries",
            "take newton(diagonal), newton(identity) or cycles",
        )
    shape = (*states.shape[: axes + 1], entries)
    found = states.new_empty((*shape, entries) if dense else shape)
    rows = [range(n) for n in states.shape[1:axes]]
    for *row, j in product(*rows, range(entries) if len(states) else ()):
        own = (slice(None), *row, slice(None))
        unit = states.new_zeros(shape)
        unit[(*own, j)] = 1.0
        unit = unit.view(states.shape)
        pulled = (unit + scale * tape.vjp(unit)).view(shape)[own]  # type: ignore[union-attr]
        if dense:
            found[own][..., j] = pulled
        else:
            found[own][..., j] = pulled[..., j]
    return found if dense else found.view(states.shape)


def _sample_axes(kernel: StackedBlock) -> int:
    """The axis of the samples in states of many layers: 1, or more with nested tangents."""
    axes = 1
    while isinstance(kernel, TangentBlock):
        axes, kernel = axes + 1, kernel.block
    return axes
