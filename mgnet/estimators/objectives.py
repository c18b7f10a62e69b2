"""Objectives of the estimators: squared errors or the cross entropy of rows, plus a penalty."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from mgnet.knots import KAN, roughness
from mgnet.knots.spline import roughness_factor, roughness_rows
from mgnet.knots.spline_operator import LONG, SplineOperator
from mgnet.training import LeastSquares, Objective
from mgnet.transfer import AxisTransfer

__all__ = ["bending", "entropy", "squares"]

Rows = tuple[torch.Tensor, torch.Tensor, np.ndarray | None]


def squares(network: KAN, rows: Rows, weight: float) -> LeastSquares:
    """Half the mean squared error, plus half the penalty.

    Parameters
    ----------
    network : KAN
        Network to train.
    rows : (inputs, targets, weights or None)
        Training rows.
    weight : float
        Weight of the penalty.

    Examples
    --------
    >>> x = torch.zeros(2, 1, dtype=torch.float64)
    >>> type(squares(KAN([1, 1]), (x, x, None), 0.0)).__name__
    'LeastSquares'
    """
    x, y, weights = rows
    penalty = partial(roughness, weight=weight) if weight else None
    return LeastSquares(network, (x, y), penalty, sample_weight=weights)


def entropy(network: KAN, rows: Rows, weight: float) -> Objective:
    """Mean cross entropy, with or without weights of the rows, plus half the penalty.

    Parameters
    ----------
    network : KAN
        Network to train.
    rows : (inputs, labels, weights or None)
        Training rows.
    weight : float
        Weight of the penalty.

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
    if not weight and weights is None:  # coarse levels may use a part of these rows
        return Objective(network, mean, (x, labels))

    def loss(network: Any) -> torch.Tensor:
        fit = mean(network(x), labels)
        return fit + 0.5 * weight * bending(network) if weight else fit

    return Objective.from_torch(network, loss)


def _weighted_entropy(
    weights: torch.Tensor, outputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    return weights @ torch.nn.functional.cross_entropy(outputs, labels, reduction="none")


def bending(network: KAN) -> torch.Tensor:
    """The integral of phi''^2, summed over the edges: `|R u|^2` for the matrix R of `roughness`.

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
