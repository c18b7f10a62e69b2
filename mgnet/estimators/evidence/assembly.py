"""Write sums of fitted models as one KAN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mgnet.estimators.evidence.features import Features
from mgnet.estimators.evidence.maximization import Fitted
from mgnet.estimators.evidence.model import Additive, Hidden
from mgnet.knots import KAN
from mgnet.knots.refinement import refinement_matrix
from mgnet.knots.spline import polynomial_coefficients

__all__ = ["assembled", "joined"]

# Hidden values of the additive part for which tanh is nearly a cubic, or a line.
SMALL, SMALLER = 1e-2, 1e-4
LEAST = 1e-3  # standardized outputs are about 1
DOMAIN = (-1.0, 1.0)


def assembled(
    members: Sequence[tuple[float, Fitted]], intervals: tuple[int, int], degree: int
) -> KAN:
    """The network whose outputs are a weighted sum of the outputs of several models.

    The sum of all functions of one input goes through one hidden unit for each output. The values
    of this unit are so small that the next edge, `a + a^3 / 3`, inverts tanh up to a term of order
    `a^5`, with a relative error of 1e-9.

    Parameters
    ----------
    members : sequence of (weight, Fitted)
        Models and their weights.
    intervals : (int, int)
        Intervals of the two layers: those of each model times powers of two.
    degree : int
        Degree of the splines.
    """
    outputs = members[0][1].model.count
    inputs = len(members[0][1].model.features.counts)
    edges = np.zeros((inputs, intervals[0] + degree, outputs))
    for weight, fitted in members:
        model = fitted.model
        if isinstance(model, Additive):
            functions, constants = fitted.u[:-outputs].reshape(-1, outputs), fitted.u[-outputs:]
        else:
            functions, constants = _beside(model, fitted.u)
        edges += weight * _edges(model.features, functions, constants, intervals[0])
    largest = np.abs(edges).max(1).sum(0).max()  # bound on all sums of these splines
    size = (SMALL if degree > 2 else SMALLER) / max(largest, LEAST)
    first, second = [size * edges], [_inverse_of_tanh(outputs, intervals[1], degree, size)]
    for weight, fitted in members:
        model = fitted.model
        if isinstance(model, Additive):
            continue
        weights, shifts, behind, _, _ = model.split(fitted.u)
        first.append(_edges(model.features, weights.T, shifts, intervals[0]))
        splines = np.einsum("sm,hmo->hso", model.modes.coefficients, behind)
        second.append(weight * _refined(splines, intervals[1], degree))
    layers = [np.concatenate(first, 2), np.concatenate(second)]
    network = KAN([inputs, layers[1].shape[0], outputs], list(intervals), degree)
    _fill(network, layers)
    return network


def joined(networks: Sequence[KAN], first_is_zero: bool = False) -> KAN:
    """Place networks with one hidden layer side by side; the result has the outputs of all of them.

    Parameters
    ----------
    networks : sequence of KAN
        Networks with the same inputs and degree.
    first_is_zero : bool
        Whether the first output is constant 0.
    """
    degree, inputs = networks[0].degree, networks[0].widths[0]
    if len(networks) == 1 and not first_is_zero:
        return networks[0]
    intervals = [max(own.intervals[layer] for own in networks) for layer in (0, 1)]
    units = sum(own.widths[1] for own in networks)
    outputs = sum(own.widths[2] for own in networks) + first_is_zero
    network = KAN([inputs, units, outputs], intervals, degree)
    behind = np.zeros((units, intervals[1] + degree, outputs))
    edges, unit, output = [], 0, int(first_is_zero)
    for own in networks:
        first, second = (c.detach().numpy() for c in own.coefficients)
        edges.append(_refined(first, intervals[0], degree))
        more = unit + own.widths[1], output + own.widths[2]
        behind[unit : more[0], :, output : more[1]] = _refined(second, intervals[1], degree)
        unit, output = more
    _fill(network, [np.concatenate(edges, 2), behind])
    return network


def _fill(network: KAN, layers: Sequence[np.ndarray]) -> None:
    with torch.no_grad():
        for parameter, values in zip(network.coefficients, layers, strict=True):
            parameter.copy_(torch.from_numpy(values))


def _beside(model: Hidden, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The linear model that is added to a hidden layer, as weights of all features."""
    *_, linear, constants = model.split(u)
    weights = np.zeros((len(model.features.centre), model.count))
    weights[model.features.linear] = linear
    return weights, constants


def _edges(
    features: Features, weights: np.ndarray, constants: np.ndarray, intervals: int
) -> np.ndarray:
    """Edge functions of shape (inputs, splines, units), with the constants added."""
    edges, shifts = features.splines(weights)
    edges = edges + (shifts + constants) / len(edges)  # the splines sum to one
    return _refined(edges, intervals, features.modes.degree)


def _refined(edges: np.ndarray, intervals: int, degree: int) -> np.ndarray:
    """The same functions with more intervals; the middle axis is that of the splines."""
    own = edges.shape[1] - degree
    if own == intervals:
        return edges
    P = refinement_matrix(own, degree, intervals // own)
    return np.einsum("fs,iso->ifo", P.toarray(), edges)


def _inverse_of_tanh(outputs: int, intervals: int, degree: int, size: float) -> np.ndarray:
    """Edges that recover f from hidden units `tanh(size f)`, one unit for each output."""
    powers = np.zeros(degree + 1)
    powers[1::2] = 1.0 / (size * np.arange(1, degree + 1, 2))
    edges = np.zeros((outputs, intervals + degree, outputs))
    own = np.arange(outputs)
    edges[own, :, own] = polynomial_coefficients(powers, intervals, degree, DOMAIN)
    return edges
