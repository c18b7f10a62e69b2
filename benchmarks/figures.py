"""One figure per benchmark, from its rows; a method has the same colour in all of them."""

import io
from collections.abc import Callable, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cells import values, where
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from saved import Row

OURS, OURS_TOO, GREY, LIGHT = "#0072b2", "#56b4e9", "#6e6e6e", "#b0b0b0"
ORANGE, RED, GREEN, PURPLE, YELLOW = "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#b8a000"
FAMILIES = {  # how the name of a method begins -> colour; the longest that fits
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
    "gates": OURS_TOO,
    "Adaptive": OURS,
    "Tolerance": GREEN,
    "Fixed(1)": ORANGE,
    "Fixed(2)": YELLOW,
    "Fixed": OURS_TOO,
    "torch": OURS_TOO,
    "mgnet, auto": GREEN,
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
    "pykan": RED,
    "pyMGRIT": ORANGE,
    "TorchBraid": PURPLE,
    "efficient-kan": ORANGE,
    "FastKAN": PURPLE,
    "Cox-de Boor": LIGHT,
    "Nystroem": PURPLE,
    "Jacobi": YELLOW,
    "Jacobi 4/5": ORANGE,
    "dense Cholesky": RED,
    "dual Cholesky": ORANGE,
    "tensor-product": GREEN,
    "gradient boosting": PURPLE,
    "Gauss-Seidel": RED,
    "Chebyshev": GREEN,
}
MARKERS = "osD^vP<>"
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


# One function per benchmark


def poisson_vs_pyamg(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1)
    told = [
        r | {"case": f"{r['smoother']}\n{'with' if r['fast'] else 'without'} fast"} for r in rows
    ]
    bars(ax, told, "case", "ms_median")
    ax.set(xlabel="time per V(1,1)-cycle, milliseconds (median)")
    legend(figure, ax)
    return figure


def poisson_convergence(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(3, columns=3, width=8.5)
    for ax, dimension in zip(axes, (1, 2), strict=False):
        curves(ax, where(rows, dimension=dimension), "k", "factor", "cycle")
        title = f"{dimension}-D, Jacobi 2/3"
        ax.set(title=title, xlabel="k, for $2^k - 1$ unknowns per direction", ylim=(0, 0.5))
        ax.set(ylabel="residual reduction per cycle")
        ax.legend()
    curves(axes[2], [row for row in rows if "error" in row], "k", "error", "smoother")
    axes[2].set(title="one nested F(1,1), 2-D", yscale="log", xlabel="k")
    axes[2].set(ylabel="algebraic / discretisation error")
    axes[2].legend()
    return figure


def knots_speed(rows: Sequence[Row]) -> Figure:
    cases = [case for case in values(rows, "case") if len(where(rows, case=case, threads=1)) > 7]
    figure, axes = panels(len(cases))
    for ax, case in zip(axes, cases, strict=True):
        curves(ax, where(rows, case=case, threads=1), "grid", "ms")
        ax.set(xscale="log", yscale="log", title=case.split(", batch")[0], xlabel="knot intervals")
        ax.set(ylabel="forward + backward, milliseconds")
        ax.set_xticks(values(rows, "grid"), [str(grid) for grid in values(rows, "grid")])
        ax.minorticks_off()
    legend(figure, axes[0])
    return figure


def knots_regression(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(2)
    for ax, x in zip(axes, ("grid", "seconds"), strict=True):
        curves(ax, rows, x, "error_median")
        ax.set(xscale="log", yscale="log", ylabel="held-out RMSE, median and spread")
    axes[0].set(xlabel="knot intervals")
    axes[0].set_xticks(values(rows, "grid"), [str(grid) for grid in values(rows, "grid")])
    axes[0].minorticks_off()
    axes[1].set(xlabel="seconds of training")
    legend(figure, axes[0])
    return figure


def fit_co2(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1)
    one_each(ax, rows, "error")
    ax.set(xscale="log", xlabel="held-out mean squared error over the variance, median and spread")
    return figure


def pinn(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1, height=4.6)
    longest = {p: max(r["asked"] for r in where(rows, problem=p)) for p in values(rows, "problem")}
    told = [r | {"case": f"{r['problem']}, {r['asked']:g} s"} for r in rows]
    dots(ax, [r for r in told if r["asked"] == longest[r["problem"]]], "case", "judged")
    for number, problem in enumerate(longest):
        goal = where(rows, problem=problem)[0]["goal"]
        label = "target" if not number else None
        ax.plot([goal, goal], [number - 0.35, number + 0.35], color="black", label=label)
    ax.set(xscale="log", xlabel="relative L2 error (paper: loss; regression: mean squared error)")
    legend(figure, ax, 5)
    return figure


def newton_multigrid(rows: Sequence[Row]) -> Figure:
    dampings = [damping for damping in values(rows, "damping") if damping]
    figure, axes = panels(len(dampings) + 1, columns=3, width=9.0, height=3.6)
    for ax, damping in zip(axes, dampings, strict=False):
        own = where(rows, widths="2,6,1", damping=damping)
        shown = [row for row in own if row.get("iterations_median")]
        curves(ax, shown, "intervals", "iterations_median")
        ax.set(xscale="log", yscale="log", xlabel="knot intervals", ylabel="CG iterations, median")
        ax.set_title(f"[2, 6, 1], damping {damping:g}")
        ax.set_xticks(values(shown, "intervals"), [str(n) for n in values(shown, "intervals")])
        ax.minorticks_off()
    for method in ("V, patches", "dense Cholesky"):
        for damping, marker in zip(dampings, MARKERS, strict=False):
            own = [r for r in where(rows, method=method, damping=damping) if "seconds_median" in r]
            x, y = zip(
                *sorted((row["parameters"], row["seconds_median"]) for row in own), strict=True
            )
            label = f"{method}, {damping:g}"
            axes[-1].plot(x, y, marker, markersize=4, color=colour(method), label=label)
    axes[-1].set(xscale="log", yscale="log", xlabel="parameters, all networks")
    axes[-1].set(ylabel="seconds with set-up")
    axes[-1].legend(fontsize=7)
    legend(figure, axes[0], 6)
    return figure


def guarded_cycles(rows: Sequence[Row]) -> Figure:
    problems = values(rows, "problem")
    figure, axes = panels(len(problems), height=3.6)
    for ax, problem in zip(axes, problems, strict=True):
        own = [row for row in where(rows, problem=problem) if "gain_median" in row]
        dots(ax, [row for row in own if row["method"] != "fine sweeps"], "smoother", "gain")
        ax.axvline(1.0, color=GREY, linestyle="--", label="fine sweeps")
        ax.set(title=problem, xlabel="loss of fine sweeps / loss of cycles")
    legend(figure, axes[0], 5)
    return figure


def adaptive_basis(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(2)
    kinds = {"train": "training points", "fine": "between them"}
    for ax, (kind, title) in zip(axes, kinds.items(), strict=True):
        told = []
        for case in values(rows, "case"):
            own = where(rows, case=case)
            adam = min(r[f"{kind}_mean"] for r in own if r["method"].startswith("Adam"))
            others = (row for row in own if not row["method"].startswith("Adam"))
            told += [row | {"gain": adam / row[f"{kind}_mean"]} for row in others]
        curves(ax, told, "case", "gain")
        for line in ax.lines:
            line.set_linestyle("none")
        ax.axhline(1.0, color=GREY, linestyle="--", label="best Adam")
        ax.axhline(3.0, color="black", linewidth=0.8, label="target of each case")
        ax.set(yscale="log", title=title, ylabel="gain in MSE over the best Adam")
        ax.tick_params("x", rotation=40)
    legend(figure, axes[0], 3)
    return figure


def ngd(rows: Sequence[Row]) -> Figure:
    kinds = list(dict.fromkeys((row["data"], row["inputs"]) for row in rows))
    figure, axes = panels(len(kinds))
    for ax, (data, inputs) in zip(axes, kinds, strict=True):
        own = [row for row in where(rows, data=data) if row["mark"].endswith(" ep")]
        told = [row | {"at": int(row["mark"].split()[0])} for row in own]
        for network in values(told, "network"):
            dashed = "-" if network == values(told, "network")[0] else "--"
            before = len(ax.containers)
            shown = where(told, network=network)
            curves(
                ax,
                [r | {"method": f"{r['method']}, {r['network']}"} for r in shown],
                "at",
                "accuracy_median",
            )
            for drawn in ax.containers[before:]:
                drawn[0].set_linestyle(dashed)
        ax.set(xscale="log", title=f"{data}, {inputs} inputs", xlabel="epochs")
        ax.set(ylabel="held-out accuracy, median")
        ax.set_xticks(values(told, "at"), [str(at) for at in values(told, "at")])
        ax.minorticks_off()
    legend(figure, axes[0], 3)
    return figure


def depth_vs_serial(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1, height=6.0)
    told = []
    for row in where(rows, threads=1, start="smooth"):
        same = where(rows, threads=1, start="smooth", case=row["case"])
        (eager,) = where(same, method="eager loop")
        name = row["method"].split(", chunks")[0]
        if ", factor" in name:  # the best factor of each number of cycles
            ending = name[-5:]
            own = [other for other in same if other["method"].endswith(ending)]
            if row is not min(own, key=lambda other: other["ms_least"]):
                continue
            name = "mgnet, cascade + 1 cycle" if ending == "c + 1" else "mgnet, cascade alone"
        case = row["case"].removesuffix(", batch 32").replace(", ", "\n")
        told.append({"case": case, "method": name, "over": row["ms_least"] / eager["ms_least"]})
    bars(ax, told, "case", "over")
    ax.axvline(1.0, color=GREY, linestyle="--", linewidth=0.8)
    ax.set(xscale="log", xlabel="time over that of the eager loop, one thread, smooth weights")
    legend(figure, ax, 3)
    return figure


def depth_training(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1, height=4.4)
    told = []
    for row in rows:
        middle, deviation = row["serial_median"], row["serial_deviation"]
        row = row | {"case": f"{row['data']}, {row['layers']} layers", "accuracy_median": middle}
        told.append(
            row | {"accuracy_least": middle - deviation, "accuracy_largest": middle + deviation}
        )
    dots(ax, told, "case", "accuracy")
    ax.set(xlabel="held-out accuracy, evaluated serially, median and standard deviation")
    legend(figure, ax)
    return figure


def depth_refinement(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1)
    one_each(ax, rows, "loss")
    ax.set(xscale="log", xlabel="cross entropy on the training points, median and spread")
    return figure


def mgrit_vs_pymgrit(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1)
    told = [row | {"case": f"{row['problem']},\n{row['cycle']}"} for row in rows]
    bars(ax, told, "case", "seconds")
    ax.set(xscale="log", xlabel="seconds to the tolerance, least of the rounds")
    legend(figure, ax)
    return figure
