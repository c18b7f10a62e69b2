"""What a model computes, in plain arrays: the one place where exports read a `Model`."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from mgnet.app.model import Model
from mgnet.estimators.scales import exponents
from mgnet.knots.spline import polynomials

__all__ = ["Formula", "Layer"]


@dataclass(frozen=True, eq=False)
class Layer:
    """Splines on uniform knots.

    Attributes
    ----------
    intervals : int
    coefficients : array of shape (inputs, intervals + degree, outputs)
    """

    intervals: int
    coefficients: np.ndarray

    def pieces(self, degree: int, domain: tuple[float, float]) -> np.ndarray:
        """The splines as polynomials of the place s in an interval, from 0 to 1.

        Returns
        -------
        array of shape (inputs, outputs, intervals, degree + 1)
            Lowest power first.

        Examples
        --------
        >>> Layer(2, np.array([[[0.0], [1.0], [0.5]]])).pieces(1, (0.0, 1.0)).tolist()
        [[[[0.0, 1.0], [1.0, -0.5]]]]
        """
        powers = np.asarray(polynomials(self.intervals, degree, domain, 0))
        windows = np.lib.stride_tricks.sliding_window_view(self.coefficients, degree + 1, axis=1)
        return np.einsum("pnqk,km->pqnm", windows, powers)  # (inputs, intervals, outputs, splines)


@dataclass(frozen=True, eq=False)
class Formula:
    """A model in double precision, without torch: columns of a table, scales, splines, target.

    Attributes
    ----------
    columns : tuple of str
        Inputs, in the order of the columns of `x`.
    target : str
    ranges : array of shape (inputs, 2)
        In the training rows; a place in the range is mapped linearly to the domain.
    mean, scale : float
        The target is mean + scale * output.
    degree : int
    domain : (float, float)
    hidden : "tanh" or "identity"
        The map of hidden values into the domain.
    linear : (weight, bias) or None
        A layer before the splines, of shapes (outputs, inputs) and (outputs,).
    layers : tuple of Layer
    """

    columns: tuple[str, ...]
    target: str
    ranges: np.ndarray
    mean: float
    scale: float
    degree: int
    domain: tuple[float, float]
    hidden: str
    linear: tuple[np.ndarray, np.ndarray] | None
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, model: Model) -> Formula:
        """That of a model.

        Examples
        --------
        >>> from mgnet.estimators.scales import Scales
        >>> from mgnet.knots import KAN
        >>> scales = Scales(((300.0, 500.0),), (10.0,), (2.0,))
        >>> formula = Formula.of(Model(KAN([1, 2, 1]), ("T",), "rho", scales))
        >>> formula.columns, len(formula.layers), formula.widths
        (('T',), 2, [1, 2, 1])
        """
        network, scales = model.network, model.scales
        arrays = [u.detach().double().numpy() for u in network.coefficients]
        linear = network.linear
        return cls(
            columns=model.names,
            target=model.target,
            ranges=np.asarray(scales.ranges, dtype=float),
            mean=scales.mean[0],
            scale=scales.scale[0],
            degree=network.degree,
            domain=network.domain,
            hidden=network.hidden,
            linear=None
            if linear is None
            else (linear.weight.detach().double().numpy(), linear.bias.detach().double().numpy()),
            layers=tuple(map(Layer, network.intervals, arrays)),
        )

    @property
    def widths(self) -> list[int]:
        """Of the input, the hidden layers and the output."""
        first = [] if self.linear is None else [self.linear[0].shape[1]]
        shapes = [layer.coefficients.shape for layer in self.layers]
        return [*first, *(shape[0] for shape in shapes), shapes[-1][2]]

    @property
    def told(self) -> str:
        """The network in words."""
        intervals = " and ".join(dict.fromkeys(str(layer.intervals) for layer in self.layers))
        return (
            f"a Kolmogorov-Arnold network {self.widths} of splines of degree {self.degree} on "
            f"{intervals} intervals per edge"
        )

    def sized(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, float, float]]:
        """Ranges and target over the powers of two next above their magnitude.

        Returns
        -------
        size, low, length : array of shape (inputs,)
            The place of x in its range is `(ldexp(x, -size) - low) / length`; a length of 0 is that
            of an input that did not vary.
        target : (int, float, float)
            The prediction is `ldexp(mean + scale * output, size)` with these (size, mean, scale).

        Examples
        --------
        >>> layers = (Layer(1, np.zeros((1, 2, 1))),)
        >>> ranges, domain = np.array([[0.0, 8.0]]), (-1.0, 1.0)
        >>> formula = Formula(("T",), "y", ranges, 3.0, 1.0, 1, domain, "tanh", None, layers)
        >>> size, low, length, target = formula.sized()
        >>> size.tolist(), low.tolist(), length.tolist(), target
        ([4], [0.0], [0.5], (2, 0.75, 0.25))
        """
        size = exponents(self.ranges.T)
        low, high = np.ldexp(self.ranges.T, -size)
        both = np.array([[self.mean], [self.scale]])
        of_target = int(exponents(both)[0])
        mean, scale = np.ldexp(both[:, 0], -of_target).tolist()
        return size, low, high - low, (of_target, mean, scale)

    def described(self) -> dict[str, str]:
        """What a file tells of itself, by keywords: texts, JSON where there is more than one."""
        return {
            "inputs": json.dumps(self.columns, ensure_ascii=False),
            "ranges": json.dumps(self.ranges.tolist()),
            "target": self.target,
            "network": self.told,
        }
