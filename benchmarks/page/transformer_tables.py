"""Tables, lines of the summary and figures for the benchmarks that train transformers."""

from cells import Rows, listed, lowest, spread, values, where
from depth_tables import judged_line
from drawing import MARKERS, SERIES, legend, panels
from matplotlib.figure import Figure
from tables import Line, number


def nested_tables(rows: Rows) -> list[str]:
    columns = {"": "{method}", "rate": "{rate:g}", "T": "{T:g}"}
    columns |= {"loss": spread("loss", ".3f"), "times less": spread("times_less", ".1f")}
    columns |= {"time used": "{used:.2f}", "layers at the end": "{layers}"}
    told = []
    for units in values(rows, "units"):
        own = where(rows, units=units)
        told.append(f"{units:g} units, {own[0]['seconds']:g} s:\n\n{listed(own, columns)}")
    return told


def nested_lines(rows: Rows, targets: Rows) -> list[Line]:
    """At the longest time: each nested row beside the best fixed depth; then the targets."""
    own = where(rows, units=max(values(rows, "units")))
    fixed = lowest([row for row in own if row["kind"] == "fixed"], "loss_median")
    lines = []
    for row in where(own, kind="nested"):
        told = [f"{each['loss_median']:.3f}" for each in (row, fixed)]
        what = f"loss of {row['method']}, {row['units']:g} units"
        ratio = fixed["loss_median"] / row["loss_median"]
        lines.append(Line(what, told[0], f"{told[1]} ({fixed['method']})", ratio))
    return [*lines, *map(judged_line, targets)]


def nested_figure(rows: Rows) -> Figure:
    figure, (ax,) = panels(1, height=4.0)
    for count, name in enumerate(values(rows, "method")):
        own = where(rows, method=name)
        middle = [row["loss_median"] for row in own]
        low = [row["loss_median"] - row["loss_least"] for row in own]
        high = [row["loss_largest"] - row["loss_median"] for row in own]
        line = "--" if own[0]["kind"] == "fixed" else "-"
        ax.errorbar(
            [row["units"] for row in own],
            middle,
            yerr=[low, high],
            color=SERIES[count % len(SERIES)],
            linestyle=line,
            marker=MARKERS[count % len(MARKERS)],
            markersize=4,
            label=name,
        )
    ax.set(xscale="log", xlabel="time, training steps of 32 layers")
    ax.set(ylabel="cross entropy held out, nats per token")
    legend(figure, ax, 3)
    return figure


def _losses(rows: Rows) -> list[str]:
    """Keys of the losses over the steps."""
    found = where(rows, method="serial")[0]
    return [key.removesuffix("_median") for key in found if key.startswith("loss after")
            and key.endswith("_median")]  # fmt: skip


def character_tables(rows: Rows) -> list[str]:
    trained, planned = where(rows, part="training"), where(rows, part="plan")
    columns = {"rate": "{rate:g}", "": "{method}"}
    columns |= {key: spread(key, ".3f") for key in _losses(trained)}
    errors = [key.replace("loss", "gradient error") for key in _losses(trained)]
    columns |= {key: f"{{{key}_median:.1e}}" for key in errors}
    columns |= {"own loss": "{own loss at the end_median:.3f}", "cycles": "{cycles}"}
    columns |= {"warned": "{warned} of {seeds}", "seconds": "{seconds_median:.0f}"}
    ranks = [key for key in planned[0] if key.endswith(" ranks")]
    plans = {"": "{layers} layers", "coarse layers": "{coarse}", "cycles each way": "{cycles}"}
    plans |= {key: f"{{{key}:.1f}}" for key in ranks}
    return [
        f"Training:\n\n{listed(trained, columns)}",
        f"Planned speedup over one rank:\n\n{listed(planned, plans)}",
    ]


def character_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for target in targets:
        told = number(target["measured"]), number(target["target"])
        lines.append(Line(target["name"], told[0], "serial", None, told[1], target["met"]))
    return lines


def character_figure(rows: Rows) -> Figure:
    figure, axes = panels(2, width=9.0, height=3.6)
    trained = where(rows, part="training")
    steps = [int(key.split()[-1]) for key in _losses(trained)]
    methods = values(trained, "method")
    for row in trained:
        count = methods.index(row["method"])
        style = {"color": SERIES[count], "marker": MARKERS[count], "ms": 4}
        style["ls"] = "--" if row["rate"] == trained[0]["rate"] else "-"
        for ax, what in zip(axes, ("loss", "gradient error"), strict=True):
            keys = [f"{what} after {step}_median" for step in steps]
            if all(key in row for key in keys):
                ax.plot(
                    steps,
                    [row[key] for key in keys],
                    label=f"{row['method']}, {row['rate']:g}",
                    **style,
                )
    axes[0].set(xlabel="steps", ylabel="cross entropy held out, serially")
    axes[1].set(xlabel="steps", ylabel="relative error of the gradient", yscale="log")
    legend(figure, axes[0], 3)
    return figure
