"""How far networks get, and step rules, on the page: tables, lines of the summary, figures."""

from cells import Row, Rows, crossed, listed, lowest, spread, values, where
from drawing import MARKERS, colour, dots, legend, panels
from matplotlib.figure import Figure
from tables import Line, goal

CYCLES = (25, 50, 100, 200)


def accuracy_tables(rows: Rows) -> list[str]:
    columns = {"": "{problem}", "change": "{method}", "hidden layers": "{hidden}"}
    columns |= {"weights": "{weights}", "points": "{points}", "seeds": "{seeds}"}
    columns |= {"seconds": "{asked:g}", "at a quarter": "{error_at_1_4_median:.1e}"}
    columns |= {"at half": "{error_at_1_2_median:.1e}", "error": spread("error", ".1e")}
    return [listed(rows, columns | {"cycles": "{steps:.0f}", "failed": "{failed}"})]


def accuracy_lines(rows: Rows, targets: Rows) -> list[Line]:
    """Beside the first row of each problem."""
    lines = []
    for problem in values(rows, "problem"):
        own = where(rows, problem=problem)
        most = max(row["seeds"] for row in own)
        best, first = lowest(where(own, seeds=most), "error_median"), own[0]
        ratio = None if best is first else first["error_median"] / best["error_median"]
        rival = "-" if best is first else f"{first['error_median']:.1e} ({first['method']})"
        judged = goal(targets, problem)
        lines.append(Line(problem, f"{best['error_median']:.1e}", rival, ratio, *judged))
    return lines


def accuracy(rows: Rows) -> Figure:
    figure, (ax,) = panels(1, height=0.8 + 0.35 * len(rows))
    told = [row | {"case": f"{row['problem']}: {row['method']}", "by": "mgnet"} for row in rows]
    dots(ax, told, "case", "error", by="by")
    for number, row in enumerate(told):
        ax.plot([row["goal"]] * 2, [number - 0.3, number + 0.3], color="black")
    ax.set(xscale="log", xlabel="relative L2 error; black: target")
    return figure


def rule_tables(rows: Rows) -> list[str]:
    long = [
        {"problem": row["problem"], "method": row["method"], "at": told}
        | {end: row[f"{key}_{end}"] for end in ("median", "least", "largest")}
        for row in rows
        for key, told in columns_of(row).items()
    ]
    index = {"": "{problem}", "after": "{at}"}
    return [crossed(long, index, "method", "{median:.1e}")]


def columns_of(row: Row) -> dict[str, str]:
    told = {f"after_{n}": f"{n} cycles" for n in CYCLES if f"after_{n}_median" in row}
    whole = row["seconds"]
    return told | {f"seconds_{part:g}": f"{part * whole:.1f} s" for part in (0.25, 0.5, 1.0)}


def rules(rows: Rows) -> Figure:
    problems = values(rows, "problem")
    figure, axes = panels(len(problems), columns=2, height=4.8)
    for ax, problem in zip(axes, problems, strict=False):
        for number, row in enumerate(where(rows, problem=problem)):
            there = [n for n in CYCLES if f"after_{n}_median" in row]
            y = [row[f"after_{n}_median"] for n in there]
            ax.plot(
                there,
                y,
                color=colour(row["method"]),
                marker=MARKERS[number % len(MARKERS)],
                markersize=4.0,
                label=row["method"],
            )
        ax.set(xscale="log", yscale="log", title=problem, xlabel="cycles")
        ax.set(ylabel="objective over that of zero")
        ax.set_xticks(CYCLES, [str(n) for n in CYCLES])
        ax.minorticks_off()
    legend(figure, axes[0], 3)
    return figure
