"""Tables, lines of the summary and figures of recurrent networks but for their seconds."""

from cells import Rows, listed, spread, where
from depth_tables import judged_line
from drawing import dots, legend, one_value, panels
from matplotlib.figure import Figure
from tables import Line

GROUPS = {"stable": "stable", "weak": "weakly chaotic", "chaotic": "chaotic"}
METHODS = "V, 2 levels", "V, 3 levels", "F, 3 levels", "Newton, dense", "Newton, diagonal"


def iterations_tables(rows: Rows) -> list[str]:
    columns = {"": "{kind}", "steps": "{steps}", "width": "{width}", "weights": "{memory}"}
    columns |= {method: f"{{{method}}}" for method in METHODS}
    columns |= {"error of output": "{error_forward:.1e}", "of gradients": "{error_gradients:.1e}"}
    return [listed(rows, columns)]


def target_lines(rows: Rows, targets: Rows) -> list[Line]:
    return [judged_line(target) for target in targets]


def iterations_figure(rows: Rows) -> Figure:
    """Forward; what is not a number (too many, or not run) is left out."""
    figure, (ax,) = panels(1, height=4.4)
    told = []
    for row in where(rows, memory="as drawn"):
        case = f"{row['kind']}, {row['steps']} steps, width {row['width']}"
        for method in METHODS:
            first = row[method].split(", ")[0]
            if first.replace(".", "").isdigit():
                told.append(one_value(float(first), case, method))
    dots(ax, told, "case", "value")
    ax.set(xlabel="iterations to 1e-6, forward")
    legend(figure, ax, 3)
    return figure


def refusals_tables(rows: Rows) -> list[str]:
    columns = {"": "{kind}", "weights times": "{scale:g}", "exponent": spread("exponent", ".2f")}
    for name, told in GROUPS.items():
        columns |= {f"{told}: refused": f"{{{name}_refused}} of {{{name}}}"}
    columns |= {"refusal / serial steps": "{over_serial_median:.2f}"}
    columns |= {"/ cycles without it": "{over_unguarded_median:.2f}"}
    return [listed(rows, columns)]


def refusals_figure(rows: Rows) -> Figure:
    figure, (ax,) = panels(1, height=3.6)
    told = []
    for row in rows:
        for kind, name in GROUPS.items():
            if row[kind]:
                share = 100.0 * row[f"{kind}_refused"] / row[kind]
                told.append(one_value(share, f"{row['kind']}, times {row['scale']:g}", name))
    dots(ax, told, "case", "value")
    ax.set(xlabel="percent of the cells of a kind that are refused")
    legend(figure, ax)
    return figure


def classification_tables(rows: Rows) -> list[str]:
    columns = {"trained": "{method}"}
    for name, how in (("parallel", "by cycles"), ("serial", "step by step")):
        columns |= {
            f"evaluated {how}": spread(name, ".1f"),
            f"std, {how}": f"{{{name}_deviation:.2f}}",
        }
    return [listed(rows, columns | {"predictions that differ, at most": "{differ_largest}"})]


def classification_figure(rows: Rows) -> Figure:
    figure, (ax,) = panels(1)
    told = []
    for row in rows:
        for name, how in (("parallel", "by cycles"), ("serial", "step by step")):
            ends = {f"value_{end}": row[f"{name}_{end}"] for end in ("median", "least", "largest")}
            told.append({"case": f"trained: {row['method']}", "method": how} | ends)
    dots(ax, told, "case", "value")
    ax.set(xlabel="accuracy on other people, percent")
    legend(figure, ax)
    return figure
