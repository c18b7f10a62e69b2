"""Outputs of a small network as functions of its parameters, with derivatives.

`Additive` is a sum of functions of one input each; with one feature for each input, it is a linear
model. `Hidden` is a network with one hidden layer plus a linear model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from mgnet.estimators.evidence.features import Features, finer
from mgnet.estimators.evidence.modes import Modes, refined_modes
from mgnet.estimators.evidence.prior import Part, Prior, prior_of

__all__ = ["Additive", "Hidden", "Model"]

FREE = 1e-6  # precision (inverse variance) of constants
ROUGH = 0.1  # initial weight of the penalty of second derivatives
STEEP, SHIFT, OUTPUT = 1.0, 0.5, 0.3  # sizes of initial slopes and shifts of units, and outputs


@dataclass(frozen=True, eq=False)
class Additive:
    """For each output, a constant plus the sum of a function of each input.

    The parameters are the weights of all features, of shape (columns, outputs), followed by the
    constants.

    Attributes
    ----------
    features : Features
        Features of the rows.
    count : int
        Number of outputs.

    Examples
    --------
    >>> from mgnet.estimators.evidence.features import features_of
    >>> from mgnet.estimators.evidence.modes import spline_modes
    >>> x = np.linspace(-1.0, 1.0, 5)[:, None]
    >>> features = features_of(x, spline_modes(2, 3), most=1)
    >>> line = Additive(features, 1)
    >>> line.outputs(features.matrix(x), np.array([2.0, 1.0])).ravel().tolist()
    [-1.0, 0.0, 1.0, 2.0, 3.0]
    """

    features: Features
    count: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        return (len(self.features.centre) + 1) * self.count

    def start(self, constants: np.ndarray) -> np.ndarray:
        """Parameters for which each output is one of these constants."""
        return np.concatenate([np.zeros(self.size - self.count), constants])

    def prior(self) -> Prior:
        """All slopes share one weight; curvatures have a weight for each input and a common one."""
        own, outputs = self.features, np.arange(self.count)
        places = (np.arange(len(own.centre))[:, None] * self.count + outputs).reshape(-1)
        rough, inputs = np.repeat(own.roughness, self.count), np.repeat(own.inputs, self.count)
        linear = rough == 0.0
        deviations = np.repeat(own.deviation, self.count)
        parts = [Part(places[linear], deviations[linear] ** 2, name="slopes")]
        for number in np.flatnonzero(own.counts > 1):
            bent = ~linear & (inputs == number)
            parts.append(Part(places[bent], rough[bent], ROUGH, f"bends of {number}"))
        if not linear.all():
            parts.append(Part(places[~linear], name="bends"))
        parts.append(Part(np.arange(self.size - self.count, self.size), FREE, name="constants"))
        return prior_of(self.size, parts)

    def onto(self, fine: Additive, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The parameters for which the model on finer knots is the same function."""
        weights = u[: -self.count].reshape(-1, self.count)
        moved = _moved(self.features, fine.features, weights, x)
        return np.concatenate([moved.reshape(-1), u[-self.count :]])

    def outputs(self, B: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Outputs of shape (rows, outputs), for the rows of a matrix of features."""
        return B @ u[: -self.count].reshape(-1, self.count) + u[-self.count :]

    def linearized(self, B: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs, and their derivatives of shape (outputs, rows, parameters)."""
        J = np.zeros((self.count, len(B), self.size))
        for output in range(self.count):
            J[output, :, output : -self.count : self.count] = B
            J[output, :, output - self.count] = 1.0
        return self.outputs(B, u), J


@dataclass(frozen=True, eq=False)
class Hidden:
    """A KAN with one hidden layer, plus a linear model.

    Parameters, in this order: weights of the first layer, (units, columns), and shifts, (units,);
    weights of the second, (units, modes, outputs); the linear model, (inputs, outputs), and
    constants.

    Attributes
    ----------
    features : Features
        Features of the rows.
    modes : Modes
        Modes of the second layer.
    units, count : int
        Numbers of hidden units and of outputs.
    seed : int
        Seed of the initial parameters.
    """

    features: Features
    modes: Modes
    units: int
    count: int
    seed: int

    @cached_property
    def _ends(self) -> tuple[int, int, int, int]:
        """Where first weights, shifts, second weights and linear model end in the parameters."""
        first = self.units * len(self.features.centre)
        second = first + self.units + self.units * len(self.modes.roughness) * self.count
        return first, first + self.units, second, second + len(self.features.counts) * self.count

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self._ends[3] + self.count

    def split(self, u: np.ndarray) -> tuple[np.ndarray, ...]:
        """First weights, shifts, second weights, linear model and constants, as shaped arrays."""
        first, shifts, second, linear = self._ends
        return (
            u[:first].reshape(self.units, -1),
            u[first:shifts],
            u[shifts:second].reshape(self.units, -1, self.count),
            u[second:linear].reshape(-1, self.count),
            u[linear:],
        )

    def start(self, constants: np.ndarray) -> np.ndarray:
        """Random linear edges, with slopes as large as those of a perceptron."""
        generator, u = np.random.default_rng(self.seed), np.zeros(self.size)
        first, shifts, second, _, free = self.split(u)
        own = self.features
        linear = own.linear
        sizes = STEEP / (np.sqrt(len(linear)) * (own.deviation[linear] + 1e-9))
        first[:, linear] = generator.normal(size=(self.units, len(linear))) * sizes
        shifts[:] = generator.normal(size=self.units) * SHIFT
        drawn = generator.normal(size=(self.units, self.count))
        second[:, 0] = drawn * OUTPUT / np.sqrt(self.units)
        free[:] = constants
        return u

    def prior(self) -> Prior:
        """First-layer slopes have a weight for each input; each other kind of parameter has one."""
        own, numbers = self.features, np.arange(self.size)
        first, shifts, second, linear, free = self.split(numbers)
        inputs, rough = own.inputs, own.roughness
        bent = np.flatnonzero(rough > 0.0)
        parts = [
            Part(first[:, inputs == number].reshape(-1), name=f"slopes of {number}")
            for number in range(len(own.counts))
        ]
        if len(bent):
            sizes = np.tile(rough[bent], self.units)
            parts.append(Part(first[:, bent].reshape(-1), sizes, ROUGH, "bends"))
        parts.append(Part(shifts, name="shifts"))
        parts.append(Part(second.reshape(-1), name="second"))
        bends = self.modes.roughness
        if len(bends) > 1:
            sizes = np.broadcast_to(bends[1:, None], second[:, 1:].shape)
            parts.append(
                Part(second[:, 1:].reshape(-1), sizes.reshape(-1), ROUGH, "bends of second")
            )
        spread = np.repeat(own.deviation[own.linear] ** 2, self.count)
        parts.append(Part(linear.reshape(-1), spread, name="linear"))
        parts.append(Part(free, FREE, name="constants"))
        return prior_of(self.size, parts)

    def onto(self, fine: Hidden, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The parameters for which a larger model is the same function."""
        first, shifts, second, linear, constants = self.split(u)
        if fine.features is not self.features:
            first = _moved(self.features, fine.features, first.T, x).T
        if fine.modes is not self.modes:
            second = np.einsum("fm,hmo->hfo", refined_modes(self.modes, fine.modes), second)
        new = fine.start(constants)
        parts = fine.split(new)
        parts[2][:] = 0.0
        for part, values in zip(parts, (first, shifts, second, linear), strict=False):
            part[: len(values)] = values
        return new

    def outputs(self, B: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Outputs of shape (rows, outputs), for the rows of a matrix of features."""
        first, shifts, second, linear, constants = self.split(u)
        a = np.tanh(B @ first.T + shifts)
        values = self.modes.values(a).reshape(len(B), -1)
        f = B[:, self.features.linear] @ linear + constants
        return f + values @ second.reshape(-1, self.count)

    def linearized(self, B: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs, and their derivatives of shape (outputs, rows, parameters)."""
        first, shifts, second, linear, constants = self.split(u)
        a = np.tanh(B @ first.T + shifts)
        values, slopes = self.modes.values_and_slopes(a)
        values, lines = values.reshape(len(B), -1), B[:, self.features.linear]
        f = lines @ linear + constants + values @ second.reshape(-1, self.count)
        J = np.zeros((self.count, len(B), self.size))
        end, shift, last, beside = self._ends
        for output in range(self.count):
            steep = np.einsum("nhm,hm->nh", slopes, second[:, :, output]) * (1.0 - a * a)
            own = J[output]
            np.multiply(
                steep[:, :, None],
                B[:, None, :],
                out=own[:, :end].reshape(len(B), self.units, -1),
            )
            own[:, end:shift] = steep
            own[:, shift + output : last : self.count] = values
            own[:, last + output : beside : self.count] = lines
            own[:, beside + output] = 1.0
        return f, J


Model: TypeAlias = Additive | Hidden


def _moved(coarse: Features, fine: Features, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Convert weights of coarse features, (columns, outputs), to weights of fine features."""
    ends = np.cumsum(coarse.counts)[:-1]
    parts = zip(finer(coarse, fine, x), np.split(weights, ends), strict=True)
    return np.concatenate([matrix @ part for matrix, part in parts])
