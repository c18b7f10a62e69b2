"""Input and output of a fit: the rows of a table, the settings, a trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, nan

import numpy as np

from mgnet.app.columns.codes import DateCode
from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.markdown import exact
from mgnet.limits import doubled

__all__ = ["Data", "Settings", "Trained", "intervals_on", "parameters"]

EPS = float(np.finfo(float).eps)  # smallest probability in a log loss, as in scikit-learn


@dataclass(frozen=True)
class Settings:
    """Settings of `fit`.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    intervals : int or tuple of int
        Spline intervals per edge on the coarsest level: one number for all layers, or one for each;
        each finer level has twice as many intervals.
    degree : int
        Degree of the splines, 1 to 5.
    levels : int
        Number of levels.
    cycle : str
        Schedule as text; empty means a cascade whose sweeps per level follow from the budget.
    optimizer : "auto", "lm", "lbfgs" or "adam"
        "auto" means Levenberg-Marquardt for numeric targets and L-BFGS for classes, for which "lm"
        does not work.
    seconds : float
        Time limit of the training; this is the budget unless `evaluations` is given.
    evaluations : int or None
        Limit on the gradient evaluations of the finest network.
    seed : int
        Seed of the split and of the initial network.
    held_out : float
        Fraction of the rows that is excluded from training, between 0 and 1.
    roughness : float
        Weight of the integral of phi''^2 over the edges, for standardized data. The default
        stabilizes the splines if there are few rows, and has no effect if there are many rows
        without noise.
    validation : float
        Fraction of the training rows that is used to decide when to stop and which network is best;
        0 means that no rows are.
    most_intervals : tuple of int
        Largest number of intervals of the layers: one for each layer, or one for all; empty means
        no limit.
    starts : int or None
        Number of starts on the coarsest level; the best ones continue. None means eight starts if
        that level uses at most an eighth of the rows, and one otherwise.
    ensemble : int
        Number of members of an ensemble, which chooses its hidden layer, knots and penalties itself
        and uses only `degree`, `seconds` (as a limit), `seed` and `held_out`. 1 means a single
        network.

    Examples
    --------
    >>> Settings(hidden=(5,)).levels
    4
    """

    hidden: tuple[int, ...] = (8,)
    intervals: int | tuple[int, ...] = 4
    degree: int = 3
    levels: int = 4
    cycle: str = ""
    optimizer: str = "auto"
    seconds: float = 20.0
    evaluations: int | None = None
    seed: int = 0
    held_out: float = 0.2
    roughness: float = 1e-12
    validation: float = 0.1
    most_intervals: tuple[int, ...] = ()
    starts: int | None = None
    ensemble: int = 1


@dataclass(frozen=True)
class Data:
    """The training and held-out rows of a table: inputs as numbers, and unscaled targets.

    Attributes
    ----------
    names : tuple of str
        Names of the inputs.
    targets : Targets
        Names of the targets, and classes.
    x, y : array of shape (rows, inputs), (rows,)
        Training rows. For several targets, y has the shape (rows, targets); for classes it contains
        their numbers.
    x_held, y_held : array
        Held-out rows.
    weights, weights_held : array of shape (rows,), optional
        Weights of the rows, which are used in training and in all means over rows.
    encoding : Encoding, optional
        Encoding from the columns of the file to the inputs; by default every input is a column.
    units : mapping of str to str
        Units of numeric columns, if the file has them.

    Examples
    --------
    >>> x, y = np.zeros((2, 1)), np.array([1.0, 3.0])
    >>> data = Data(("T",), Targets(("rho",)), x, y, x[:0], y[:0])
    >>> data.loss(np.array([1.0, 1.0]), data.y)
    2.0
    """

    names: tuple[str, ...]
    targets: Targets
    x: np.ndarray
    y: np.ndarray
    x_held: np.ndarray
    y_held: np.ndarray
    weights: np.ndarray | None = None
    weights_held: np.ndarray | None = None
    encoding: Encoding | None = None
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def loss_name(self) -> str:
        """Name of the loss in tables."""
        return "log loss" if self.targets.classes else "MSE"

    def loss(
        self, predicted: np.ndarray, true: np.ndarray, weights: np.ndarray | None = None
    ) -> float:
        """The log loss for classes; for numbers, the standardized MSE, averaged over targets.

        "Standardized" means divided by the variance of the training rows.

        Parameters
        ----------
        predicted : array of shape (rows,), (rows, targets) or (rows, classes)
            Predicted values, or probabilities.
        true : array of shape (rows,) or (rows, targets)
            True targets.
        weights : array of shape (rows,), optional
            Weights of the rows.
        """
        if self.targets.classes:
            own = predicted[np.arange(len(true)), true]
            return float(np.average(-np.log(np.clip(own, EPS, 1.0)), weights=weights))
        # Scaled by the size of the target: squares of tiny and huge numbers overflow or underflow.
        predicted, true, y = (np.ldexp(part, -self._size) for part in (predicted, true, self.y))
        errors = np.average((predicted - true) ** 2, axis=0, weights=weights)
        return float(np.mean(errors / _variance(y, self.weights)))

    def losses(self, predict: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
        """The losses of a model on training rows and on held-out rows (NaN if there are none)."""
        train = self.loss(predict(self.x), self.y, self.weights)
        if not len(self.y_held):
            return train, nan
        return train, self.loss(predict(self.x_held), self.y_held, self.weights_held)

    def root_mean_squares(
        self, predicted: np.ndarray, true: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """The root mean square error of each numeric target, in its unit."""
        error = np.ldexp(predicted, -self._size) - np.ldexp(true, -self._size)
        squares = np.average(error**2, axis=0, weights=weights)
        return np.atleast_1d(np.ldexp(np.sqrt(squares), self._size))

    def accuracy(
        self, predicted: np.ndarray, true: np.ndarray, weights: np.ndarray | None = None
    ) -> float:
        """The fraction of rows whose true class is given the largest probability."""
        return float(np.average(predicted.argmax(1) == true, weights=weights))

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviations of the training targets, in their units."""
        spread = np.sqrt(_variance(np.ldexp(self.y, -self._size), self.weights))
        return np.atleast_1d(np.ldexp(spread, self._size))

    def input_text(self, name: str, value: float) -> str:
        """A value of an input as text: a date for a number of days, otherwise six digits."""
        code = None if self.encoding is None else self.encoding.owner(name)
        if not isinstance(code, DateCode):
            return exact(value)
        if name == code.features[0]:
            return code.told(value)
        return exact(round(value, 9) + 0.0)  # the cosine of a quarter turn is not exactly 0

    @property
    def measured(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str]:
        """The rows on which errors are measured: x, y, weights, and the name of these rows."""
        if len(self.y_held):
            return self.x_held, self.y_held, self.weights_held, "held-out"
        return self.x, self.y, self.weights, "training"

    @property
    def _size(self) -> np.ndarray:
        return np.frexp(np.abs(self.y).max(0))[1]


def _variance(y: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return np.average((y - np.average(y, axis=0, weights=weights)) ** 2, axis=0, weights=weights)


@dataclass(frozen=True)
class Trained:
    """A trained model (mgnet's or a baseline) with its cost.

    Attributes
    ----------
    name : str
        Name of the method.
    predict : callable
        Function from (rows, inputs) to (rows,), (rows, targets) or probabilities (rows, classes).
    parameters : int
        Number of parameters.
    seconds : float
        Training time.
    work : float
        Cost in gradient evaluations of the finest network; NaN for methods without them.
    train_loss, held_loss : float
        Losses as computed by `Data.loss`.
    history : tuple of (seconds, work, training loss, level)
        Progress of the training.
    note : str
        Further information for the reader.
    """

    name: str
    predict: Callable[[np.ndarray], np.ndarray] = field(repr=False)
    parameters: int
    seconds: float
    work: float
    train_loss: float
    held_loss: float
    history: tuple[tuple[float, float, float, int], ...] = field(default=(), repr=False)
    note: str = ""


def intervals_on(settings: Settings, doublings: int) -> tuple[int, ...]:
    """Spline intervals per edge of each layer, after this number of refinements.

    Raises
    ------
    ValueError
        If `most_intervals` does not fit the layers.

    Examples
    --------
    >>> intervals_on(Settings(hidden=(2,), intervals=8, most_intervals=(256, 16)), 3)
    (64, 16)
    """
    layers = len(settings.hidden) + 1
    own, most = settings.intervals, settings.most_intervals or (inf,)
    counts = own if isinstance(own, tuple) else (own,) * layers
    caps = most * layers if len(most) == 1 else most
    if len(caps) != layers:
        raise ValueError(
            f"got {len(caps)} numbers of most_intervals for {layers} layers; give one number for "
            "all, or one for each layer"
        )
    return tuple(doubled(n, doublings, cap) for n, cap in zip(counts, caps, strict=True))


def parameters(inputs: int, settings: Settings, outputs: int = 1) -> int:
    """Number of parameters of the finest network.

    Parameters
    ----------
    inputs : int
        Number of inputs.
    settings : Settings
        Settings with the sizes of the network.
    outputs : int
        Number of outputs.

    Examples
    --------
    >>> parameters(2, Settings(hidden=(8,), intervals=4, degree=3, levels=4))
    840
    """
    edges = (a * b for a, b in pairwise((inputs, *settings.hidden, outputs)))
    finest = intervals_on(settings, settings.levels - 1)
    return sum(a * (n + settings.degree) for a, n in zip(edges, finest, strict=True))
