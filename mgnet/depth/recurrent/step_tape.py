"""The interface of derivatives of many time steps, for any cell."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["StepTape", "Steps", "by_weights", "jacobian_of_gates", "through_gates"]


class StepTape(Protocol):
    """Derivatives of some steps at the states before them.

    Examples
    --------
    `GRUTape`, `LSTMTape` and `CellTape` are.
    """

    def __getitem__(self, which: slice) -> StepTape:
        """The derivatives of some of the steps."""
        ...

    def vjp(self, v: Tensor) -> Tensor:
        """The product of `v`, shape (k, batch, S), with the derivative with respect to states."""
        ...

    def gradients(self, v: Tensor) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
        """The products of `v` with the derivatives with respect to inputs and weights."""
        ...

    def jacobian(self, structure: str) -> Tensor:
        """The derivative with respect to states: "dense" (.., S, S) or "diagonal" (.., S)."""
        ...


class Steps(Protocol):
    """Many time steps in one call; the only object that depends on the kind of cell.

    Examples
    --------
    `GRUSteps`, `LSTMSteps` and `CellSteps` implement this protocol.
    """

    def advance(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> Tensor:
        """Compute the states after the steps, each of which may represent several fine steps."""
        ...

    def record(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> StepTape:
        """The derivatives of `advance`."""
        ...

    def linearize(
        self, inputs: Tensor, lengths: Tensor | None, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """The result of `advance`, and the derivative as in `StepTape.jacobian`."""
        ...


def by_weights(opening: Tensor, states: Tensor, biased: bool) -> tuple[Tensor | None, ...]:
    """The gradients with respect to weight and bias, from those of the gates' arguments.

    Parameters
    ----------
    opening : Tensor of shape (k, batch, gates H)
        Gradients with respect to `weight h + bias`.
    states : Tensor of shape (k, batch, H)
        The states h.
    biased : bool
        Whether there is a bias.

    Examples
    --------
    >>> by_weights(torch.ones(2, 1, 1), torch.full((2, 1, 1), 3.0), True)
    (tensor([[6.]]), tensor([2.]))
    """
    flat = opening.flatten(0, 1)
    return flat.T @ states.flatten(0, 1), flat.sum(0) if biased else None


def through_gates(v: Tensor, factors: Tensor) -> Tensor:
    """The product of `v` with the derivatives of the gates, (k, batch, gates H).

    Parameters
    ----------
    v : Tensor of shape (k, batch, H)
        The cotangents of the states.
    factors : Tensor of shape (k, batch, gates, H)
        The derivatives with respect to the arguments of the gates' activations.

    Examples
    --------
    >>> through_gates(torch.ones(1, 1, 1), torch.tensor([[[[2.0], [3.0]]]]))
    tensor([[[2., 3.]]])
    """
    return (v[..., None, :] * factors).flatten(-2)


def jacobian_of_gates(factors: Tensor, weight: Tensor, structure: str) -> Tensor:
    """The sum over the gates of `diag(factors) W_gate`: "dense", or its diagonal.

    Parameters
    ----------
    factors : Tensor of shape (k, batch, gates, H)
        The derivatives with respect to the arguments of the gates' activations.
    weight : Tensor of shape (gates H, H)
        The matrix `weight_hh`.
    structure : {"dense", "diagonal"}
        Structure of the result.

    Examples
    --------
    >>> jacobian_of_gates(torch.ones(1, 1, 1, 1), torch.tensor([[3.0]]), "dense")
    tensor([[[[3.]]]])
    """
    gates = weight.view(factors.shape[-2], -1, weight.shape[-1])
    if structure == "diagonal":
        return (factors * torch.diagonal(gates, dim1=1, dim2=2)).sum(-2)
    return torch.einsum("tbgh,ghj->tbhj", factors, gates)
