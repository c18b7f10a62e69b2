"""The tables, the figure and the lines of the summary of what runs on a GPU."""

from cells import Row, Rows, crossed, listed, values, where
from drawing import curves, legend, panels
from matplotlib.figure import Figure
from tables import Line

SPLINE = "spline layer"
ABSENT = (
    "No GPU was at hand: there are no figures. `python benchmarks/gpu.py --save` checks and "
    "measures everything on a GPU in at most eight minutes. Without one, `--dry-run` runs the "
    "same steps on the CPU in tiny sizes, as the tests do."
)


def _floors(rows: Rows) -> list[Row]:
    """The rows of the spline layer, and its floors as those of a method."""
    told = [row | {"method": "floor", "ms": row["floor_ms"]} for row in rows if "floor_ms" in row]
    return [row for row in rows if "ms" in row] + told


def gpu_tables(rows: Rows) -> list[str]:
    spline, told = _floors(where(rows, part=SPLINE)), []
    for case in values(spline, "case"):
        table = crossed(where(spline, case=case), {"grid": "{grid}"}, "method", "{ms:.3g}")
        told.append(f"{SPLINE.capitalize()}, {case}, milliseconds:\n\n{table}")
    columns = {
        "": "{case}",
        "method": "{method}",
        "ms": "{ms:.3g}",
        "floor": "{floor_ms:.2g}",
        "error": "{error:.1e}",
    }
    timed = [row for row in rows if row["part"] in ("layers", "solvers") and "ms" in row]
    if timed:
        told.append(f"Milliseconds beside the floor:\n\n{listed(timed, columns)}")
    over = where(rows, part="Burgers")
    if over:
        columns = {"": "{case}", "seconds": "{seconds:.3g}", "error": "{error:.1e}"}
        told.append(f"Errors over seconds:\n\n{listed(over, columns)}")
    checks = where(rows, part="checks")
    if checks:
        columns = {"checked against float64 on the CPU": "{case}", "error": "{error:.1e}"}
        told.append(listed(checks, columns))
    failed = [row for row in rows if "failure" in row]
    if failed:
        columns = {"failed": "{case}", "": "{method}", "with": "{failure}"}
        told.append(listed(failed, columns))
    return told


def gpu_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for target in targets:
        told = target["measured"], "-", None, target["target"], target["met"]
        lines.append(Line(target["name"], *told))
    return lines


def gpu_figure(rows: Rows) -> Figure:
    spline = _floors(where(rows, part=SPLINE))
    cases = values(spline, "case") or [""]
    figure, axes = panels(len(cases), columns=len(cases), width=10.0)
    for ax, case in zip(axes, cases, strict=False):
        curves(ax, where(spline, case=case), "grid", "ms")
        ax.set(xscale="log", yscale="log", xlabel="knot intervals", ylabel="ms")
        ax.set_title(case, fontsize=8)
    legend(figure, axes[0], 5)
    return figure
