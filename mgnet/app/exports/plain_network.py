"""A model as a PyTorch module of basic operators, which can be exported to ONNX."""

from __future__ import annotations

import numpy as np
import torch

from mgnet.app.exports.formula import Formula
from mgnet.estimators.scales import exponents
from mgnet.knots.spline import dense_basis
from mgnet.knots.spline_network import into_domain

__all__ = ["PlainNetwork"]


Pair = tuple[torch.Tensor, torch.Tensor]


class PlainNetwork(torch.nn.Module):
    """Maps the features of a table to its targets, in double precision, including the scales.

    Beyond the training ranges, the module is extended by the tangent at the nearest point of the
    box. It differentiates in forward mode: values and their derivatives in the direction from that
    point to the input go through the layers together. Class probabilities are those of the nearest
    point.

    Parameters
    ----------
    formula : Formula
        Formula of the model.

    Examples
    --------
    >>> from mgnet.app.columns.encoding import Encoding
    >>> from mgnet.app.columns.targets import Targets
    >>> from mgnet.app.model import Model
    >>> from mgnet.estimators.scales import Scales
    >>> from mgnet.knots import KAN
    >>> scales = Scales(((300.0, 500.0),), (1.0,), (2.0,))
    >>> model = Model(KAN([1, 1]), Encoding.of_numbers(["T"]), Targets(("y",)), scales)
    >>> x = torch.tensor([[400.0], [600.0]], dtype=torch.float64)
    >>> PlainNetwork(Formula.of(model))(x).shape
    torch.Size([2, 1])
    """

    halves: torch.Tensor
    low: torch.Tensor
    length: torch.Tensor
    varies: torch.Tensor
    ends: torch.Tensor
    width: torch.Tensor
    largest: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor
    of_targets: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, formula: Formula):
        super().__init__()
        self.formula = formula
        size, low, length = formula.sized()
        targets = np.stack([formula.mean, formula.scale])
        of_targets = exponents(targets)
        mean, scale = np.ldexp(targets, -of_targets)
        a, b = formula.domain
        varies = length > 0.0
        # Python numbers would be rounded to single precision.
        numbers = {
            "ends": np.array([a, b]),
            "width": b - a,
            "largest": np.finfo(float).max,
            "mean": mean,
            "scale": scale,
            "halves": _halves(-size),
            "low": low,
            "length": np.where(varies, length, 1.0),
            "of_targets": _halves(of_targets),
        }
        numbers |= {f"layer_{k}": layer.coefficients for k, layer in enumerate(formula.layers)}
        if formula.linear is not None:
            numbers |= dict(zip(("weight", "bias"), formula.linear, strict=True))
        for name, array in numbers.items():
            self.register_buffer(name, torch.from_numpy(np.array(array)))
        self.register_buffer("varies", torch.from_numpy(varies))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (rows, features) to (rows, targets) or probabilities, NaN if an input is missing."""
        z = self._places(x)
        value = torch.clamp(z, self.ends[0], self.ends[1])
        if self.formula.classes:
            return torch.softmax(self._layers(value, torch.zeros_like(value))[0], 1)
        step = z - value
        length = step.abs().amax(1, keepdim=True).clamp(min=1.0)
        value, slope = self._layers(value, step / length)
        y = self.mean + self.scale * (value + slope * length)
        return y * self.of_targets[0] * self.of_targets[1]

    def _places(self, x: torch.Tensor) -> torch.Tensor:
        """The inputs mapped to the domain, like `Scales.inputs`."""
        x = x * self.halves[0] * self.halves[1]
        places = self.width * (x - self.low) / self.length
        places = torch.clamp(places, -self.largest, self.largest)
        # An input that did not vary counts only if it is missing.
        places = torch.where(self.varies | places.isnan(), places, 0.0)
        return self.ends[0] + places

    def _layers(self, value: torch.Tensor, slope: torch.Tensor) -> Pair:
        formula, first = self.formula, self.formula.linear is None
        if formula.linear is not None:
            value = value @ self.weight.T + self.bias
            slope = slope @ self.weight.T
        for number, layer in enumerate(formula.layers):
            if not first:
                value, slope = self._hidden(value, slope)
            u, first = self.get_buffer(f"layer_{number}"), False
            basis, slopes = dense_basis(value, layer.intervals, formula.degree, formula.domain)
            slopes = slopes * slope.unsqueeze(-1)
            value, slope = basis.flatten(1) @ u.flatten(0, 1), slopes.flatten(1) @ u.flatten(0, 1)
        return value, slope

    def _hidden(self, value: torch.Tensor, slope: torch.Tensor) -> Pair:
        if self.formula.hidden == "identity":
            return value, slope
        t = torch.tanh(value)
        inside = into_domain(value, self.formula.hidden, self.formula.domain)
        return inside, 0.5 * self.width * (1.0 - t * t) * slope


def _halves(exponents: np.ndarray) -> np.ndarray:
    """Two stacked factors of 2^exponent, which itself may exceed the range of doubles."""
    half = exponents // 2
    return np.stack([np.ldexp(1.0, half), np.ldexp(1.0, exponents - half)])
