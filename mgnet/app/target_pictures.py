"""Pictures of a fit where there are several targets, or classes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mgnet.app.data import Data
from mgnet.plot.plots import BLUE, ORANGE

__all__ = ["draw_classes", "draw_targets"]

MOST_POINTS, MOST_TARGETS, MOST_CLASSES = 20_000, 9, 30
BINS = 10  # of probabilities
FEWEST = 5  # rows in a bin that is drawn


def draw_targets(data: Data, predicted: np.ndarray, true: np.ndarray, rows: str) -> Figure:
    """Predicted against true, one panel for each target.

    Parameters
    ----------
    data : Data
    predicted, true : array of shape (rows, targets)
    rows : str
        Which they are, for the titles.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.random.default_rng(0).random((20, 2))
    >>> data = Data(("a", "b"), Targets(("c", "d")), x, x, x, x)
    >>> [ax.get_title() for ax in draw_targets(data, x + 0.1, x, "held-out rows").axes]
    ['c, held-out rows', 'd, held-out rows']
    """
    names = data.targets.names[:MOST_TARGETS]
    across = min(len(names), 3)
    down = -(-len(names) // across)
    figure = Figure(figsize=(4.5 * across, 4.2 * down), layout="constrained")
    axes = np.ravel(figure.subplots(down, across, squeeze=False))
    some = np.random.default_rng(0).permutation(len(true))[:MOST_POINTS]
    for ax, name, y, fit in zip(axes, names, true[some].T, predicted[some].T, strict=False):
        ends = [min(y.min(), fit.min()), max(y.max(), fit.max())]
        ax.plot(ends, ends, color=BLUE, linewidth=1.0)
        ax.scatter(y, fit, s=9, color=ORANGE, alpha=0.6, linewidths=0, rasterized=True)
        ax.set_title(f"{name}, {rows}", fontsize=10)
        ax.set_xlabel("true")
        ax.set_ylabel("predicted")
        _tidy(ax)
    for ax in axes[len(names) :]:
        ax.remove()
    return figure


def draw_classes(data: Data, predicted: np.ndarray, true: np.ndarray, rows: str) -> Figure:
    """Which class was taken for which, and how often a probability holds.

    Parameters
    ----------
    data : Data
    predicted : array of shape (rows, classes)
        Probabilities.
    true : array of shape (rows,)
        Numbers of classes.
    rows : str
        Which they are, for the titles.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x, y = np.zeros((4, 1)), np.array([0, 1, 0, 1])
    >>> data = Data(("a",), Targets(("kind",), ("p", "q")), x, y, x, y)
    >>> figure = draw_classes(data, np.eye(2)[y], y, "held-out rows")
    >>> [ax.get_title() for ax in figure.axes[:2]]
    ['kind: true and predicted, held-out rows', 'how often a probability holds']
    """
    figure = Figure(figsize=(11.0, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_pairs(left, data, predicted, true)
    left.set_title(f"{data.targets.title}: true and predicted, {rows}", fontsize=10)
    told, held = _reliability(predicted, true)
    right.plot([0.0, 1.0], [0.0, 1.0], color=BLUE, linewidth=1.0)
    right.plot(told, held, "o-", color=ORANGE, markersize=5, linewidth=1.2)
    right.set_title("how often a probability holds", fontsize=10)
    right.set_xlabel("predicted probability of a class")
    right.set_ylabel("share of rows that have it")
    _tidy(right)
    return figure


def _draw_pairs(ax: Axes, data: Data, predicted: np.ndarray, true: np.ndarray) -> None:
    classes = data.targets.classes
    kinds = len(classes)
    counts = np.bincount(true * kinds + predicted.argmax(1), minlength=kinds**2)
    counts = counts.reshape(kinds, kinds)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    if kinds <= MOST_CLASSES:
        ax.set_xticks(range(kinds), classes, rotation=90 if kinds > 6 else 0)
        ax.set_yticks(range(kinds), classes)
    for row, column in np.argwhere(counts) if kinds <= MOST_CLASSES else ():
        dark = shares[row, column] > 0.5
        text = str(counts[row, column])
        ax.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")


def _reliability(predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability and share of true ones, in bins of the probabilities of all classes."""
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
