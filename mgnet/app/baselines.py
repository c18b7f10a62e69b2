"""A tensor-product spline, as a baseline for tables with few inputs.

Its settings are chosen within the given seconds, by cross-validation on the training rows; the
spline is then fitted to all of them. The held-out rows are used only to measure the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter

import numpy as np
from scipy.linalg import LinAlgError
from threadpoolctl import threadpool_limits

from mgnet.app import tensor_spline
from mgnet.app.data import Data, Trained
from mgnet.app.tensor_spline import ORDER, Axis, Fit, Splines

__all__ = ["spline"]

MAX_INPUTS = 3
EVEN = (0.0, 1.0)
OTHER = {"linear": "log", "log": "linear"}
SPLIT_SEED = 12345
FOLDS = 4
FULL = 1.0e7  # largest number of floats in a banded matrix


def _folds(rows: int) -> list[np.ndarray]:
    """Divide the training rows into parts that serve in turn as validation rows."""
    order = np.random.default_rng(SPLIT_SEED).permutation(rows)
    return np.array_split(order, min(FOLDS, rows))


def _start(x: np.ndarray) -> Splines:
    """Return the initial guess: uniform knots, few enough for the rows to determine the splines."""
    intervals = max(int(min(12.0, (len(x) / 4.0) ** (1.0 / x.shape[1]))) - ORDER + 1, 1)
    axes = [Axis(c.min(), c.max(), "linear", EVEN, intervals) for c in x.T]
    return Splines(tuple(axes), (-4.0,) * len(axes))


def _moves(x: np.ndarray, y: np.ndarray, step: float) -> Iterator[Callable[[Fit], Splines]]:
    """Yield changes of the settings of all axes or of one, the most promising first."""
    numbers = range(x.shape[1])
    change = 4.0 * (step - 1.0)
    yield lambda fit: _placed(fit, numbers)
    yield lambda fit: _penalised(_placed(fit, numbers), numbers, 1.0)
    yield lambda fit: _penalised(fit.choice, numbers, change)
    yield lambda fit: _penalised(fit.choice, numbers, -change)
    yield lambda fit: _placed(fit, numbers, damping=0.5)
    yield lambda fit: _resized(fit.choice, numbers, step)
    yield lambda fit: _placed(fit, numbers)
    for number in numbers if len(numbers) > 1 else ():
        yield lambda fit, number=number: _resized(fit.choice, (number,), step)
        yield lambda fit, number=number: _placed(fit, (number,))
        yield lambda fit, number=number: _penalised(fit.choice, (number,), change)
        yield lambda fit, number=number: _penalised(fit.choice, (number,), -change)
    if y.min() > 0.0:
        yield lambda fit: replace(fit.choice, scale=OTHER[fit.choice.scale])
    for number in numbers:
        yield lambda fit, number=number: _resized(fit.choice, (number,), 1.0 / step)
        if x[:, number].min() > 0.0:
            yield partial(_rescaled, number=number)
        yield partial(_quantiles, number=number, column=x[:, number])
        yield partial(_even, number=number)


def _with_axis(choice: Splines, number: int, axis: Axis) -> Splines:
    return replace(choice, axes=(*choice.axes[:number], axis, *choice.axes[number + 1 :]))


def _resized(choice: Splines, numbers: Iterable[int], factor: float) -> Splines:
    """Change the number of intervals by at least one."""
    for number in numbers:
        axis = choice.axes[number]
        grown = axis.intervals * factor
        intervals = max(int(np.ceil(grown) if factor > 1.0 else grown), 1)
        choice = _with_axis(choice, number, replace(axis, intervals=intervals))
    return choice


def _placed(fit: Fit, numbers: Iterable[int], damping: float = 0.0) -> Splines:
    """Place knots where the current fit bends; a damping factor near 1 moves them only slightly."""
    choice = fit.choice
    for number in numbers:
        axis = choice.axes[number]
        if axis.intervals > 2:
            new = np.array(tensor_spline.equal_error_grid(fit, number))
            weights = np.linspace(0.0, 1.0, len(axis.grid))
            old = np.interp(np.linspace(0.0, 1.0, len(new)), weights, axis.grid)
            inner = (1.0 - damping) * new[1:-1] + damping * old[1:-1]
            grid = (0.0, *map(float, inner), 1.0)
            axis = replace(axis, grid=grid, places="curvature")
            choice = _with_axis(choice, number, axis)
    return choice


def _penalised(choice: Splines, numbers: Iterable[int], change: float) -> Splines:
    """Multiply penalties by a power of ten."""
    powers = list(choice.penalties)
    for number in numbers:
        powers[number] = min(max(powers[number] + change, -12.0), 4.0)
    return replace(choice, penalties=tuple(powers))


def _rescaled(fit: Fit, number: int) -> Splines:
    axis = fit.choice.axes[number]
    changed = replace(axis, scale=OTHER[axis.scale], grid=EVEN, places="uniform")
    return _with_axis(fit.choice, number, changed)


def _quantiles(fit: Fit, number: int, column: np.ndarray) -> Splines:
    """Place the knots of an axis so that any two neighbors have equally many rows between them."""
    axis = fit.choice.axes[number]
    places = np.quantile(axis.coordinate(column), np.linspace(0.0, 1.0, 51))
    if np.any(np.diff(places) <= 0.0):
        return fit.choice
    grid = (0.0, *map(float, places[1:-1]), 1.0)
    return _with_axis(fit.choice, number, replace(axis, grid=grid, places="quantile"))


def _even(fit: Fit, number: int) -> Splines:
    axis = replace(fit.choice.axes[number], grid=EVEN, places="uniform")
    return _with_axis(fit.choice, number, axis)


@dataclass
class _Search:
    """The best settings so far, and the duration of the trials."""

    x: np.ndarray
    y: np.ndarray
    deadline: float
    record: Callable[[Fit], None]
    error: float = np.inf
    fit: Fit | None = None
    longest: float = 0.0
    seen: set[Splines] = field(default_factory=set)

    def accepts(self, choice: Splines) -> bool:
        """Cross-validate settings that were not tried before; keep them if they lower the error."""
        if choice in self.seen or choice.storage > FULL:
            return False
        self.seen.add(choice)
        begun = perf_counter()
        total, fit = 0.0, None
        for kept in _folds(len(self.y)):
            fitted = np.setdiff1d(np.arange(len(self.y)), kept, assume_unique=True)
            try:
                fit = tensor_spline.least_squares(choice, self.x[fitted], self.y[fitted])
            except LinAlgError:
                return False
            total += float(np.sum((fit(self.x[kept]) - self.y[kept]) ** 2))
            if not total < 0.999 * self.error:
                break
        self.longest = max(0.7 * self.longest, perf_counter() - begun)
        if fit is None or not total < 0.999 * self.error:
            return False
        self.error, self.fit = total, fit
        self.record(fit)
        return True

    @property
    def over(self) -> bool:
        """Whether another trial and the final fit might exceed the deadline."""
        return perf_counter() + 1.5 * self.longest > self.deadline


def _choose(search: _Search) -> None:
    """Repeatedly change the best settings so far; take smaller steps when no change helps."""
    search.accepts(_start(search.x))
    step = 1.5
    while search.fit is not None and step > 1.02 and not search.over:
        better = False
        for move in _moves(search.x, search.y, step):
            if not search.over and search.accepts(move(search.fit)):
                better = True
        if not better:
            step = 1.0 + 0.5 * (step - 1.0)


def spline(data: Data, seconds: float) -> Trained:
    """Fit a tensor-product cubic spline by penalized least squares.

    The number of knots, their positions, the penalties and the scales (linear or logarithmic) of
    inputs and target are chosen by cross-validation on the training rows, for as long as the
    seconds last.

    Parameters
    ----------
    data : Data
        Data with up to three inputs, one numeric target, and no weights.
    seconds : float
        Time limit.

    Returns
    -------
    Trained
        Trained spline, with a note on the chosen settings.

    Raises
    ------
    ValueError
        If there are more than three inputs, or if an input does not vary.

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.linspace(0.0, 1.0, 60)[:, None]
    >>> data = Data(("x",), Targets(("y",)), x, x[:, 0] ** 3, x + 0.001, (x[:, 0] + 0.001) ** 3)
    >>> spline(data, seconds=0.1).held_loss < 1e-8
    True
    """
    begun = perf_counter()
    x, y = np.asarray(data.x, dtype=float), np.asarray(data.y, dtype=float)
    if x.shape[1] > MAX_INPUTS:
        raise ValueError(
            f"spline got {x.shape[1]} inputs; a tensor product is too large for more than "
            f"{MAX_INPUTS}"
        )
    if len(x) <= ORDER:
        raise ValueError(f"spline got {len(x)} rows; a cubic needs more than {ORDER}")
    for name, column in zip(data.names, x.T, strict=True):
        if np.ptp(column) == 0.0:
            raise ValueError(f"spline cannot place knots: input {name} does not vary; leave it out")
    history = []

    def record(fit: Fit) -> None:
        history.append((perf_counter() - begun, np.nan, data.loss(fit(x), y), 0))

    with threadpool_limits(limits=1, user_api="blas"):  # the banded factorizations are narrow
        search = _Search(x, y, begun + seconds, record)
        _choose(search)
        if search.fit is None:
            raise ValueError(f"spline got {len(x)} rows; they do not determine a cubic spline")
        fit = tensor_spline.least_squares(search.fit.choice, x, y)
        record(fit)
    axes = (
        f"{name}: {axis.intervals} intervals, {axis.scale} scale, {axis.places} knots"
        for name, axis in zip(data.names, fit.choice.axes, strict=True)
    )
    note = f"{len(search.seen)} settings tried; {fit.choice.scale} target; {'; '.join(axes)}"
    name, losses = "tensor-product cubic spline", data.losses(fit)
    seconds, count = history[-1][0], len(fit.coefficients)
    return Trained(name, fit, count, seconds, np.nan, *losses, tuple(history), note)
