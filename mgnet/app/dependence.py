"""Picture of what a fit makes of each input: its mean prediction as the input is moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mgnet.app.columns.codes import CategoryCode, DateCode
from mgnet.app.columns.encoding import Encoding
from mgnet.app.data import Data
from mgnet.app.files.columns import shown
from mgnet.app.pictures import as_label, influential
from mgnet.plot.plots import BLUE, GREY, LINES

__all__ = ["plot_dependence"]

PANELS, ACROSS, LINES_SHOWN, LEVELS_SHOWN = 12, 4, 6, 12
GRID, FEW = 33, 12  # places of a curve; values that are drawn one by one
WORK, MOST_ROWS, LEAST_ROWS = 2_000_000, 200, 20  # cells that are predicted from, and rows
BINS, HEIGHT = 32, 0.15  # of the histogram, as a part of the panel
SEED = 0

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class _Panel:
    name: str
    columns: list[int]  # of the inputs that move
    places: np.ndarray  # (places, columns)
    levels: tuple[str, ...] = ()  # names of the places, of a column of text
    day: Callable[[float], str] | None = None  # names a place, of a column of dates


def plot_dependence(data: Data, predict: Predict) -> Figure:
    """Draw the partial dependence on each input, in the units of the table.

    Each panel sets one column of the table to one value after the other in some of the training
    rows, leaves their other columns as they are, and draws the mean of the predictions; bars count
    the rows there. The panels share an axis, so the steepest matters most. Of more than twelve
    columns those are drawn whose shuffling changes the predictions most.

    Parameters
    ----------
    data : Data
    predict : callable
        As `Trained.predict`.

    Returns
    -------
    matplotlib Figure

    Notes
    -----
    Friedman, Greedy function approximation: a gradient boosting machine, Annals of Statistics 29
    (2001), section 8.2.

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.random.default_rng(0).random((50, 2))
    >>> data = Data(("a", "b"), Targets(("c",)), x, x.sum(1), x[:0], x[:0, 0])
    >>> [ax.get_xlabel() for ax in plot_dependence(data, lambda x: x.sum(1)).axes]
    ['a', 'b']
    """
    panels, total = _chosen(data, predict)
    across = min(len(panels), ACROSS)
    down = -(-len(panels) // across)
    figure = Figure(figsize=(max(3.3 * across, 5.0), 2.9 * down + 0.6), layout="constrained")
    axes = np.ravel(figure.subplots(down, across, squeeze=False, sharey=True))
    rows, kept = _background(data), _outputs(data)
    for ax, panel in zip(axes, panels, strict=False):
        _draw(ax, panel, data, _means(panel, rows, predict, data)[:, kept])
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax in axes[::across][:down]:
        ax.set_ylabel(_measure(data), fontsize=9)
    few = f"the {len(panels)} of {total} columns that matter most: " if total > len(panels) else ""
    figure.suptitle(f"{few}mean prediction as one column changes", fontsize=11)
    names = data.targets.outputs
    if len(kept) > 1:
        labels = [as_label(shown(names[number])) for number in kept]
        figure.legend(axes[0].lines[: len(kept)], labels, loc="outside lower center",
                      ncols=len(kept), frameon=False, fontsize=9)  # fmt: skip
    return figure


def _chosen(data: Data, predict: Predict) -> tuple[list[_Panel], int]:
    """The panels to draw, and of how many."""
    panels = _panels(data)
    if len(panels) <= PANELS:
        return panels, len(panels)
    owner = {column: number for number, panel in enumerate(panels) for column in panel.columns}
    ranked = dict.fromkeys(owner[column] for column in influential(data, predict))
    return [panels[number] for number in list(ranked)[:PANELS]], len(panels)


def _panels(data: Data) -> list[_Panel]:
    """One for each column of numbers or text; of a date, for each input that it becomes."""
    encoding = data.encoding or Encoding.of_numbers(data.names)
    number = {name: place for place, name in enumerate(encoding.names)}
    panels = []
    for code in encoding.codes:
        own = [number[name] for name in code.features if name in number]
        if isinstance(code, CategoryCode):
            panels.append(_levels(code, own, data))
            continue
        for feature in (name for name in code.features if name in number):
            column = number[feature]
            days = isinstance(code, DateCode) and feature == code.features[0]
            name = code.name if days else data.names[column]
            panels.append(_Panel(name, [column], _places(data.x[:, column]),
                                 day=code.told if days else None))  # fmt: skip
    return panels


def _levels(code: CategoryCode, own: list[int], data: Data) -> _Panel:
    """The most frequent levels that have an input, in the order of their names."""
    most = np.sort(np.argsort(-data.x[:, own].sum(0), kind="stable")[:LEVELS_SHOWN])
    names = tuple(data.names[own[n]].removeprefix(f"{code.name}=") for n in most)
    return _Panel(code.name, own, np.eye(len(own))[most], names)


def _places(column: np.ndarray) -> np.ndarray:
    values = np.unique(column)
    if len(values) > FEW:
        values = np.linspace(values[0], values[-1], GRID)
    return values[:, None]


def _background(data: Data) -> np.ndarray:
    """Training rows in which a column is moved."""
    most = int(np.clip(WORK // (PANELS * GRID * data.x.shape[1]), LEAST_ROWS, MOST_ROWS))
    order = np.random.default_rng(SEED).permutation(len(data.x))
    return data.x[order[:most]]


def _outputs(data: Data) -> list[int]:
    """Those that are drawn: the most frequent classes, the first targets."""
    classes = len(data.targets.classes)
    if not classes:
        return list(range(len(data.targets.names)))[:LINES_SHOWN]
    counts = np.bincount(data.y, minlength=classes)
    return sorted(np.argsort(-counts, kind="stable")[:LINES_SHOWN].tolist())


def _means(panel: _Panel, rows: np.ndarray, predict: Predict, data: Data) -> np.ndarray:
    """Mean predictions of shape (places, outputs); several targets in their deviations."""
    moved: np.ndarray = np.repeat(rows[None], len(panel.places), axis=0)
    moved[:, :, panel.columns] = panel.places[:, None]
    values = predict(moved.reshape(-1, rows.shape[1])).reshape(*moved.shape[:2], -1).mean(1)
    if values.shape[1] > 1 and not data.targets.classes:
        return (values - data.y.mean(0)) / data.deviation
    return values


def _measure(data: Data) -> str:
    if data.targets.classes:
        return "mean probability"
    name, *others = data.targets.names
    several = "mean prediction,\nin deviations of the targets"
    return several if others else f"{as_label(shown(name))},\nmean prediction"


def _draw(ax: Axes, panel: _Panel, data: Data, means: np.ndarray) -> None:
    x = np.arange(len(means)) if panel.levels else panel.places[:, 0]
    dots = len(means) <= FEW
    for number, values in enumerate(means.T):
        color = LINES[number % len(LINES)][0] if means.shape[1] > 1 else BLUE
        marker, width = ("o" if dots else ""), 0.0 if panel.levels else 1.0 if dots else 1.8
        ax.plot(x, values, marker=marker, markersize=4, color=color, linewidth=width, zorder=3)
    if panel.levels:
        heights = data.x[:, panel.columns].sum(0)[panel.places.argmax(1)]
        left, width = x - 0.4, np.full(len(x), 0.8)
        ax.set_xticks(x, [as_label(shown(name, 14)) for name in panel.levels], fontsize=8,
                      rotation=90 if len(x) > 3 else 0)  # fmt: skip
    else:
        heights, edges = np.histogram(data.x[:, panel.columns[0]], BINS)
        left, width = edges[:-1], np.diff(edges)
        ax.xaxis.set_major_locator(MaxNLocator(3 if panel.day else 5))
    foot = ax.get_xaxis_transform()
    ax.bar(left, HEIGHT * heights / max(heights.max(), 1), width, align="edge", color=GREY,
           alpha=0.5, transform=foot, zorder=1)  # fmt: skip
    if told := panel.day:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: told(float(value))[:10]))
        ax.tick_params(axis="x", labelsize=8)
    ax.set_xlabel(as_label(shown(panel.name, 40)))
    ax.grid(color="0.9", linewidth=0.8)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
