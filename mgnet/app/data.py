"""What a fit starts from and ends with: the rows of a table, the settings, a trained model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

import numpy as np

from mgnet.limits import doubled

__all__ = ["Data", "Settings", "Trained", "intervals_on", "parameters"]


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
    optimizer : "lm", "lbfgs" or "adam"
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
    optimizer: str = "lm"
    seconds: float = 20.0
    evaluations: int | None = None
    seed: int = 0
    held_out: float = 0.2
    roughness: float = 1e-12
    validation: float = 0.1
    most_intervals: tuple[int, ...] = ()
    starts: int | None = None


@dataclass(frozen=True)
class Data:
    """The rows of a table, split, inputs and target as they are in the file.

    Attributes
    ----------
    names : tuple of str
        Of the inputs.
    target : str
    x, y : array of shape (rows, inputs), (rows,)
        Training rows.
    x_held, y_held : array
        Held-out rows.

    Examples
    --------
    >>> x, y = np.zeros((2, 1)), np.array([1.0, 3.0])
    >>> data = Data(("T",), "rho", x, y, x[:0], y[:0])
    >>> data.mse(np.array([1.0, 1.0]), data.y)
    2.0
    """

    names: tuple[str, ...]
    target: str
    x: np.ndarray
    y: np.ndarray
    x_held: np.ndarray
    y_held: np.ndarray

    def mse(self, predicted: np.ndarray, true: np.ndarray) -> float:
        """Mean squared error, standardised: over the variance of the training target."""
        # At the size of the target: squares of tiny and huge numbers are no doubles.
        predicted, true, y = (np.ldexp(part, -self._size) for part in (predicted, true, self.y))
        return float(np.mean((predicted - true) ** 2) / np.var(y))

    @property
    def deviation(self) -> float:
        """The standard deviation of the training target, in its unit."""
        return float(np.ldexp(np.std(np.ldexp(self.y, -self._size)), self._size))

    @property
    def _size(self) -> int:
        return int(np.frexp(np.abs(self.y).max())[1])


@dataclass(frozen=True)
class Trained:
    """A trained model, mgnet's or a baseline's, with what it cost.

    Attributes
    ----------
    name : str
    predict : callable
        (rows, inputs) -> (rows,), both as in the file.
    parameters : int
    seconds : float
        Training time.
    work : float
        Gradient evaluations of the finest network; nan where that means nothing.
    train_mse, held_mse : float
        Standardised.
    history : tuple of (seconds, work, standardised training MSE, level)
    note : str
        What a reader should know besides the figures.
    """

    name: str
    predict: Callable[[np.ndarray], np.ndarray] = field(repr=False)
    parameters: int
    seconds: float
    work: float
    train_mse: float
    held_mse: float
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


def parameters(inputs: int, settings: Settings) -> int:
    """Number of parameters of the finest network.

    Parameters
    ----------
    inputs : int
    settings : Settings

    Examples
    --------
    >>> parameters(2, Settings(hidden=(8,), intervals=4, degree=3, levels=4))
    840
    """
    edges = (a * b for a, b in pairwise((inputs, *settings.hidden, 1)))
    finest = intervals_on(settings, settings.levels - 1)
    return sum(a * (n + settings.degree) for a, n in zip(edges, finest, strict=True))
