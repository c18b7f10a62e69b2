"""Pictures of a fit with several targets, or with classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mgnet.app.data import Data
from mgnet.app.files.columns import shown
from mgnet.plot.plots import BLUE, ORANGE

__all__ = ["draw_classes", "draw_pairs", "draw_residuals", "draw_targets"]

MOST_POINTS, MOST_TARGETS, MOST_CLASSES = 20_000, 9, 30
MOST_LARGE = 12  # classes with large letters
ACROSS = 3  # panels of targets
LONGEST, TOGETHER = 20, 40  # letters of the name of a class, and of all names side by side
LETTER = 0.09  # inches per letter
BINS = 10  # of probabilities
FEWEST = 5  # smallest number of rows in a bin that is drawn


def draw_targets(data: Data, predicted: np.ndarray, true: np.ndarray, rows: str) -> Figure:
    """Draw predicted against true values, and the residuals below, for each target.

    Parameters
    ----------
    data : Data
        Training and held-out rows.
    predicted, true : array of shape (rows, targets)
        Predicted and true targets.
    rows : str
        Name of the rows, for the titles.

    Returns
    -------
    matplotlib Figure
        The figure.

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.random.default_rng(0).random((20, 2))
    >>> data = Data(("a", "b"), Targets(("c", "d")), x, x, x, x)
    >>> [ax.get_title() for ax in draw_targets(data, x + 0.1, x, "held-out rows").axes]
    ['c, held-out rows', 'd, held-out rows', '', '']
    """
    names = data.targets.names[:MOST_TARGETS]
    across = min(len(names), ACROSS)
    down = -(-len(names) // across)
    figure = Figure(figsize=(4.5 * across, 6.6 * down), layout="constrained")
    axes = figure.subplots(2 * down, across, squeeze=False, height_ratios=(1.7, 1.0) * down)
    some = np.random.default_rng(0).permutation(len(true))[:MOST_POINTS]
    for number, name in enumerate(names):
        row, column = divmod(number, across)
        own = true[some, number], predicted[some, number]
        upper, lower = axes[2 * row : 2 * row + 2, column]
        draw_pairs(upper, *own, 9.0)
        upper.set_title(f"{name}, {rows}", fontsize=10)
        draw_residuals(lower, *own, 9.0)
    for number in range(len(names), down * across):
        row, column = divmod(number, across)
        for ax in axes[2 * row : 2 * row + 2, column]:
            ax.remove()
    return figure


def draw_pairs(ax: Axes, true: np.ndarray, predicted: np.ndarray, size: float) -> None:
    """Draw predicted against true values, with a dot for each row.

    Parameters
    ----------
    ax : Axes
        Axes to draw on.
    true, predicted : array of shape (rows,)
        True and predicted values.
    size : float
        Size of a dot.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> draw_pairs(ax, np.zeros(2), np.ones(2), 9.0)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('true', 'predicted')
    """
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    ax.plot(ends, ends, color=BLUE, linewidth=1.0)
    ax.scatter(true, predicted, s=size, color=ORANGE, alpha=0.6, linewidths=0, rasterized=True)
    ax.set_xlabel("true")
    ax.set_ylabel("predicted")
    _tidy(ax)


def draw_residuals(ax: Axes, true: np.ndarray, predicted: np.ndarray, size: float) -> None:
    """Draw residuals against predictions; they should be evenly distributed around 0.

    Parameters
    ----------
    ax, true, predicted, size
        The same as for `draw_pairs`.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> draw_residuals(ax, np.zeros(2), np.ones(2), 9.0)
    >>> ax.collections[0].get_offsets().tolist()
    [[1.0, -1.0], [1.0, -1.0]]
    """
    ax.axhline(0.0, color=BLUE, linewidth=1.0)
    rest = true - predicted
    ax.scatter(predicted, rest, s=size, color=ORANGE, alpha=0.6, linewidths=0, rasterized=True)
    ax.set_xlabel("predicted")
    ax.set_ylabel("residual: true - predicted")
    _tidy(ax)


def draw_classes(data: Data, predicted: np.ndarray, true: np.ndarray, rows: str) -> Figure:
    """Draw the confusion matrix and the reliability of the probabilities.

    Parameters
    ----------
    data : Data
        Training and held-out rows.
    predicted : array of shape (rows, classes)
        Predicted probabilities.
    true : array of shape (rows,)
        Numbers of the true classes.
    rows : str
        Name of the rows, for the titles.

    Returns
    -------
    matplotlib Figure
        The figure.

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x, y = np.zeros((4, 1)), np.array([0, 1, 0, 1])
    >>> data = Data(("a",), Targets(("kind",), ("p", "q")), x, y, x, y)
    >>> figure = draw_classes(data, np.eye(2)[y], y, "held-out rows")
    >>> [ax.get_title() for ax in figure.axes[:2]]
    ['kind: true and predicted, held-out rows', 'reliability of probabilities']
    """
    names = [shown(name, LONGEST) for name in data.targets.classes]
    most = max(map(len, names))
    upright = len(names) > 6 or len(names) * most > TOGETHER
    height = 4.8 + (0.3 + LETTER * most) * (upright and len(names) <= MOST_CLASSES)
    figure = Figure(figsize=(11.0, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_matrix(left, names, predicted, true, 90 if upright else 0)
    left.set_anchor("N")  # space for long names below
    left.set_title(f"{data.targets.title}: true and predicted, {rows}", fontsize=10)
    told, held = _reliability(predicted, true)
    right.plot([0.0, 1.0], [0.0, 1.0], color=BLUE, linewidth=1.0)
    right.plot(told, held, "o-", color=ORANGE, markersize=5, linewidth=1.2)
    right.set_title("reliability of probabilities", fontsize=10)
    right.set_xlabel("predicted probability of a class")
    right.set_ylabel("share of rows that have it")
    _tidy(right)
    return figure


def _draw_matrix(
    ax: Axes, names: Sequence[str], predicted: np.ndarray, true: np.ndarray, rotation: int
) -> None:
    kinds = len(names)
    counts = np.bincount(true * kinds + predicted.argmax(1), minlength=kinds**2)
    counts = counts.reshape(kinds, kinds)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    size = 10 if kinds <= MOST_LARGE else 6
    if kinds <= MOST_CLASSES:
        ax.set_xticks(range(kinds), names, rotation=rotation, fontsize=size)
        ax.set_yticks(range(kinds), names, fontsize=size)
    for row, column in np.argwhere(counts) if kinds <= MOST_CLASSES else ():
        dark = shares[row, column] > 0.5
        text = str(counts[row, column])
        style = {"color": "white" if dark else "black", "fontsize": size}
        ax.text(column, row, text, ha="center", va="center", **style)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")


def _reliability(predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean probability and the fraction of true cases in each bin, over all classes."""
    hit = np.arange(predicted.shape[1]) == true[:, None]
    part = np.minimum((predicted * BINS).astype(int), BINS - 1).ravel()
    counts = np.bincount(part, minlength=BINS)
    there = counts >= min(FEWEST, counts.max())
    means = (np.bincount(part, values.ravel(), BINS) for values in (predicted, hit))
    told, held = (total[there] / counts[there] for total in means)
    return told, held


def _tidy(ax: Axes) -> None:
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
