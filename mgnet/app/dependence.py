"""Picture of the effect of each input: the mean prediction as a function of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mgnet.app.columns.codes import BooleanCode, CategoryCode, DateCode
from mgnet.app.columns.encoding import Encoding
from mgnet.app.data import Data
from mgnet.app.files.columns import shown
from mgnet.app.pictures import as_label, influential
from mgnet.plot.plots import BLUE, GREY, LINES

__all__ = ["plot_dependence"]

PANELS, ACROSS, LINES_SHOWN, LEVELS_SHOWN = 12, 4, 6, 12
GRID, FEW = 33, 12  # points of a curve; number of values that are drawn separately
WORK, MOST_ROWS, LEAST_ROWS = 2_000_000, 200, 20  # limits on predicted cells and rows
BINS, HEIGHT = 32, 0.15  # of the histogram, as a part of the panel
WIDTH = 0.8  # width of a bar, relative to the smallest distance of separate values
ROUNDING = 1e-9  # tolerance at a full hour, which belongs to the hour that begins
TICKS = 6  # largest number of ticks for separate values
SEED = 0
# Periods of the cycles: number of positions, and their names if there are few.
ROUNDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "hour": (24, ()),
    "weekday": (7, ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")),
    "month": (12, tuple("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())),
}

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class _Panel:
    name: str
    columns: list[int]  # of the inputs that change
    places: np.ndarray  # (places, columns)
    axis: np.ndarray  # (places,), where they are drawn
    bars: tuple[np.ndarray, np.ndarray, np.ndarray]  # positions, numbers of rows, widths
    levels: tuple[str, ...] = ()  # names of the places
    day: Callable[[float], str] | None = None  # converts a position in a column of dates to text


def plot_dependence(data: Data, predict: Predict, order: Sequence[int] | None = None) -> Figure:
    """Draw the partial dependence on each input, in the units of the table.

    Each panel sets one column of the table to a sequence of values in some of the training rows,
    leaves the other columns unchanged, and draws the mean of the predictions; bars show the number
    of rows near each value. The cycles of a date have panels of their own. The panels share a
    vertical axis, so the curve with the largest range shows the largest effect. If there are more
    than twelve columns, the panels show those whose permutation changes the predictions most.

    Parameters
    ----------
    data : Data
        Rows of the table.
    predict : callable
        Prediction function, as `Trained.predict`.
    order : sequence of int, optional
        Order of the inputs, as returned by `influential`.

    Returns
    -------
    matplotlib Figure
        Figure with one panel per column.

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
    panels, total = _chosen(data, predict, order)
    across = min(len(panels), ACROSS)
    down = -(-len(panels) // across)
    figure = Figure(figsize=(max(3.3 * across, 5.0), 2.9 * down + 0.6), layout="constrained")
    axes = np.ravel(figure.subplots(down, across, squeeze=False, sharey=True))
    rows, kept = _background(data), _outputs(data)
    for ax, panel in zip(axes, panels, strict=False):
        _draw(ax, panel, _means(panel, rows, predict, data)[:, kept])
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax in axes[::across][:down]:
        ax.set_ylabel(_measure(data), fontsize=9)
    few = f"the {len(panels)} of {total} columns that matter most: " if total > len(panels) else ""
    figure.suptitle(f"{few}mean prediction as one column changes", fontsize=11)
    names = data.targets.outputs
    if len(kept) > 1:
        labels = [as_label(names[number]) for number in kept]
        figure.legend(axes[0].lines[: len(kept)], labels, loc="outside lower center",
                      ncols=len(kept), frameon=False, fontsize=9)  # fmt: skip
    return figure


def _chosen(data: Data, predict: Predict, order: Sequence[int] | None) -> tuple[list[_Panel], int]:
    """The panels to draw, and the total number of panels."""
    panels = _panels(data)
    if len(panels) <= PANELS:
        return panels, len(panels)
    owner = {column: number for number, panel in enumerate(panels) for column in panel.columns}
    order = influential(data, predict) if order is None else order
    ranked = dict.fromkeys(owner[column] for column in order)
    return [panels[number] for number in list(ranked)[:PANELS]], len(panels)


def _panels(data: Data) -> list[_Panel]:
    """One panel for each column; for a date, one for the days and one for each cycle."""
    encoding = data.encoding or Encoding.of_numbers(data.names)
    number = {name: place for place, name in enumerate(encoding.names)}
    panels = []
    for code in encoding.codes:
        own = [number[name] for name in code.features if name in number]
        if isinstance(code, CategoryCode):
            panels.append(_levels(code, own, data))
        elif isinstance(code, BooleanCode):
            places = np.array([[0.0], [1.0]])
            panels.append(_named(code.name, own, places, ("false", "true"), data))
        elif isinstance(code, DateCode):
            panels += _dates(code, number, data)
        else:
            panels.append(_numbers(data.names[own[0]], own[0], data))
    return panels


def _dates(code: DateCode, number: dict[str, int], data: Data) -> list[_Panel]:
    days, *circles = code.features
    panels = []
    if days in number:
        panels.append(replace(_numbers(code.name, number[days], data), day=code.told))
    for cycle, *pair in zip(code.cycles, circles[::2], circles[1::2], strict=True):
        if number.keys() >= set(pair):
            panels.append(_cycle(f"{code.name}, {cycle}", cycle, [number[p] for p in pair], data))
        else:  # the other one did not vary
            own = (name for name in pair if name in number)
            panels += [_numbers(name, number[name], data) for name in own]
    return panels


def _cycle(name: str, cycle: str, own: list[int], data: Data) -> _Panel:
    """One full cycle, with sine and cosine together."""
    count, names = ROUNDS[cycle]
    turns = np.arange(count + (not names)) / count
    places = np.stack([np.sin(2.0 * np.pi * turns), np.cos(2.0 * np.pi * turns)], 1)
    found = np.arctan2(*data.x[:, own].T) / (2.0 * np.pi) * count + ROUNDING
    if names:
        heights = np.bincount(np.rint(found).astype(int) % count, minlength=count)
        bars = np.arange(count), heights, np.full(count, WIDTH)
        return _Panel(name, own, places, np.arange(count), bars, names)
    return _Panel(name, own, places, count * turns, _histogram(found % count, (0.0, count)))


def _named(
    name: str, own: list[int], places: np.ndarray, levels: tuple[str, ...], data: Data
) -> _Panel:
    """A panel with a named position for each level."""
    heights = np.array([(data.x[:, own] == place).all(1).sum() for place in places])
    axis = np.arange(len(places))
    return _Panel(name, own, places, axis, (axis, heights, np.full(len(axis), WIDTH)), levels)


def _numbers(name: str, column: int, data: Data) -> _Panel:
    """A panel over the range of an input, or at each of its values if there are few."""
    values, counts = np.unique(data.x[:, column], return_counts=True)
    if len(values) > FEW:
        axis = np.linspace(values[0], values[-1], GRID)
        return _Panel(name, [column], axis[:, None], axis, _histogram(data.x[:, column]))
    wide = WIDTH * min(np.diff(values).min(initial=np.inf), np.ptp(values) / FEW or 1.0)
    bars = values, counts, np.full(len(values), wide)
    return _Panel(name, [column], values[:, None], values, bars)


def _histogram(
    column: np.ndarray, ends: tuple[float, float] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    heights, edges = np.histogram(column, BINS if ends is None else 24, ends)
    return 0.5 * (edges[1:] + edges[:-1]), heights, np.diff(edges)


def _levels(code: CategoryCode, own: list[int], data: Data) -> _Panel:
    """The most frequent levels that have an input of their own, sorted by name."""
    most = np.sort(np.argsort(-data.x[:, own].sum(0), kind="stable")[:LEVELS_SHOWN])
    names = tuple(data.names[own[n]].removeprefix(f"{code.name}=") for n in most)
    return _named(code.name, own, np.eye(len(own))[most], names, data)


def _background(data: Data) -> np.ndarray:
    """Training rows in which a column is changed."""
    most = int(np.clip(WORK // (PANELS * GRID * data.x.shape[1]), LEAST_ROWS, MOST_ROWS))
    order = np.random.default_rng(SEED).permutation(len(data.x))
    return data.x[order[:most]]


def _outputs(data: Data) -> list[int]:
    """The outputs that are drawn: the most frequent classes, the first targets."""
    classes = len(data.targets.classes)
    if not classes:
        return list(range(len(data.targets.names)))[:LINES_SHOWN]
    counts = np.bincount(data.y, minlength=classes)
    return sorted(np.argsort(-counts, kind="stable")[:LINES_SHOWN].tolist())


def _means(panel: _Panel, rows: np.ndarray, predict: Predict, data: Data) -> np.ndarray:
    """Mean predictions of shape (positions, outputs); several targets are standardized."""
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
    return several if others else f"{as_label(name)},\nmean prediction"


def _draw(ax: Axes, panel: _Panel, means: np.ndarray) -> None:
    x, dots = panel.axis, len(means) <= FEW
    for number, values in enumerate(means.T):
        color = LINES[number % len(LINES)][0] if means.shape[1] > 1 else BLUE
        marker, width = ("o" if dots else ""), 0.0 if panel.levels else 1.0 if dots else 1.8
        ax.plot(x, values, marker=marker, markersize=4, color=color, linewidth=width, zorder=3)
    if panel.levels:
        ax.set_xticks(x, [as_label(shown(name, 14)) for name in panel.levels], fontsize=8,
                      rotation=90 if len(x) > 3 else 0)  # fmt: skip
    elif len(x) <= TICKS and (x == np.rint(x)).all():
        ax.set_xticks(x)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(3 if panel.day else 5))
    middle, heights, width = panel.bars
    ax.bar(middle, HEIGHT * heights / max(heights.max(), 1), width, color=GREY, alpha=0.5,
           transform=ax.get_xaxis_transform(), zorder=1)  # fmt: skip
    if told := panel.day:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: told(float(value))[:10]))
        ax.tick_params(axis="x", labelsize=8)
    ax.set_xlabel(as_label(panel.name))
    ax.grid(color="0.9", linewidth=0.8)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
