"""What estimators minimise: squares or cross entropy of rows, weighted or not, and a penalty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from mgnet.knots import KAN, roughness
from mgnet.knots.jacobian import KANJacobian
from mgnet.knots.spline import roughness_factor, roughness_rows
from mgnet.knots.spline_operator import LONG, SplineOperator
from mgnet.training import LeastSquares, Objective
from mgnet.training.least_squares.jacobian import DenseJacobian, Jacobian, StackedJacobian
from mgnet.transfer import AxisTransfer

__all__ = ["WeightedLeastSquares", "bending", "entropy", "squares"]

Rows = tuple[torch.Tensor, torch.Tensor, np.ndarray | None]


def squares(network: KAN, rows: Rows, weight: float) -> LeastSquares:
    """Half the mean squared error, plus half the penalty.

    Parameters
    ----------
    network : KAN
    rows : (inputs, targets, weights or None)
    weight : float
        Of the penalty.

    Examples
    --------
    >>> x = torch.zeros(2, 1, dtype=torch.float64)
    >>> type(squares(KAN([1, 1]), (x, x, None), 0.0)).__name__
    'LeastSquares'
    """
    x, y, weights = rows
    penalty = partial(roughness, weight=weight) if weight else None
    if weights is None:
        return LeastSquares(network, (x, y), penalty)
    return WeightedLeastSquares(network, (x, y), torch.from_numpy(weights), penalty)


class WeightedLeastSquares(LeastSquares):
    """Half the weighted mean of the squared errors: rows of r and J times the root of their weight.

    Parameters
    ----------
    network : KAN
    data : (inputs, targets)
    weights : tensor of shape (samples,)
        Positive; only their ratios matter.
    penalty : callable, optional
        As in `LeastSquares`.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> kan = KAN([1, 1], intervals=1, degree=1)
    >>> problem = WeightedLeastSquares(kan, (x, 0.0 * x + 2.0), torch.tensor([3.0, 1.0]))
    >>> problem.value(0.0 * problem.start()), problem.mean_square(0.0 * problem.start())
    (2.0, 4.0)
    """

    def __init__(
        self,
        network: torch.nn.Module,
        data: tuple[torch.Tensor, torch.Tensor],
        weights: torch.Tensor,
        penalty: Callable[[Any], torch.Tensor] | None = None,
    ):
        super().__init__(network, data, penalty)
        self.weights = weights / weights.sum()
        self.roots = self.weights.sqrt().double()

    def with_network(self, network: torch.nn.Module) -> WeightedLeastSquares:
        return WeightedLeastSquares(network, self.data, self.weights, self.penalty)

    def with_data(self, batch: Any) -> LeastSquares:
        raise TypeError("WeightedLeastSquares has no batches: its weights belong to all its rows")

    def residuals(self, u: torch.Tensor) -> torch.Tensor:
        differences = self.flat.evaluate(self.differences, u.detach()).detach().double()
        r = (self.roots.unsqueeze(1) * differences).reshape(-1)
        return r if self.penalties is None else torch.cat([r, self.penalties.matvec(u.double())])

    def linearize(self, u: torch.Tensor) -> tuple[torch.Tensor, Jacobian]:
        outputs, J = self.flat.evaluate(lambda network: network.linearize(self.data[0]), u.detach())
        r = (self.roots.unsqueeze(1) * self._against_targets(outputs).double()).reshape(-1)
        J = StackedJacobian(((1.0, _times_rows(self.roots, J)),))
        if self.penalties is None:
            return r, J
        r = torch.cat([r, self.penalties.matvec(u.detach().double())])
        return r, StackedJacobian((*J.parts, (1.0, self.penalties)))

    def _loss(self, u: torch.Tensor) -> torch.Tensor:
        differences = self.flat.evaluate(self.differences, u)
        return 0.5 * (self.weights.unsqueeze(1) * differences.square()).sum()


def _times_rows(roots: torch.Tensor, J: KANJacobian | DenseJacobian) -> Jacobian:
    """J with the rows of each sample times a factor; the splines at a sample are in all of them."""
    structure: Any = J if isinstance(J, KANJacobian) else J.structure
    if isinstance(structure, KANJacobian):
        scaled = (replace(one, values=one.values * roots.unsqueeze(1)) for one in structure.layers)
        structure = KANJacobian(tuple(scaled), structure.order)
    if isinstance(J, KANJacobian):
        return structure
    by_sample = J.matrix.view(len(roots), -1, J.shape[1])
    return DenseJacobian((by_sample * roots[:, None, None]).flatten(0, 1), structure)


def entropy(network: KAN, rows: Rows, weight: float) -> Objective:
    """Mean cross entropy, weighted or not, plus half the penalty.

    Parameters
    ----------
    network : KAN
    rows : (inputs, labels, weights or None)
    weight : float
        Of the penalty.

    Examples
    --------
    >>> x, labels = torch.zeros(2, 1, dtype=torch.float64), torch.tensor([0, 1])
    >>> one = entropy(KAN([1, 2]), (x, labels, None), 0.0)
    >>> round(one.value(0.0 * one.start()), 4)
    0.6931
    """
    x, labels, weights = rows
    mean = torch.nn.functional.cross_entropy
    if weights is not None:
        mean = partial(_weighted_entropy, torch.from_numpy(weights / weights.sum()))
    if not weight:
        return Objective(network, mean, (x, labels))

    def loss(network: Any) -> torch.Tensor:
        return mean(network(x), labels) + 0.5 * weight * bending(network)

    return Objective.from_torch(network, loss)


def _weighted_entropy(
    weights: torch.Tensor, outputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    return weights @ torch.nn.functional.cross_entropy(outputs, labels, reduction="none")


def bending(network: KAN) -> torch.Tensor:
    """The integral of phi''^2, summed over the edges: `|R u|^2` of `roughness`, without its matrix.

    Examples
    --------
    >>> kan = KAN([1, 2, 1])
    >>> u = torch.nn.utils.parameters_to_vector(kan.parameters())
    >>> bool(torch.isclose(bending(kan), (roughness(kan) @ u).square().sum()))
    True
    """
    total = torch.zeros((), dtype=torch.float64)
    for intervals, u in zip(network.intervals, network.coefficients, strict=True):
        factor = _factor(intervals, network.degree)
        if isinstance(factor, SplineOperator):
            bends = AxisTransfer(factor, axis=1).prolong(u)
        else:
            bends = torch.einsum("ks,iso->iko", factor, u)
        total = total + bends.square().sum()
    return total


@lru_cache
def _factor(intervals: int, degree: int) -> torch.Tensor | SplineOperator:
    if intervals + degree > LONG:
        return SplineOperator((roughness_rows(intervals, degree),))
    return torch.from_numpy(roughness_factor(intervals, degree))
