"""Pictures of a fit: data, fit and error; training error over time with the baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.spatial import Delaunay, QhullError

from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data, Trained
from mgnet.app.files.columns import shown
from mgnet.app.target_pictures import draw_classes, draw_pairs, draw_residuals, draw_targets
from mgnet.plot.plots import BLUE, GREY, LINES, ORANGE

__all__ = ["as_label", "influential", "plot_fit", "plot_training"]

MOST_POINTS = 20_000
GRID = 160  # points per axis at which a fit is drawn
DECADES = 4.0  # range of the colors of the error
WIDE = 0.09  # part of the axis; a level of this width has space for its name
SEED = 0

Predict = Callable[[np.ndarray], np.ndarray]


def plot_fit(data: Data, predict: Predict, order: Sequence[int] | None = None) -> Figure:
    """Draw the data, the fit and its error on the held-out rows.

    With one input, the pictures are curves. With two inputs, they are maps, with the rows as points
    and the fit drawn inside their convex hull. With more inputs, they are curves through the
    medians of the other inputs for the two most influential inputs (those whose permutation changes
    the predictions most), predicted against true values, and residuals. If there are several
    targets, each of them has the last two pictures; if there are classes, the picture is a
    confusion matrix.

    Parameters
    ----------
    data : Data
        Data; if there are no held-out rows, the training rows are drawn.
    predict : callable
        Prediction function, as `Trained.predict`.
    order : sequence of int, optional
        Order of the inputs, as returned by `influential`.

    Returns
    -------
    matplotlib Figure
        The figure; save it with `figure.savefig(path)`.

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.random.default_rng(0).random((50, 2))
    >>> data = Data(("a", "b"), Targets(("c",)), x[:40], x[:40].sum(1), x[40:], x[40:].sum(1))
    >>> [ax.get_title() for ax in plot_fit(data, lambda x: x.sum(1) + 0.1).axes[:3]]
    ['c: data', 'c: fit', 'c: |error|, held-out rows']
    """
    inputs = data.x.shape[1]
    names, classes = (tuple(map(as_label, n)) for n in (data.targets.names, data.targets.classes))
    data = replace(data, names=tuple(map(as_label, data.names)), targets=Targets(names, classes))
    if classes or len(names) > 1:
        x, y, _, kind = data.measured
        return (draw_classes if classes else draw_targets)(data, predict(x), y, f"{kind} rows")
    if inputs > 2:
        return _draw_slices(data, predict, influential(data, predict) if order is None else order)
    return (_draw_curve if inputs == 1 else _draw_maps)(data, predict)


def as_label(name: str) -> str:
    r"""The name of a column for a picture: not too long, and with escaped dollar signs.

    Examples
    --------
    >>> print(as_label("price [$]"))
    price [\$]
    """
    return shown(name).replace("$", r"\$")


def _some(rows: int) -> np.ndarray:
    """Return the numbers of the rows to draw: all rows, or as many as a picture can show."""
    order = np.random.default_rng(SEED).permutation(rows)
    return order[:MOST_POINTS]


def _tidy(ax: Axes) -> None:
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _point_size(rows: int) -> float:
    return float(np.clip(40_000.0 / max(rows, 1), 3.0, 18.0))


def _draw_curve(data: Data, predict: Predict) -> Figure:
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1.0))
    rows = _some(len(data.y))
    x_held, y_held, _, name = data.measured
    name = f"{name} rows"
    ends = np.concatenate([data.x[:, 0], x_held[:, 0]])
    line = np.linspace(ends.min(), ends.max(), 1001)
    size = _point_size(len(rows))
    top.scatter(data.x[rows, 0], data.y[rows], s=size, color=GREY, linewidths=0, label="data")
    top.plot(line, predict(line[:, None]), color=BLUE, linewidth=1.5, label="fit")
    top.set_ylabel(data.targets.title)
    top.legend(frameon=False)
    some = _some(len(y_held))
    error = predict(x_held[some]) - y_held[some]
    bottom.axhline(0.0, color=BLUE, linewidth=1.0)
    bottom.scatter(x_held[some, 0], error, s=_point_size(len(some)), color=ORANGE, linewidths=0)
    bottom.set_ylabel(f"fit minus data\n({name})")
    bottom.set_xlabel(data.names[0])
    for ax in (top, bottom):
        _tidy(ax)
    return figure


def _draw_maps(data: Data, predict: Predict) -> Figure:
    figure = Figure(figsize=(13.5, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    x, y = np.concatenate([data.x, data.x_held]), np.concatenate([data.y, data.y_held])
    rows = _some(len(y))
    limits = {"vmin": y.min(), "vmax": y.max(), "cmap": "viridis"}
    size = _point_size(len(rows))
    drawn = axes[0].scatter(*x[rows].T, c=y[rows], s=size, linewidths=0, rasterized=True, **limits)
    axes[0].set_title(f"{data.targets.title}: data")
    first, second, values = _map(x, predict)
    axes[1].pcolormesh(first, second, values, shading="nearest", rasterized=True, **limits)
    heights = MaxNLocator(8).tick_values(y.min(), y.max())[1:-1]
    lines = axes[1].contour(first, second, values, heights, colors="white", linewidths=0.7)
    axes[1].clabel(lines, fontsize=7, inline_spacing=2)
    axes[1].set_title(f"{data.targets.title}: fit")
    figure.colorbar(drawn, ax=axes[:2], label=data.targets.title, pad=0.01, fraction=0.04)
    x_held, y_held, _, name = data.measured
    name = f"{name} rows"
    error = np.abs(predict(x_held) - y_held)
    order = np.argsort(error)[-MOST_POINTS:]  # largest errors on top
    high = max(float(error.max()), 1e-15 * float(np.abs(y).max()), 1e-200)
    norm = LogNorm(high / 10.0**DECADES, high)
    shown = axes[2].scatter(
        *x_held[order].T,
        c=np.maximum(error[order], high / 10.0**DECADES),
        s=_point_size(len(order)) + 2.0,
        linewidths=0,
        norm=norm,
        cmap="magma_r",
        rasterized=True,
    )
    axes[2].set_title(f"{data.targets.title}: |error|, {name}")
    axes[2].set_facecolor("0.96")
    figure.colorbar(
        shown, ax=axes[2], label=f"|error| in {data.targets.title}", extend="min", pad=0.01
    )
    for ax in axes:
        ax.set_xlabel(data.names[0])
        ax.margins(0.01)
    axes[0].set_ylabel(data.names[1])
    return figure


def _map(x: np.ndarray, predict: Predict) -> tuple[np.ndarray, np.ndarray, np.ma.MaskedArray]:
    """Return the fit on a grid, masked outside the convex hull of the rows."""
    first, second = (np.linspace(c.min(), c.max(), GRID) for c in x.T)
    places = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    low, width = x.min(axis=0), np.ptp(x, axis=0)
    try:
        outside = Delaunay((x - low) / width).find_simplex((places - low) / width) < 0
    except QhullError:  # all rows are on one line
        outside = np.zeros(len(places), dtype=bool)
    values = np.ma.masked_array(predict(places), outside).reshape(GRID, GRID)
    return first, second, values


def _draw_slices(data: Data, predict: Predict, order: Sequence[int]) -> Figure:
    figure = Figure(figsize=(10.0, 8.0), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    x_held, y_held, _, name = data.measured
    name = f"{name} rows"
    rows = _some(len(y_held))
    x, y = x_held[rows], y_held[rows]
    fit = predict(x)
    size = _point_size(len(rows))
    middle = np.median(data.x, axis=0)
    for ax, number in zip(axes, order[:2], strict=False):
        line = np.tile(middle, (401, 1))
        line[:, number] = np.linspace(x[:, number].min(), x[:, number].max(), 401)
        near = np.tile(middle, (len(x), 1))
        near[:, number] = x[:, number]
        points = predict(near) + y - fit
        style = {"s": size, "color": ORANGE, "alpha": 0.6, "linewidths": 0}
        ax.scatter(x[:, number], points, rasterized=True, **style)
        ax.plot(line[:, number], predict(line), color=BLUE, linewidth=1.8, zorder=3)
        ax.set_title(f"along {data.names[number]}, the others at their median", fontsize=10)
        ax.set_xlabel(data.names[number])
        ax.set_ylabel(data.targets.title)
        _tidy(ax)
    handles = [
        Line2D([], [], color=BLUE, label="fit"),
        Line2D([], [], color=ORANGE, marker="o", linestyle="none", markersize=4),
    ]
    axes[0].legend(handles, ["fit", "fit + each row's error"], frameon=False, fontsize=8)
    draw_pairs(axes[2], y, fit, size)
    axes[2].set_title(f"predicted against true, {name}", fontsize=10)
    axes[2].set_aspect("equal", adjustable="datalim")
    draw_residuals(axes[3], y, fit, size)
    axes[3].set_title(f"residuals, {name}", fontsize=10)
    for ax in axes[2:]:
        ax.set_xlabel(f"{data.targets.title}, {ax.get_xlabel()}")
    return figure


def influential(data: Data, predict: Predict) -> list[int]:
    """Return the inputs, sorted by the effect of their permutation on the predictions.

    Parameters
    ----------
    data : Data
        Rows of the table.
    predict : callable
        Prediction function, as `Trained.predict`.

    Examples
    --------
    >>> x = np.random.default_rng(0).random((50, 3))
    >>> data = Data(("a", "b", "c"), Targets(("d",)), x, x[:, 1], x[:0], x[:0, 0])
    >>> influential(data, lambda x: x[:, 1] + 0.1 * x[:, 2])
    [1, 2, 0]
    """
    rng = np.random.default_rng(SEED)
    inputs = data.x.shape[1]
    # The work grows with the product of rows and inputs.
    rows = _some(len(data.y))[: max(min(2000, 40_000 // inputs), 20)]
    x = data.x[rows]
    fit, change = predict(x), []
    for number in range(inputs):
        shuffled = x.copy()
        shuffled[:, number] = rng.permutation(x[:, number])
        change.append(float(np.mean((predict(shuffled) - fit) ** 2)))
    return [int(k) for k in np.argsort(change)[::-1]]


def plot_training(trained: Sequence[Trained], loss: str = "MSE") -> Figure:
    """Draw the training error against time, and the final held-out errors.

    The first model is mgnet's; bands mark its levels, and dots the refinements. Hollow markers are
    the held-out errors at the end; the legend is sorted by them.

    Parameters
    ----------
    trained : sequence of Trained
        Models, beginning with mgnet's.
    loss : str
        Name of `Data.loss`.

    Returns
    -------
    matplotlib Figure
        The figure.

    Examples
    --------
    >>> history = ((0.1, 1.0, 1e-2, 1), (0.2, 2.0, 1e-3, 0))
    >>> ours = Trained("KAN", lambda x: x[:, 0], 10, 0.2, 2.0, 1e-3, 2e-3, history)
    >>> plot_training([ours]).axes[0].get_xscale()
    'log'
    """
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    ax = figure.subplots()
    ax.set_xscale("log")
    ax.set_yscale("log")
    handles: list[tuple[float, Line2D]] = []
    for number, one in enumerate(trained):
        color, marker, line = LINES[number % len(LINES)]
        seconds = [entry[0] for entry in one.history]
        errors = [entry[2] for entry in one.history]
        width = 2.4 if number == 0 else 1.3
        ax.plot(seconds, errors, line, color=color, linewidth=width, zorder=3 - (number > 0))
        if len(seconds) == 1:
            ax.plot(seconds, errors, marker, color=color, markersize=5, linestyle="none")
        label = f"{one.name}: {one.held_loss:.1e}"
        style = {"marker": marker, "markersize": 9, "markerfacecolor": "white"}
        end = Line2D([one.seconds], [one.held_loss], color=color, linestyle=line, **style)
        end.set(linewidth=width, markeredgewidth=1.8, label=label, zorder=5)
        if np.isfinite(one.held_loss) and one.held_loss > 0.0:
            only = Line2D([one.seconds], [one.held_loss], color=color, linestyle="none", **style)
            only.set(markeredgewidth=1.8, zorder=5)
            ax.add_line(only)
        handles.append((one.held_loss, end))
    handles.sort(key=lambda pair: (np.isnan(pair[0]), pair[0]))
    ax.relim()
    ax.autoscale()
    if trained:
        _mark_levels(ax, trained[0])
    ax.set_xlabel("seconds of training")
    ax.set_ylabel(f"standardized {loss}" if loss == "MSE" else loss)
    _tidy(ax)
    figure.legend(
        handles=[handle for _, handle in handles],
        title="lines: training error\nmarkers: held-out error at the end",
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        alignment="left",
        labelspacing=0.9,
    )
    return figure


def _mark_levels(ax: Axes, ours: Trained) -> None:
    """Shade every other level of a run and label the levels at the top; dots mark the changes."""
    history = ours.history
    starts = [k for k in range(len(history)) if k == 0 or history[k][3] != history[k - 1][3]]
    if len(starts) < 2:
        return
    edges = [history[k][0] for k in starts] + [history[-1][0]]
    low, high = ax.get_xlim()
    edges[0] = min(edges[0], edges[1])
    for number, (left, right) in enumerate(zip(edges, edges[1:], strict=False)):
        if number % 2 == 0:
            ax.axvspan(left, right, color=BLUE, alpha=0.07, linewidth=0, zorder=0)
        wide = np.log(right / left) / np.log(high / low) if left > 0.0 else 0.0
        last = number == len(starts) - 1
        if wide > WIDE or last:
            level = history[starts[number]][3]
            place = np.sqrt(left * right) if wide > WIDE else left
            ax.annotate(
                f"level {level}",
                (place, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center" if wide > WIDE else "left",
                fontsize=8,
                color=BLUE,
            )
    places = [(history[k][0], history[k][2]) for k in starts[1:]]
    x, y = zip(*places, strict=True)
    ax.plot(x, y, "o", color=BLUE, markersize=6, markeredgecolor="white", zorder=4)
    ax.set_xlim(low, high)
