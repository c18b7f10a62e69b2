"""The interface of spline networks that derivatives and Jacobians use: `SplineNetwork`."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from mgnet.knots.plain_operators import exact

__all__ = ["SplineNetwork", "into_domain"]


class SplineNetwork(Protocol):
    """A network whose edges are splines on uniform knots, such as `KAN`.

    Attributes
    ----------
    linear : torch.nn.Linear or None
        A linear layer before the first splines.
    coefficients : sequence of tensor of shape (inputs, splines, outputs)
        Coefficients of each spline layer.
    intervals : tuple of int
        Number of knot intervals per layer.
    degree : int
        Degree of the splines.
    domain : (float, float)
        The interval of all splines.
    hidden : "tanh" or "identity"
        The map of hidden values into the domain, see `into_domain`.
    """

    linear: Any
    coefficients: Any
    intervals: tuple[int, ...]
    degree: int
    domain: tuple[float, float]
    hidden: str

    def check_inputs(self, x: torch.Tensor, axes: int | None = None) -> None:
        """Raise an error unless x is a valid input."""
        ...

    def into_domain(self, hidden: torch.Tensor) -> torch.Tensor:
        """The fixed map of hidden values to the spline interval."""
        ...


def into_domain(hidden: torch.Tensor, kind: str, domain: tuple[float, float]) -> torch.Tensor:
    """The fixed map of hidden values to the spline interval: "tanh" or "identity".

    Examples
    --------
    >>> into_domain(torch.tensor([0.0]), "tanh", (0.0, 1.0)).tolist()
    [0.5]
    """
    if kind == "identity":
        return hidden
    a, b = domain
    middle, half = exact(0.5 * (a + b), hidden), exact(0.5 * (b - a), hidden)
    return middle + half * torch.tanh(hidden)
