"""Tables, lines of the summary and figure for the benchmark on public tables."""

import math

from cells import Rows, crossed, find, listed, values, where
from depth_tables import judged_line
from drawing import MARKERS, colour, legend, panels
from matplotlib.figure import Figure
from tables import Line


def score_tables(rows: Rows) -> list[str]:
    scores, told = where(rows, part="scores"), []
    index = {"": "{table}", "package": "{package}", "rows": "{rows}"}
    index |= {"columns (one-hot)": "{columns} ({inputs})", "measure": "{measure}"}
    for title, cell in (
        (
            "Median on the test rows (multiples of the best of the six)",
            "{median:.4g} ({ratio:.2f})",
        ),
        ("Smallest and largest value over the splits", "{least:.4g} to {largest:.4g}"),
    ):
        told.append(f"{title}:\n\n{crossed(scores, index, 'method', cell)}")
    index = {"": "{table}", "rows": "{rows}"}
    cell = "{seconds:.3g} ({to_boosting:.1f})"
    title = "Processor seconds of a fit (multiples of those of boosting)"
    told.append(f"{title}:\n\n{crossed(scores, index, 'method', cell)}")
    ranks = []
    for name in values(scores, "method"):
        own = where(scores, method=name)
        near = sum(row["ratio"] <= 1.03 for row in own)
        mean = sum(row["rank"] for row in own) / len(own)
        ranks.append({"method": name, "mean": mean, "near": near, "tables": len(own)})
    columns = {"method": "{method}", "mean rank": "{mean:.2f}"}
    columns |= {"within 3 % of the best": "{near} of {tables}"}
    told.insert(0, listed(ranks, columns))
    columns = {"method": "{method}", "error held out": "{error:.2g}"}
    columns |= {"processor seconds": "{seconds:.3g}", "seconds": "{wall:.3g}"}
    for part, title in (
        ("large", "A million rows of 5 inputs, sin(3 x0 x1) + x2^2 x3 + exp(x4)"),
        ("wide", "60 spectra of 500 wavelengths"),
    ):
        if own := where(rows, part=part):
            told.append(f"{title}:\n\n{listed(own, columns)}")
    return told


def score_lines(rows: Rows, targets: Rows) -> list[Line]:
    """The targets, with the figure of another method if there is one."""
    lines = [judged_line(target) for target in targets]
    for number, line in enumerate(lines):
        if line.what.startswith("a million rows: error"):
            kan, other = where(rows, part="large")
            told = f"{kan['error']:.2g}", f"{other['error']:.2g} ({other['method']})"
            lines[number] = Line(
                "a million rows: error", *told, other["error"] / kan["error"], *line[4:]
            )
    return lines


def score_figure(rows: Rows) -> Figure:
    """Scores over the best of the table, a line of dots for each table."""
    scores = where(rows, part="scores")
    figure, (ax,) = panels(1, height=5.5)
    tables, methods = values(scores, "table"), values(scores, "method")
    for number, name in enumerate(methods):
        own = [find(scores, table=table, method=name)["ratio"] for table in tables]
        shown = [(ratio, place) for place, ratio in enumerate(own) if math.isfinite(ratio)]
        ax.plot(
            [ratio for ratio, _ in shown],
            [place + 0.08 * (number - (len(methods) - 1) / 2) for _, place in shown],
            linestyle="none",
            color=colour(name),
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            label=name,
        )
    ax.axvline(1.03, color="0.6", linewidth=0.8, linestyle="--")
    ax.set(xscale="log", xlabel="RMSE or log loss over the best of the table; dashed: 3 % above")
    right = 1.1 * max(row["ratio"] for row in scores if math.isfinite(row["ratio"]))
    ax.set_xlim(0.97, right)
    ticks = [tick for tick in (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0) if tick < right]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(tables)), tables)
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    legend(figure, ax, 3)
    return figure
