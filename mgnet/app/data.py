"""What a fit starts from and ends with: the rows of a table, the settings, a trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, nan

import numpy as np

from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.limits import doubled

__all__ = ["Data", "Settings", "Trained", "intervals_on", "parameters"]

EPS = float(np.finfo(float).eps)  # the least probability that a log loss takes, as scikit-learn's


@dataclass(frozen=True)
class Settings:
    """What `fit` may be told.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    intervals : int or tuple of int
        Spline intervals per edge on the coarsest level, of all layers or of each; each level above
        has twice as many.
    degree : int
        Of the splines, 1 to 5.
    levels : int
    cycle : str
        A schedule as text; empty: a cascade whose sweeps per level follow from the budget.
    optimizer : "auto", "lm", "lbfgs" or "adam"
        "auto": Levenberg-Marquardt for numbers, L-BFGS for classes, which "lm" does not train.
    seconds : float
        Training time; the budget unless `evaluations` is given.
    evaluations : int or None
        Gradient evaluations of the finest network.
    seed : int
    held_out : float
        Fraction of the rows that is kept from training, between 0 and 1.
    roughness : float
        Weight of the integral of phi''^2 over the edges, for standardised data. The default holds
        the splines where rows are few, and costs nothing where they are many and without noise.
    validation : float
        Fraction of the training rows that decides when to stop, and which network is best; 0 for
        none.
    most_intervals : tuple of int
        That a layer is refined to: one for each layer, or one for all; empty for no limit.
    starts : int or None
        On the coarsest level; the best go on. None: eight where that level sees at most an eighth
        of the rows, else one.
    ensemble : int
        Members of an ensemble, which chooses hidden layer, knots and penalties itself: of all else
        only `degree`, `seconds` (as a limit), `seed` and `held_out` count. 1: a single network.

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
    """The rows of a table, split, inputs as numbers and targets as they are in the file.

    Attributes
    ----------
    names : tuple of str
        Of the inputs.
    targets : Targets
    x, y : array of shape (rows, inputs), (rows,)
        Training rows. Several targets: y of shape (rows, targets); classes: their numbers.
    x_held, y_held : array
        Held-out rows.
    weights, weights_held : array of shape (rows,), optional
        Of the rows, in training and in all means over rows.
    encoding : Encoding, optional
        From the columns of the file to the inputs; by default they are its columns.
    units : mapping of str to str
        Of columns of numbers, where the file tells them.

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
        """What `loss` is, for tables."""
        return "log loss" if self.targets.classes else "MSE"

    def loss(
        self, predicted: np.ndarray, true: np.ndarray, weights: np.ndarray | None = None
    ) -> float:
        """Of classes the log loss, else the standardised mean squared error, the mean of targets.

        Standardised: over the variance of the training rows.

        Parameters
        ----------
        predicted : array of shape (rows,), (rows, targets) or (rows, classes)
            Values, or probabilities.
        true : array of shape (rows,) or (rows, targets)
        weights : array of shape (rows,), optional
        """
        if self.targets.classes:
            own = predicted[np.arange(len(true)), true]
            return float(np.average(-np.log(np.clip(own, EPS, 1.0)), weights=weights))
        # At the size of the target: squares of tiny and huge numbers are no doubles.
        predicted, true, y = (np.ldexp(part, -self._size) for part in (predicted, true, self.y))
        errors = np.average((predicted - true) ** 2, axis=0, weights=weights)
        return float(np.mean(errors / _variance(y, self.weights)))

    def losses(self, predict: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
        """The losses of a model over training and held-out rows; NaN without rows held out."""
        train = self.loss(predict(self.x), self.y, self.weights)
        if not len(self.y_held):
            return train, nan
        return train, self.loss(predict(self.x_held), self.y_held, self.weights_held)

    def root_mean_squares(
        self, predicted: np.ndarray, true: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """RMSE of each target, in its unit; of numbers only."""
        error = np.ldexp(predicted, -self._size) - np.ldexp(true, -self._size)
        squares = np.average(error**2, axis=0, weights=weights)
        return np.atleast_1d(np.ldexp(np.sqrt(squares), self._size))

    def accuracy(
        self, predicted: np.ndarray, true: np.ndarray, weights: np.ndarray | None = None
    ) -> float:
        """The share of rows whose class has the largest probability."""
        return float(np.average(predicted.argmax(1) == true, weights=weights))

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviations of the training targets, in their units."""
        spread = np.sqrt(_variance(np.ldexp(self.y, -self._size), self.weights))
        return np.atleast_1d(np.ldexp(spread, self._size))

    @property
    def measured(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str]:
        """Rows on which errors are measured, x, y and weights, and their name."""
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
    """A trained model, mgnet's or a baseline's, with what it cost.

    Attributes
    ----------
    name : str
    predict : callable
        (rows, inputs) -> (rows,), (rows, targets) or probabilities of shape (rows, classes).
    parameters : int
    seconds : float
        Training time.
    work : float
        Gradient evaluations of the finest network; nan where that means nothing.
    train_loss, held_loss : float
        As `Data.loss` counts it.
    history : tuple of (seconds, work, training loss, level)
    note : str
        What a reader should know besides the figures.
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
    """Spline intervals per edge of each layer, so many levels above the coarsest.

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
    settings : Settings
    outputs : int

    Examples
    --------
    >>> parameters(2, Settings(hidden=(8,), intervals=4, degree=3, levels=4))
    840
    """
    edges = (a * b for a, b in pairwise((inputs, *settings.hidden, outputs)))
    finest = intervals_on(settings, settings.levels - 1)
    return sum(a * (n + settings.degree) for a, n in zip(edges, finest, strict=True))
