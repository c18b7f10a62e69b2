"""A KAN as a multilayer perceptron with several ReLU^k channels per neuron."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from mgnet.knots.change_of_basis import from_channels, to_channels
from mgnet.knots.kan import KAN
from mgnet.knots.network_state import OptionsInState, check_no_hooks, check_plain
from mgnet.knots.precision import in_full_precision, raised, under_autocast
from mgnet.knots.refinement import uniform_knots
from mgnet.knots.spline_network import into_domain

__all__ = ["MultichannelMLP", "channel_layer"]

torch.fx.wrap("channel_layer")  # one node per call in the graphs of `torch.fx.symbolic_trace`
torch.fx.wrap("raised")


def channel_layer(x: torch.Tensor, weight: torch.Tensor, knots: Any, degree: int) -> torch.Tensor:
    """Evaluate a layer `sum_p sum_j weight[p, j, q] max(0, x_p - t_j)^degree`, on any knots.

    Beyond the domain, it is continued linearly with the value and slope at the boundary, like
    splines.

    Parameters
    ----------
    x : tensor of shape (..., inputs)
        The inputs.
    weight : tensor of shape (inputs, n + degree, outputs)
        The channel weights.
    knots : sequence, array or tensor of n + 2 degree + 1 numbers
        Knots, strictly increasing; the domain is `[knots[degree], knots[-degree - 1]]`.
    degree : int
        Exponent of the channels.

    Returns
    -------
    tensor of shape (..., outputs)
        The outputs.

    Examples
    --------
    >>> hat = torch.tensor([0.0, 1.0, -2.0]).reshape(1, 3, 1)
    >>> x = torch.tensor([[0.25], [1.0], [1.5], [3.0]])
    >>> channel_layer(x, hat, [-1.0, 0.0, 1.0, 2.0, 3.0], degree=1).flatten().tolist()
    [0.25, 1.0, 0.5, -1.0]
    """
    if under_autocast(x):
        return in_full_precision(channel_layer, x, weight, knots, degree)
    t = torch.as_tensor(knots, dtype=x.dtype, device=x.device)
    inside = x.clamp(t[degree], t[-degree - 1])
    distance = inside.unsqueeze(-1) - t[: weight.shape[1]]
    # At its knot, a channel counts as active: for degree 1, the left end needs the slope of one.
    active = (distance >= 0.0).to(x.dtype)
    slopes = degree * active * distance ** (degree - 1)
    channels = active * distance**degree + slopes * (x - inside).unsqueeze(-1)
    return channels.flatten(-2) @ weight.flatten(0, 1)


class MultichannelMLP(OptionsInState):
    """The function of a KAN as a multilayer perceptron with ReLU^degree channels.

    Each layer maps every input to one channel per knot, `max(0, x - t_j)^degree` with fixed biases,
    followed by a plain matrix. The weights are `w = A^T u`, and gradients satisfy
    `grad_u = A grad_w`: gradient descent on them is gradient descent on the KAN in another metric,
    that of `GradientDescent(geometry="relu")`. Source: Southworth et al., arXiv 2603.04827, KAN
    layers in the ReLU basis.

    This is a reference, not a fast implementation: the cost grows with the number n of intervals,
    and rounding errors of the outputs grow like eps n^degree, because large channels cancel.
    The largest difference from the KAN, relative to the largest output, was measured for
    [2, 5, 1] and n = 4, 16, 64. With cubic splines it is 1e-13, 2e-12, 4e-11 in float64 and 4e-5,
    5e-4, 2e-2 in float32. In float64 it is 2e-15, 4e-15, 2e-14 with degree 1, and 3e-12, 8e-11,
    2e-8 with degree 5.

    Parameters
    ----------
    kan : KAN
        The KAN; its parameters are converted, not shared. `MultichannelMLP(KAN(...))` is a new
        network.

    Raises
    ------
    TypeError
        If `kan` is not a plain `KAN`.

    Attributes
    ----------
    weights : ParameterList
        Channel weights; `weights[l]` has the shape (inputs, channels, outputs) of
        `kan.coefficients[l]`.

    Examples
    --------
    >>> kan = KAN([2, 5, 1], intervals=8)
    >>> mlp = MultichannelMLP(kan)
    >>> x = torch.rand(10, 2, dtype=torch.float64)
    >>> bool((mlp(x) - kan(x)).abs().max() < 1e-11), mlp.weights[0].shape
    (True, torch.Size([2, 11, 5]))
    """

    __call__: Callable[..., torch.Tensor]

    def __init__(self, kan: KAN):
        super().__init__()
        if not isinstance(kan, KAN):
            raise TypeError(f"MultichannelMLP got a {type(kan).__name__}; give a KAN")
        check_plain("MultichannelMLP", kan, KAN)
        self.widths = kan.widths
        self.intervals = kan.intervals
        self.degree = kan.degree
        self.domain = kan.domain
        self.hidden = kan.hidden
        self.linear = copy.deepcopy(kan.linear)
        self.weights = torch.nn.ParameterList(
            to_channels(u.detach(), uniform_knots(n, self.degree, self.domain), self.degree, axis=1)
            for n, u in zip(self.intervals, kan.coefficients, strict=True)
        )

    def state_options(self) -> dict[str, Any]:
        return {"degree": self.degree, "domain": self.domain, "hidden": self.hidden}

    def into_domain(self, hidden: torch.Tensor) -> torch.Tensor:
        """The fixed map of hidden values to the spline interval, as in the KAN."""
        return into_domain(hidden, self.hidden, self.domain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        check_no_hooks("MultichannelMLP", self.weights)
        if self.linear is not None:
            x = self.into_domain(raised(self.linear(x)))
        for number, (n, w) in enumerate(zip(self.intervals, self.weights, strict=True)):
            if number:
                x = self.into_domain(x)
            knots = uniform_knots(n, self.degree, self.domain).tolist()  # torch.fx needs a list
            x = channel_layer(x, w, knots, self.degree)
        return x

    def to_kan(self) -> KAN:
        """Create the KAN with the same function; its coefficients are `u = A^-T w`."""
        check_plain("MultichannelMLP.to_kan", self, MultichannelMLP)
        first = self.weights[0]
        kan = KAN(
            self.widths,
            self.intervals,
            self.degree,
            linear=self.linear is not None,
            domain=self.domain,
            hidden=self.hidden,
            dtype=first.dtype,
        ).to(first.device)
        kan.linear = copy.deepcopy(self.linear)
        with torch.no_grad():
            for n, w, u in zip(self.intervals, self.weights, kan.coefficients, strict=True):
                knots = uniform_knots(n, self.degree, self.domain)
                u.copy_(from_channels(w, knots, self.degree, axis=1))
        return kan
