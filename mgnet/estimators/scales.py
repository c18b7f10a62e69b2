"""Conversion between the units of a table and those of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from mgnet.knots import KAN

__all__ = ["Scales", "continued", "exponents", "mean_and_deviation"]


LARGEST = np.finfo(float).max
SMALLEST = np.finfo(float).smallest_subnormal


@dataclass(frozen=True)
class Scales:
    """Linear maps of inputs to an interval, and standardization of targets.

    All computations are relative to the magnitude of the column: if the units change by powers of
    two, a table is still mapped to the same numbers, within the range of a double.

    Attributes
    ----------
    ranges : tuple of (float, float)
        Range of each input, which is mapped to the domain. Both ends are equal for an input that
        did not vary.
    mean, scale : tuple of float
        Mean and scale of each target: value = mean + scale * output. The scale is 0 for a target
        that did not vary.
    domain : (float, float)
        Domain of the network's inputs.
    left_out : tuple of int
        Numbers of the inputs that the network omits because they did not vary.

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
    left_out: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        y: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        constant: Sequence[int] = (),
    ) -> Scales:
        """Compute the scales of rows: x of shape (rows, inputs), y (rows, outputs) or None.

        Constant inputs are omitted, except for one of them if all inputs are constant.
        """
        low, high = x.min(0), x.max(0)
        high[list(constant)] = low[list(constant)]
        ranges = tuple(zip(low.tolist(), high.tolist(), strict=True))
        left_out = tuple(constant)[len(constant) == len(ranges) :]
        if y is None:
            return cls(ranges, left_out=left_out)
        mean, deviation = mean_and_deviation(y, weights)
        return cls(ranges, tuple(mean.tolist()), tuple(deviation.tolist()), left_out=left_out)

    def narrowed(self) -> Scales:
        """The scales of a table without the omitted inputs."""
        left_out = set(self.left_out)
        ranges = (r for number, r in enumerate(self.ranges) if number not in left_out)
        return replace(self, ranges=tuple(ranges), left_out=())

    def inputs(self, x: np.ndarray) -> torch.Tensor:
        """Map rows of a table to the domain; inputs that did not vary are mapped to its start."""
        ranges, x = np.asarray(self.ranges, dtype=float).T, np.asarray(x, dtype=float)
        if self.left_out:
            ranges, x = (np.delete(array, self.left_out, 1) for array in (ranges, x))
        size = exponents(ranges)
        low, high = np.ldexp(ranges, -size)
        a, b = self.domain
        with np.errstate(over="ignore"):  # far outside the range
            places = (b - a) * (np.ldexp(x, -size) - low) / np.where(high > low, high - low, 1.0)
        places = np.where(high > low, np.clip(places, -LARGEST, LARGEST), 0.0)
        return torch.from_numpy(a + places)

    def targets(self, y: np.ndarray) -> torch.Tensor:
        """Standardize targets of shape (rows, outputs) in the units of the table."""
        size, mean, scale = self._sized()
        y = np.ldexp(np.asarray(y, dtype=float), -size)
        return torch.from_numpy((y - mean) / np.where(scale > 0.0, scale, 1.0))

    def values(self, outputs: torch.Tensor) -> np.ndarray:
        """Convert standardized outputs, (rows, outputs), to the units of the table."""
        size, mean, scale = self._sized()
        with np.errstate(over="ignore"):  # values beyond the range of a double become infinite
            return np.ldexp(mean + scale * outputs.detach().double().numpy(), size)

    def sizes(self, deviations: np.ndarray) -> np.ndarray:
        """Convert standard deviations of outputs, (rows, outputs), to the units of the table."""
        size, _, scale = self._sized()
        with np.errstate(over="ignore"):
            return np.ldexp(scale * deviations, size)

    def _sized(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Exponents of powers of two, and the means and scales divided by these powers."""
        both = np.asarray([self.mean, self.scale], dtype=float)
        size = exponents(both)
        return size, *np.ldexp(both, -size)


def exponents(values: np.ndarray) -> np.ndarray:
    """For each column, the exponent of the next power of two above its largest magnitude.

    Sums of squares of `np.ldexp(values, -exponents)` neither overflow nor underflow, and the
    scaling is exact.

    Examples
    --------
    >>> exponents(np.array([[1e300, 0.0], [-3.0, 5e-324]])).tolist()
    [997, -1073]
    """
    return np.frexp(np.abs(values).max(0))[1]


def mean_and_deviation(
    y: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column; the latter is 0 only if a column does not vary.

    Parameters
    ----------
    y : array of shape (rows, columns)
        Values.
    weights : array of shape (rows,), optional
        Weights of the rows.

    Examples
    --------
    >>> mean_and_deviation(np.array([[1e300], [3e300]]))
    (array([2.e+300]), array([1.e+300]))
    """
    size = exponents(y)
    y = np.ldexp(y, -size)
    mean = np.average(y, 0, weights)
    if weights is None:
        deviation = y.std(0)
    else:
        deviation = np.sqrt(np.average((y - mean) ** 2, 0, weights))
    constant = y.min(0) == y.max(0)
    deviation = np.maximum(np.ldexp(deviation, size), SMALLEST)
    return np.ldexp(np.where(constant, y[0], mean), size), np.where(constant, 0.0, deviation)


def continued(network: KAN, z: torch.Tensor) -> torch.Tensor:
    """Outputs, extended outside the domain by the tangent at the nearest point of the box.

    Parameters
    ----------
    network : KAN
        Network to evaluate.
    z : tensor of shape (rows, inputs)
        Scaled inputs.

    Returns
    -------
    tensor of shape (rows, outputs)
        Outputs of the network.

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
        steps.append(_products(z - inside.detach(), gradient))
    return outputs.detach() + torch.stack(steps, 1)


def _products(steps: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """The scalar product in each row, scaled if intermediate values overflow."""
    products = (steps * slopes).sum(1)
    if not bool(torch.isfinite(products).all()):
        size = steps.abs().amax(1, keepdim=True).clamp_min(1.0)
        products = (steps / size * slopes).sum(1) * size[:, 0]
    return products
