"""Tables and figure of time grids."""

from cells import Rows, find, listed, where
from drawing import legend, panels
from matplotlib.figure import Figure
from tables import Line


def said(error: float | None) -> str:
    return "not finite" if error is None else f"{error:.1e}"


def grid_tables(rows: Rows) -> list[str]:
    own = [row | {"told": said(row["error"])} for row in where(rows, table="oscillator")]
    columns = {"van der Pol": "{method}", "tolerance": "{rtol:g}", "grid": "{grid}"}
    columns |= {"steps": "{steps}", "largest error of x": "{told}", "grids": "{grids}"}
    columns |= {"steps taken in all": "{stepped}", "in a row": "{in_a_row}"}
    published = {"XBraid": "{example}", "figure": "{figure}"}
    published |= {"published": "{published}", "mgnet": "{ours}"}
    better = {"Richardson, ex-06, 256 steps": "{method}", "error, plain": "{plain:.1e}"}
    better |= {"order": "{plain_order:.2f}", "error, extrapolated": "{extrapolated:.1e}"}
    better |= {"its order": "{extrapolated_order:.2f}"}
    space = {"coarsening in space": "{method}", "cycles": "{iterations}"}
    space |= {"residual norms": "{norms}"}
    return [
        listed(own, columns),
        listed(where(rows, table="XBraid"), published),
        listed(where(rows, table="Richardson"), better),
        listed(where(rows, table="space"), space),
    ]


def grid_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for method in ("ros2", "sdirk3"):
        first = where(rows, table="oscillator", method=method)[0]
        beside = [r for r in where(rows, table="oscillator", method=method) if "grids" not in r]
        if not beside:
            continue
        most = max(beside, key=lambda row: row["steps"])
        most = find(rows, table="oscillator", method=method, grid=most["grid"])
        lines.append(
            Line(
                f"van der Pol, {method}, error {said(first['error'])}",
                f"{first['steps']} steps",
                f"{most['steps']} uniform steps: error {said(most['error'])}",
                None,
            )
        )
    return lines


def time_grids(rows: Rows) -> Figure:
    figure, (ax,) = panels(1)
    for method, marker in (("ros2", "o"), ("sdirk3", "s")):
        for kind, colour in (("adaptive", "#0072B2"), ("uniform", "#E69F00")):
            own = [
                row
                for row in where(rows, table="oscillator", method=method)
                if row["grid"].startswith(kind) and row["error"] is not None
            ]
            if own:
                at, errors = [r["steps"] for r in own], [r["error"] for r in own]
                line = "-" if kind == "adaptive" else ":"
                ax.plot(at, errors, line, marker=marker, color=colour, label=f"{method}, {kind}")
    ax.set(xscale="log", yscale="log", xlabel="steps of the grid", ylabel="largest error of x")
    legend(figure, ax)
    return figure
