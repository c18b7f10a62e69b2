"""Pictures of cycles, of convergence and of training, with matplotlib.

The colors are those of Okabe and Ito, which color-blind readers can distinguish; shapes and markers
differ as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mgnet.schedule import Schedule
    from mgnet.solver import Solution
    from mgnet.training import Record

__all__ = ["plot_convergence", "plot_records", "plot_schedule"]

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
LINES = (
    (BLUE, "o", "-"),
    (ORANGE, "s", "-"),
    (GREEN, "^", "-"),
    ("#CC79A7", "D", "-"),
    ("#000000", "v", "--"),
    ("#E69F00", "P", "--"),
    ("#56B4E9", "X", "--"),
)
SMALLEST_TEXT = 5.5  # points
DOUBLE = [Normal(), Stroke(linewidth=1.8, foreground="white")]  # a white line on a black one


def plot_schedule(schedule: Schedule, ax: Axes | None = None) -> Axes:
    """Draw a cycle from left to right, the finest level on top.

    A disc is a stop with sweeps, and a square is a coarse solve. The number inside counts the
    sweeps (post- and pre-sweeps of one stop together) and is omitted if the stops are too close. A
    small ring is a stop without work. Single lines stand for restrictions and corrections, double
    lines for the interpolation of the solution.

    Parameters
    ----------
    schedule : Schedule
        Cycle to draw.
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure, as wide as the cycle is long.

    Returns
    -------
    Axes
        The axes; `ax.figure` is the figure.

    Examples
    --------
    >>> from mgnet import nested
    >>> ax = plot_schedule(nested(4))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['level 0', 'level 1', 'level 2', 'level 3']
    """
    nodes, moves = schedule.path()
    levels = schedule.levels
    if ax is None:
        size = (min(max(0.3 * len(nodes) + 1.2, 4.2), 17.0), 0.42 * levels + 0.9)
        _, ax = plt.subplots(figsize=size, layout="constrained")
    margin = 0.8
    ax.set_xlim(-margin, len(nodes) - 1 + margin)
    ax.set_ylim(levels - 1 + 0.55, -0.55)
    disc = _disc_size(ax, len(nodes), levels)
    _draw_moves(ax, nodes, moves, disc)
    kinds = _draw_stops(ax, nodes, disc)
    ax.set_yticks(range(levels), [f"level {level}" for level in range(levels)])
    ax.set_xticks([])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    handles = _schedule_legend(kinds, set(moves))
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        columnspacing=1.2,
        handletextpad=0.4,
        handlelength=1.5,
    )
    return ax


def _disc_size(ax: Axes, stops: int, levels: int) -> float:
    """Return the diameter of a disc in points; adjacent discs must not touch."""
    box = ax.get_window_extent()
    points = 72.0 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    return max(
        min(15.0, 0.95 * box.width * points / stops, 0.6 * box.height * points / levels), 1.5
    )


def _draw_moves(ax: Axes, nodes: list, moves: list[str], disc: float) -> None:
    """Draw one line per run of moves of one kind."""
    first = 0
    for k in range(1, len(moves) + 1):
        if k == len(moves) or (moves[k] == "interpolate") != (moves[first] == "interpolate"):
            x = list(range(first, k + 1))
            y = [nodes[stop][0] for stop in x]
            if moves[first] == "interpolate":
                width = max(disc / 3.0, 1.2)
                ax.plot(x, y, color=GREEN, linewidth=width, solid_capstyle="butt", zorder=2)
                ax.plot(
                    x, y, color="white", linewidth=0.45 * width, solid_capstyle="butt", zorder=2.1
                )
            else:
                ax.plot(x, y, color=GREY, linewidth=max(min(1.2, disc / 6.0), 0.4), zorder=2)
            first = k


def _draw_stops(ax: Axes, nodes: list, disc: float) -> set[str]:
    """Draw one marker series per kind of stop, and the numbers; return the kinds that occur."""
    styles = {
        "sweeps": {
            "marker": "o",
            "markersize": disc,
            "markerfacecolor": BLUE,
            "markeredgecolor": "white",
        },
        "solve": {
            "marker": "s",
            "markersize": disc,
            "markerfacecolor": ORANGE,
            "markeredgecolor": "white",
        },
        "none": {
            "marker": "o",
            "markersize": 0.4 * disc,
            "markerfacecolor": "white",
            "markeredgecolor": GREY,
        },
    }
    stops: dict[str, list[tuple[int, int]]] = {kind: [] for kind in styles}
    for k, (level, counts) in enumerate(nodes):
        solved = any(action == "solve" for action, _ in counts)
        stops["solve" if solved else "sweeps" if counts else "none"].append((k, level))
        total = str(sum(count for _, count in counts))
        size = 0.6 * disc if len(total) == 1 else 0.54 * disc if len(total) == 2 else 0.36 * disc
        if counts and size >= SMALLEST_TEXT * (1.0 if len(total) == 1 else 0.8):
            ax.text(
                k,
                level,
                total,
                color="white",
                fontsize=size,
                ha="center",
                va="center_baseline",
                weight="bold",
                zorder=4,
            )
    for kind, places in stops.items():
        if places:
            x, y = zip(*places, strict=True)
            edge = 0.8 if disc > 6.0 else 0.2
            ax.plot(
                x, y, linestyle="none", zorder=3, label=kind, markeredgewidth=edge, **styles[kind]
            )  # type: ignore[arg-type]
    return {kind for kind, places in stops.items() if places}


def _schedule_legend(kinds: set[str], moves: set[str]) -> list:
    """Explain the symbols that the picture contains."""
    entries: list = []
    if "sweeps" in kinds:
        entries.append(_marker("o", BLUE, "sweeps"))
    if "solve" in kinds:
        entries.append(_marker("s", ORANGE, "coarse solve"))
    if moves & {"down", "up"}:
        entries.append(Line2D([], [], color=GREY, linewidth=1.2, label="restrict, correct"))
    if "interpolate" in moves:
        entries.append(
            Line2D([], [], color=GREEN, linewidth=4.0, label="interpolate", path_effects=DOUBLE)
        )
    return entries


def _marker(shape: str, color: str, label: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=shape, color=color, markersize=7, label=label)


def plot_convergence(
    solutions: Mapping[str, Solution], ax: Axes | None = None, over: str = "work"
) -> Axes:
    """Draw the residual norm, relative to the first one, after every cycle.

    Parameters
    ----------
    solutions : mapping of str to Solution
        Solutions, keyed by their names in the legend.
    ax : matplotlib Axes, optional
        Axes to draw on; a new figure by default.
    over : "work" or "cycles"
        Quantity on the horizontal axis. Work is in work units (evaluations of the finest
        operator), and includes one evaluation for each residual norm.

    Returns
    -------
    Axes
        The axes; `ax.figure` is the figure.

    Raises
    ------
    ValueError
        If `over` is neither of the two quantities.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import Solver, gallery
    >>> hierarchy, f = gallery.poisson(63), np.ones(63)
    >>> solutions = {name: Solver(hierarchy, name).solve(f) for name in ("V(1,1)", "F(1,1)")}
    >>> ax = plot_convergence(solutions)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['V(1,1)', 'F(1,1)']
    """
    if over not in ("work", "cycles"):
        raise ValueError(f"plot_convergence got over={over!r}; it must be 'work' or 'cycles'")
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for number, (name, solution) in enumerate(solutions.items()):
        color, marker, line = LINES[number % len(LINES)]
        norms = solution.residual_norms
        x = list(range(len(norms))) if over == "cycles" else [e.work for e in solution.history]
        y = [norm / norms[0] if norms[0] else norm for norm in norms]
        ax.semilogy(x, y, line, color=color, marker=marker, markersize=5, linewidth=1.5, label=name)
    ax.set_xlabel("work units" if over == "work" else "cycles")
    ax.set_ylabel("residual norm / initial residual norm")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    _tidy(ax)
    if solutions:
        ax.legend(frameon=False)
    return ax


def _tidy(ax: Axes) -> None:
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def plot_records(records: Mapping[str, Record]) -> Figure:
    """Draw the loss against gradient evaluations, work units and seconds, side by side.

    Solid lines are training losses, and dashed lines are held-out losses. Markers show refinements
    of the network.

    Parameters
    ----------
    records : mapping of str to Record
        Records, keyed by their names in the legend.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from mgnet.training import Record, Row
    >>> record = Record()
    >>> record.rows += [Row("solve", 0, 0.5 / k, 0.6 / k, k, k, 0.1 * k) for k in (1, 2, 3)]
    >>> [ax.get_xlabel() for ax in plot_records({"KAN": record}).axes]
    ['gradient evaluations', 'work units', 'seconds']
    """
    figure, axes = plt.subplots(1, 3, figsize=(11.0, 3.6), sharey=True, layout="constrained")
    tables = {name: record.table() for name, record in records.items()}
    columns = {"evaluations": "gradient evaluations", "work": "work units", "seconds": "seconds"}
    for ax, (column, title) in zip(axes, columns.items(), strict=True):
        for number, (name, table) in enumerate(tables.items()):
            color, marker, _ = LINES[number % len(LINES)]
            refined = table["action"] == "interpolate"
            for kind, line in (("loss", "-"), ("held_out", "--")):
                there = ~np.isnan(table[kind])
                if not there.any():
                    continue
                x, y = table[column][there], table[kind][there]
                label = name if kind == "loss" else f"{name}, held out"
                ax.semilogy(x, y, line, color=color, linewidth=1.5, label=label)
                x, y = table[column][there & refined], table[kind][there & refined]
                ax.plot(x, y, marker, color=color, markerfacecolor="white", linestyle="none")
        ax.set_xlabel(title)
        _tidy(ax)
    axes[0].set_ylabel("loss")
    handles, labels = axes[0].get_legend_handles_labels()
    if any((table["action"] == "interpolate").any() for table in tables.values()):
        handles.append(Line2D([], [], color=GREY, marker="o", mfc="white", linestyle="none"))
        labels.append("refinement")
    if handles:
        figure.legend(handles, labels, frameon=False, loc="outside right upper")
    return figure
