"""One figure per benchmark, from its rows."""

from collections.abc import Sequence

from cells import Row, values, where
from drawing import (
    GREY,
    MARKERS,
    SERIES,
    bars,
    colour,
    curves,
    dots,
    legend,
    one_each,
    one_value,
    panels,
)
from matplotlib.figure import Figure


def poisson_vs_pyamg(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1)
    told = [
        r | {"case": f"{r['smoother']}\n{'with' if r['fast'] else 'without'} fast"} for r in rows
    ]
    bars(ax, told, "case", "ms_median")
    ax.set(xlabel="time per V(1,1)-cycle, milliseconds (median)")
    legend(figure, ax)
    return figure


def small_solves(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1)
    own = where(rows, fast=True, hierarchy="from_pyamg")
    curves(ax, own, "n", "ms_median")
    ax.set(xscale="log", yscale="log", xlabel="unknowns per direction")
    ax.set(ylabel="milliseconds per cycle")
    ax.set_xticks(values(own, "n"), [str(n) for n in values(own, "n")])
    ax.minorticks_off()
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
    axes[2].set(ylabel="algebraic / discretization error")
    axes[2].legend()
    return figure


def line_smoothers(rows: Sequence[Row]) -> Figure:
    names = values(rows, "smoother")
    figure, axes = panels(len(names), columns=3, width=8.5)
    for ax, name in zip(axes, names, strict=True):
        own = [row | {"of": f"eps = {row['eps']:.0e}"} for row in where(rows, smoother=name)]
        curves(ax, own, "k", "factor", "of")
        ax.set(title=name, xlabel="k, for $2^k - 1$ unknowns per direction", ylim=(0, 1))
        ax.set(ylabel="residual reduction per cycle")
    axes[0].legend(fontsize="x-small")
    return figure


def poisson_ranks(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(1)
    least = {(r["method"], r["smoother"], r["ranks"]): r["seconds_least"] for r in rows}
    told = []
    for (method, smoother, ranks), found in least.items():
        if ranks > 1:
            gain = least[method, smoother, 1] / found
            told.append({"method": method, "of": smoother or "one product", "gain": gain})
    bars(axes[0], told, "of", "gain")
    axes[0].set(xlabel="seconds on one rank / seconds on two")
    legend(figure, axes[0], 3)
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


def medians_of(rows: Sequence[Row], key: str, label: str) -> Figure:
    figure, (ax,) = panels(1)
    one_each(ax, rows, key)
    ax.set(xscale="log", xlabel=f"{label}, median and spread")
    return figure


def fit_co2(rows: Sequence[Row]) -> Figure:
    return medians_of(rows, "error", "held-out mean squared error over the variance")


def pinn(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1, height=5.6)
    told = [
        row | {"case": ",\n".join([*row["problem"].split(", "), f"{row['asked']:g} s"])}
        for row in where(rows, shown=True)
    ]
    dots(ax, told, "case", "judged")
    for number, case in enumerate(values(told, "case")):
        goal = where(told, case=case)[0]["goal"]
        label = "target" if not number else None
        ax.plot([goal, goal], [number - 0.35, number + 0.35], color="black", label=label)
    ax.set(xscale="log", xlabel="relative L2 error; mean squared error or loss where judged by it")
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
    figure, (ax,) = panels(1, height=5.0)
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
        told.append(one_value(row["ms_least"] / eager["ms_least"], case, name))
    dots(ax, told, "case", "value")
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
    return medians_of(rows, "loss", "cross entropy on the training points")


def mgrit_vs_pymgrit(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1, height=4.4)
    told = [
        one_value(row["seconds"], f"{row['problem']},\n{row['cycle']}", row["method"])
        for row in rows
    ]
    dots(ax, told, "case", "value")
    ax.set(xscale="log", xlabel="seconds to the tolerance, least of the rounds")
    legend(figure, ax)
    return figure


def recurrent(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1, height=3.6)
    told = [
        row | {"case": f"{row['steps']} steps, width {row['width']}", "method": row["memory"]}
        for row in where(rows, kind="GRU")
    ]
    dots(ax, told, "case", "gain")
    ax.axvline(1.0, color=GREY, linestyle="--", label="nn.GRU")
    ax.set(xscale="log", xlabel="seconds of nn.GRU / seconds of TimeParallel")
    legend(figure, ax)
    return figure


def recurrent_ranks(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1)
    told = where(rows, part=2)
    for steps in values(told, "steps"):
        for width in values(told, "width"):
            own = where(told, steps=steps, width=width)
            at, speedup = [row["ranks"] for row in own], [row["speedup"] for row in own]
            ax.plot(at, speedup, marker="o", ms=3, label=f"{steps} steps, width {width}")
    ax.axhline(1.0, color=GREY, linestyle="--", linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="ranks", ylabel="planned speedup over nn.GRU")
    ax.legend(fontsize=7)
    return figure


def ode_march(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1)
    told = [row | {"case": row["case"].replace(", width", ",\nwidth")} for row in rows]
    bars(ax, told, "case", "ms_median")
    ax.set(xscale="log", xlabel="milliseconds (median), forward and backward")
    legend(figure, ax)
    return figure


def serial_memory(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(2, width=8.5)
    for ax, key, label in zip(axes, ("mib", "ms_median"), ("MiB", "milliseconds"), strict=True):
        for weights, line in (("per layer", "-"), ("shared", "--")):
            for memory in values(rows, "memory"):
                own = where(rows, weights=weights, memory=memory)
                at = [row["layers"] for row in own]
                told = f"{memory}, weights {weights}"
                ax.plot(at, [row[key] for row in own], line, marker="o", ms=3, label=told)
        ax.set(xscale="log", yscale="log", xlabel="layers", ylabel=label)
    axes[0].legend(fontsize=7)
    return figure


def layer_parallel_calls(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(1)
    told = [row | {"method": row["way"]} for row in rows if "gain_median" in row]
    dots(axes[0], told, "case", "gain")
    axes[0].axvline(1.0, color=GREY, linestyle="--", label="cb918c4")
    axes[0].set(xlabel="time of cb918c4 / time of a call")
    legend(figure, axes[0], 3)
    return figure


def layer_ranks(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(2, width=9.0, height=4.2)
    measured = where(rows, part=2)
    told = [row | {"case": row["case"].replace(", batch", ",\nbatch")} for row in measured]
    bars(axes[0], told, "case", "speedup_median")
    axes[0].axvline(1.0, color=GREY, linestyle="--", linewidth=0.8)
    axes[0].set(title="measured", xlabel="speedup over serial PyTorch, 1 thread")
    axes[0].legend(fontsize=7)
    for number, case in enumerate(values(where(rows, part=3), "case")):
        for cycles, line in ((0, "--"), (1, "-")):
            own = where(rows, part=3, case=case, cycles=cycles)
            at, speedup = [r["ranks"] for r in own], [r["speedup_1024"] for r in own]
            label = case if cycles else None
            axes[1].plot(at, speedup, line, color=SERIES[number], marker="o", ms=3, label=label)
    axes[1].set(title="planned, 1024 layers (dashed: cascade alone)", xscale="log")
    axes[1].set(yscale="log", xlabel="ranks", ylabel="speedup over serial")
    axes[1].legend(fontsize=7)
    return figure


def sample_parallel(rows: Sequence[Row]) -> Figure:
    figure, (ax,) = panels(1)
    ways = {
        "alone": "serial, not spread",
        "one_rank": "mgnet, 1 rank",
        "all_ranks": "mgnet, 2 ranks",
    }
    told = [
        row | {"method": name, "seconds": row[f"{way}_s_least"]}
        for row in rows
        for way, name in ways.items()
    ]
    bars(ax, told, "case", "seconds")
    ax.set(xlabel="seconds, least of the rounds")
    legend(figure, ax)
    return figure


def estimators(rows: Sequence[Row]) -> Figure:
    cases = values(rows, "case")
    figure, axes = panels(len(cases), height=2.4)
    for ax, case in zip(axes, cases, strict=True):
        own = where(rows, case=case)
        told = [
            {"method": row["estimator"]}
            | {f"score_{kind}": row[kind] for kind in ("median", "least", "largest")}
            for row in own
        ]
        one_each(ax, told, "score")
        ax.set(title=case, xlabel=f"{own[0]['measure']} on the test rows, median and spread")
    return figure
