"""Curves, dots and bars of rows; a method has the same color in all figures."""

import io
from collections.abc import Callable, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cells import Row, values, where
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, OURS_TOO, GREY, LIGHT = "#0072b2", "#56b4e9", "#6e6e6e", "#b0b0b0"
ORANGE, RED, GREEN, PURPLE, YELLOW = "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#b8a000"
FAMILIES = {  # how the name of a method begins -> color; the longest match counts
    "mgnet": OURS,
    "fused": OURS,
    "KAN": OURS,
    "V": OURS,
    "F": OURS_TOO,
    "W": GREEN,
    "LS + Adam": OURS,
    "LSGD": OURS_TOO,
    "LS + L-BFGS": GREEN,
    "LS + LM": PURPLE,
    "Adam + N": OURS_TOO,
    "NGD": OURS,
    "cascade": OURS,
    "learnable steps": OURS_TOO,
    "AdaptiveCycles": OURS,
    "CyclesToTolerance": GREEN,
    "FixedCycles(1)": ORANGE,
    "FixedCycles(2)": YELLOW,
    "FixedCycles": OURS_TOO,
    "torch": OURS_TOO,
    "mgnet, auto": GREEN,
    "mgnet, earlier": OURS_TOO,
    "mgnet, cascade alone": "#004c78",
    "mgnet, one level": OURS_TOO,
    "KAN, one level": OURS_TOO,
    "KAN, fine at once": OURS_TOO,
    "V, edges": GREEN,
    "V, points": OURS_TOO,
    "F subspace": GREEN,
    "V injected": OURS_TOO,
    "F injected": YELLOW,
    "Adam": GREY,
    "serial": GREY,
    "eager loop": GREY,
    "fine": GREY,
    "none": GREY,
    "Linear+SiLU": GREY,
    "torch.compile": LIGHT,
    "loop by hand": YELLOW,
    "loop by hand, TorchScript": RED,
    "tanh MLP": ORANGE,
    "tanh MLP, Broyden": RED,
    "MLP": ORANGE,
    "PyAMG": ORANGE,
    "PETSc": RED,
    "PETSc, our levels": GREEN,
    "pykan": RED,
    "pyMGRIT": ORANGE,
    "HistGradientBoosting": PURPLE,
    "SV": GREEN,
    "mgnet fit": OURS_TOO,
    "spline GAM": ORANGE,
    "linear": GREY,
    "mgnet, 1 rank": OURS_TOO,
    "mgnet, 1 rank, c + 0": GREEN,
    "mgnet, 2 ranks, c + 0": "#004c78",
    "serial, 2 threads": LIGHT,
    "TorchBraid": PURPLE,
    "efficient-kan": ORANGE,
    "FastKAN": PURPLE,
    "Cox-de Boor": LIGHT,
    "Nystroem": PURPLE,
    "Jacobi": YELLOW,
    "KnotSolver": OURS,
    "BPX": GREEN,
    "bands": OURS_TOO,
    "bands + coarse": "#004c78",
    "plain": GREY,
    "sparse direct": PURPLE,
    "Jacobi 4/5": ORANGE,
    "dense Cholesky": RED,
    "dual Cholesky": ORANGE,
    "tensor-product": GREEN,
    "gradient boosting": PURPLE,
    "Nielsen, corrections": OURS,
    "Nielsen": GREY,
    "ProbedRadius": ORANGE,
    "ProbedRadius(0.05)": RED,
    "TrustRegion": GREEN,
    "Gauss-Seidel": RED,
    "Chebyshev": GREEN,
}
MARKERS = "osD^vP<>"
SERIES = (OURS, ORANGE, GREEN, RED, PURPLE, YELLOW)  # where nothing is a method
SPREAD = ("median", "least", "largest")
STYLE = {
    "svg.hashsalt": "mgnet",
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def colour(method: str) -> str:
    fitting = [start for start in FAMILIES if method.startswith(start)]
    return FAMILIES[max(fitting, key=len)] if fitting else "black"


def svg(draw: Callable[[Sequence[Row]], Figure], rows: Sequence[Row]) -> str:
    """The figure as SVG, the same bytes every time."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        draw(rows).savefig(buffer, format="svg", metadata={"Date": None})
    plt.close("all")
    return buffer.getvalue()


def panels(count: int, width: float = 7.5, height: float = 3.2, columns: int = 2) -> tuple:
    """A figure and its axes, one below the other where there are more than `columns`."""
    across = min(count, columns)
    down = -(-count // across)
    figure, axes = plt.subplots(
        down, across, figsize=(width, height * down), layout="constrained", squeeze=False
    )
    for spare in axes.flat[count:]:
        spare.set_visible(False)
    return figure, list(axes.flat[:count])


def curves(ax: Axes, rows: Sequence[Row], x: str, y: str, by: str = "method") -> None:
    """A line per method; with bars from least to largest where the rows have them."""
    for number, name in enumerate(values(rows, by)):
        own = [row for row in where(rows, **{by: name}) if y in row]
        low, high = y.replace("_median", "_least"), y.replace("_median", "_largest")
        bars = None
        if low != y and all(low in row for row in own):
            bars = [
                [row[y] - row[low] for row in own],
                [row[high] - row[y] for row in own],
            ]
        ax.errorbar(
            [row[x] for row in own],
            [row[y] for row in own],
            yerr=bars,
            color=colour(str(name)),
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            linewidth=1.4,
            elinewidth=0.8,
            label=name,
        )


def dots(ax: Axes, rows: Sequence[Row], across: str, y: str, by: str = "method") -> None:
    """Medians with their spread; a group of dots for each value of `across`, on a vertical axis."""
    groups, names = values(rows, across), values(rows, by)
    for number, name in enumerate(names):
        own = where(rows, **{by: name})
        place = [groups.index(row[across]) + 0.09 * (number - (len(names) - 1) / 2) for row in own]
        middle = [row[f"{y}_median"] for row in own]
        spread = [
            [row[f"{y}_median"] - row[f"{y}_least"] for row in own],
            [row[f"{y}_largest"] - row[f"{y}_median"] for row in own],
        ]
        ax.errorbar(
            middle,
            place,
            xerr=spread,
            linestyle="none",
            color=colour(str(name)),
            marker=MARKERS[number % len(MARKERS)],
            markersize=4.5,
            elinewidth=1.0,
            label=name,
        )
    ax.set_yticks(range(len(groups)), [str(group) for group in groups])
    ax.invert_yaxis()
    ax.grid(False, axis="y")


def one_value(value: float, case: str, method: str) -> Row:
    """A row for `dots` where there is no spread."""
    return {"case": case, "method": method} | {f"value_{kind}": value for kind in SPREAD}


def one_each(ax: Axes, rows: Sequence[Row], y: str) -> None:
    """A median with its spread for each method, named at the axis."""
    for number, row in enumerate(rows):
        middle, low, high = (row[f"{y}_{kind}"] for kind in ("median", "least", "largest"))
        spread = [[middle - low], [high - middle]]
        ax.errorbar(middle, number, xerr=spread, color=colour(row["method"]), marker="o")
    ax.set_yticks(range(len(rows)), [row["method"] for row in rows])
    ax.invert_yaxis()
    ax.grid(False, axis="y")


def bars(ax: Axes, rows: Sequence[Row], across: str, y: str, by: str = "method") -> None:
    """Horizontal bars in groups."""
    groups, names = values(rows, across), values(rows, by)
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        own = where(rows, **{by: name})
        place = [
            groups.index(row[across]) + height * (number - (len(names) - 1) / 2) for row in own
        ]
        ax.barh(place, [row[y] for row in own], height, color=colour(str(name)), label=name)
    ax.set_yticks(range(len(groups)), [str(group) for group in groups])
    ax.invert_yaxis()
    ax.grid(False, axis="y")


def legend(figure: Figure, ax: Axes, columns: int = 4) -> None:
    """One for all panels, below them."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
