"""The tables, the figure and the lines of the summary of linear solvers for many knots."""

from collections.abc import Sequence

from cells import Row, Rows, crossed, values, where
from drawing import curves, legend, panels
from matplotlib.figure import Figure
from tables import Line

TITLES = {
    "bending": "u'' and two ends, one edge of degree 5",
    "additive": "[4, 1], cubic",
    "pinn": "[2, 6, 1], Poisson's equation",
}


def solver_tables(rows: Rows) -> list[str]:
    told = [row | {"more": "" if row["done"] else "> "} for row in rows]
    index = {"": "{case}", "intervals": "{intervals}", "coefficients": "{parameters}"}
    cell = "{more}{iterations_median:g} / {more}{seconds_median:.3g}"
    head = "Iterations / seconds with set-up, medians"
    return [
        f"{head}. {title}:\n\n{crossed(where(told, problem=name), index, 'method', cell)}"
        for name, title in TITLES.items()
        if where(told, problem=name)
    ]


def solver_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for target in targets:
        told = target["measured"], "-", None, target["target"], target["met"]
        lines.append(Line(target["name"], *told))
    return lines


def solver_figure(rows: Sequence[Row]) -> Figure:
    shown = [("bending", "u'' and two ends"), ("additive", "roughness 1e-05")]
    shown = [pair for pair in shown if where(rows, problem=pair[0], case=pair[1])]
    figure, axes = panels(2 * len(shown), columns=2 * len(shown), width=11.0, height=3.4)
    for number, (problem, case) in enumerate(shown):
        own = [row for row in where(rows, problem=problem, case=case) if row["done"]]
        told = [row for row in own if row["iterations_median"]]
        for ax, drawn, key, label in (
            (axes[2 * number], told, "iterations_median", "CG iterations, median"),
            (axes[2 * number + 1], own, "seconds_median", "seconds with set-up"),
        ):
            curves(ax, drawn, "intervals", key)
            ax.set(xscale="log", yscale="log", xlabel="knot intervals", ylabel=label)
            ax.set_title(f"{problem}, {case}", fontsize=8)
            ax.set_xticks(values(own, "intervals"), [str(n) for n in values(own, "intervals")])
            ax.minorticks_off()
    legend(figure, axes[-1], 5)
    return figure
