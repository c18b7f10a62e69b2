"""The formula of a model in plain arrays: the only place where exports read a `Model`."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from mgnet.app.exports.input_column import InputColumn, input_columns
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
        Number of intervals.
    coefficients : array of shape (inputs, intervals + degree, outputs)
        Spline coefficients.
    """

    intervals: int
    coefficients: np.ndarray

    def pieces(self, degree: int, domain: tuple[float, float]) -> np.ndarray:
        """The splines as polynomials of the position s in an interval, from 0 to 1.

        Returns
        -------
        array of shape (inputs, outputs, intervals, degree + 1)
            Coefficients, lowest power first.

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
    """A model in double precision, without torch: columns of a table, scales, splines, targets.

    Attributes
    ----------
    columns : tuple of InputColumn
        Columns; their features, one column after the other, are the inputs of the network.
    targets : tuple of str
        Names of the targets.
    classes : tuple of str
        Classes of the only target if it is a label; the outputs are then logits, and softmax gives
        the probabilities.
    ranges : array of shape (features, 2)
        Range of each input in the training rows, which is mapped linearly to the domain.
    mean, scale : array of shape (targets,)
        Mean and scale of each target; the target is mean + scale * output.
    degree : int
        Degree of the splines.
    domain : (float, float)
        Domain of the splines.
    hidden : "tanh" or "identity"
        Function that maps hidden values into the domain.
    linear : (weight, bias) or None
        Layer before the splines, of shapes (outputs, inputs) and (outputs,).
    layers : tuple of Layer
        Spline layers.
    """

    columns: tuple[InputColumn, ...]
    targets: tuple[str, ...]
    classes: tuple[str, ...]
    ranges: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    degree: int
    domain: tuple[float, float]
    hidden: str
    linear: tuple[np.ndarray, np.ndarray] | None
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, model: Model) -> Formula:
        """The formula of a model.

        Raises
        ------
        ValueError
            If the model has columns that no exported file can handle.

        Examples
        --------
        >>> from mgnet.app.columns.encoding import Encoding
        >>> from mgnet.app.columns.targets import Targets
        >>> from mgnet.estimators.scales import Scales
        >>> from mgnet.knots import KAN
        >>> scales = Scales(((300.0, 500.0),), (10.0,), (2.0,))
        >>> encoding, targets = Encoding.of_numbers(["T"]), Targets(("rho",))
        >>> formula = Formula.of(Model(KAN([1, 2, 1]), encoding, targets, scales))
        >>> formula.targets, len(formula.layers), formula.widths
        (('rho',), 2, [1, 2, 1])
        """
        network, scales, linear = model.network, model.scales, model.network.linear
        arrays = [u.detach().double().numpy() for u in network.coefficients]
        pair = None
        if linear is not None:
            pair = linear.weight.detach().double().numpy(), linear.bias.detach().double().numpy()
        return cls(
            columns=input_columns(model.encoding),
            targets=model.targets.names,
            classes=model.targets.classes,
            ranges=np.asarray(scales.ranges, dtype=float),
            mean=np.asarray(scales.mean, dtype=float),
            scale=np.asarray(scales.scale, dtype=float),
            degree=network.degree,
            domain=network.domain,
            hidden=network.hidden,
            linear=pair,
            layers=tuple(map(Layer, network.intervals, arrays)),
        )

    @property
    def widths(self) -> list[int]:
        """The number of inputs, of hidden values in each layer, and of outputs."""
        first = [] if self.linear is None else [self.linear[0].shape[1]]
        shapes = [layer.coefficients.shape for layer in self.layers]
        return [*first, *(shape[0] for shape in shapes), shapes[-1][2]]

    @property
    def has_hidden(self) -> bool:
        """Whether there are hidden values, which are mapped into the domain."""
        return len(self.widths) > 2

    @property
    def told(self) -> str:
        """Description of the network."""
        intervals = " and ".join(dict.fromkeys(str(layer.intervals) for layer in self.layers))
        return (
            f"a Kolmogorov-Arnold network {self.widths} of splines of degree {self.degree} on "
            f"{intervals} intervals per edge"
        )

    def domains(self) -> list[str]:
        """For each column, a description of its values in the training rows."""
        words, at = [], 0
        for column in self.columns:
            low, high = self.ranges[at]
            text = column.told if column.is_text else f"{low:g} to {high:g}"
            words.append(f"{text} ({column.note})" if column.note else text)
            at += column.features
        return words

    def sized(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranges divided by the next larger powers of two, so that no difference overflows.

        Returns
        -------
        size, low, length : array of shape (features,)
            The position of x in its range is `(ldexp(x, -size) - low) / length`; a length of 0
            means that the input did not vary.

        Examples
        --------
        >>> layers, ranges = (Layer(1, np.zeros((1, 2, 1))),), np.array([[0.0, 8.0]])
        >>> one, rest = np.ones(1), (1, (-1.0, 1.0), "tanh", None, layers)
        >>> formula = Formula((InputColumn("T"),), ("y",), (), ranges, one, one, *rest)
        >>> size, low, length = formula.sized()
        >>> size.tolist(), low.tolist(), length.tolist()
        ([4], [0.0], [0.5])
        """
        size = exponents(self.ranges.T)
        low, high = np.ldexp(self.ranges.T, -size)
        return size, low, high - low

    def described(self) -> dict[str, str]:
        """Metadata of a file by keyword: texts, or JSON if there are several values."""
        names = [column.name for column in self.columns]
        told = {
            "inputs": names,
            "ranges": dict(zip(names, self.domains(), strict=True)),
            "targets": list(self.targets),
            "classes": list(self.classes),
        }
        texts = {key: json.dumps(value, ensure_ascii=False) for key, value in told.items()}
        return texts | {"network": self.told}
