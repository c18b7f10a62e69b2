"""Tables and figures of the problems of linear_zoo.py, and of the memory of a hierarchy."""

from cells import Row, Rows, listed, spread, values, where
from drawing import bars, legend, panels
from matplotlib.figure import Figure
from tables import Line


def fastest_rival(rows: Rows, problem: str) -> Row:
    rivals = [
        row for row in where(rows, problem=problem, converged=True) if row["library"] != "mgnet"
    ]
    return min(rivals, key=lambda row: row["total_median"])


def zoo_tables(rows: Rows) -> list[str]:
    columns = {"problem": "{problem}", "library": "{library}", "by": "{method}"}
    columns |= {"set-up, s": "{setup_median:.3f}", "iterations": "{iterations}"}
    columns |= {"solve, s": "{solve_median:.3f}", "all, s": spread("total", ".3f")}
    return [listed(rows, columns)]


def zoo_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for problem in values(rows, "problem"):
        ours = where(rows, problem=problem, library="mgnet", converged=True)
        if not ours:
            continue
        rival, seconds = fastest_rival(rows, problem), ours[0]["total_median"]
        told = f"{rival['total_median']:.2f} s ({rival['library']}, {rival['method']})"
        ratio = rival["total_median"] / seconds
        lines.append(Line(f"{problem}, to 1e-8", f"{seconds:.2f} s", told, ratio))
    return lines


def linear_zoo(rows: Rows) -> Figure:
    figure, (ax,) = panels(1, height=5.2)
    told = [
        {"problem": row["problem"], "method": row["library"], "seconds": row["total_median"]}
        for row in rows
        if row["converged"]
    ]
    bars(ax, told, "problem", "seconds")
    ax.set(xscale="log", xlabel="seconds from the matrix to a residual of 1e-8")
    legend(figure, ax, 3)
    return figure


def memory_tables(rows: Rows) -> list[str]:
    columns = {"": "{method}", "MiB at the peak": "{mib:.0f}", "seconds": "{seconds:.2f}"}
    return [listed(rows, columns | {"residual": "{residual:.1e}"})]


def memory_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for target in targets:
        ratio, name = 1.0 / float(target["measured"]), target["name"]
        lines.append(Line(name, target["measured"], "1", ratio, target["target"], target["met"]))
    return lines


def hierarchy_memory(rows: Rows) -> Figure:
    figure, (ax,) = panels(1)
    told = [
        dict(zip(("method", "of"), row["method"].split(", ", 1), strict=True)) | {"mib": row["mib"]}
        for row in rows
    ]
    bars(ax, told, "of", "mib")
    ax.set(xlabel="MiB at the peak, the matrix included")
    legend(figure, ax, 2)
    return figure
