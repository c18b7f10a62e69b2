"""The way from the units of a table to a network and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mgnet.knots import KAN

__all__ = ["Scales", "continued"]


@dataclass(frozen=True)
class Scales:
    """Inputs are mapped linearly to an interval, targets are standardised.

    Attributes
    ----------
    ranges : tuple of (float, float)
        Of each input; they are mapped to the ends of the domain.
    mean, scale : tuple of float
        Of each target: value = mean + scale * output.
    domain : (float, float)

    Examples
    --------
    >>> scales = Scales.of(np.array([[300.0], [500.0]]), np.array([[1.0], [3.0]]))
    >>> scales.inputs([[400.0]]).tolist(), scales.values(torch.tensor([[1.0]])).tolist()
    ([[0.0]], [[3.0]])
    """

    ranges: tuple[tuple[float, float], ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    domain: tuple[float, float] = (-1.0, 1.0)

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray | None = None) -> Scales:
        """Those of rows: x of shape (rows, inputs), y of shape (rows, outputs) if any."""
        ranges = tuple(zip(x.min(0).tolist(), x.max(0).tolist(), strict=True))
        if y is None:
            return cls(ranges)
        deviation = y.std(0)
        deviation[deviation == 0.0] = 1.0  # a constant is its mean
        return cls(ranges, tuple(y.mean(0).tolist()), tuple(deviation.tolist()))

    def inputs(self, x: np.ndarray) -> torch.Tensor:
        """Rows as in the table, mapped to the domain; an input that did not vary to its start."""
        low, high = np.asarray(self.ranges).T
        width = np.where(high > low, high - low, 1.0)
        a, b = self.domain
        return torch.from_numpy(a + (b - a) * (np.asarray(x, dtype=float) - low) / width)

    def targets(self, y: np.ndarray) -> torch.Tensor:
        """(rows, outputs) as in the table -> standardised."""
        return torch.from_numpy((np.asarray(y, dtype=float) - self.mean) / self.scale)

    def values(self, outputs: torch.Tensor) -> np.ndarray:
        """(rows, outputs), standardised -> as in the table."""
        return np.asarray(self.mean) + np.asarray(self.scale) * outputs.detach().double().numpy()


def continued(network: KAN, z: torch.Tensor) -> torch.Tensor:
    """Outputs, continued out of the domain by the tangent at the nearest point of the box.

    Parameters
    ----------
    network : KAN
    z : tensor of shape (rows, inputs)

    Returns
    -------
    tensor of shape (rows, outputs)

    Examples
    --------
    >>> kan = KAN([1, 3, 1])
    >>> z = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    >>> bool(torch.isclose(*continued(kan, z).diff(dim=0)))
    True
    """
    inside = z.clamp(*network.domain).requires_grad_()
    outputs = network(inside)
    steps = []
    for column in outputs.T:
        (gradient,) = torch.autograd.grad(column.sum(), inside, retain_graph=True)
        steps.append(((z - inside.detach()) * gradient).sum(1))
    return outputs.detach() + torch.stack(steps, 1)
