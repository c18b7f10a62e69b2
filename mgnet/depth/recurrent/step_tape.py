"""What the derivatives of many time steps offer, whichever cell they are of."""

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
        """Those of some of the steps."""
        ...

    def vjp(self, v: Tensor) -> Tensor:
        """`v`, shape (k, batch, S), times the derivative by the states."""
        ...

    def gradients(self, v: Tensor) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
        """`v` times the derivatives by the inputs and by the weights."""
        ...

    def jacobian(self, structure: str) -> Tensor:
        """The derivative by the states: "dense" (k, batch, S, S), "diagonal" (k, batch, S)."""
        ...


class Steps(Protocol):
    """Many time steps in one call: the only part that knows what a cell is.

    Examples
    --------
    `GRUSteps`, `LSTMSteps` and `CellSteps` are.
    """

    def advance(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> Tensor:
        """The states after the steps, of which each may stand for several."""
        ...

    def record(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> StepTape:
        """The derivatives of `advance`."""
        ...

    def linearize(
        self, inputs: Tensor, lengths: Tensor | None, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """What `advance` gives, and the derivative by the states as of `StepTape.jacobian`."""
        ...


def by_weights(opening: Tensor, states: Tensor, biased: bool) -> tuple[Tensor | None, ...]:
    """The gradients by weight and bias of what opens gates.

    Parameters
    ----------
    opening : Tensor of shape (k, batch, gates H)
        Those by `weight h + bias`.
    states : Tensor of shape (k, batch, H)
        h.
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
    """`v` (k, batch, H) times the derivatives by what opens the gates, (k, batch, gates H).

    Parameters
    ----------
    v : Tensor of shape (k, batch, H)
    factors : Tensor of shape (k, batch, gates, H)

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
    weight : Tensor of shape (gates H, H)
    structure : {"dense", "diagonal"}

    Examples
    --------
    >>> jacobian_of_gates(torch.ones(1, 1, 1, 1), torch.tensor([[3.0]]), "dense")
    tensor([[[[3.]]]])
    """
    gates = weight.view(factors.shape[-2], -1, weight.shape[-1])
    if structure == "diagonal":
        return (factors * torch.diagonal(gates, dim1=1, dim2=2)).sum(-2)
    return torch.einsum("tbgh,ghj->tbhj", factors, gates)
