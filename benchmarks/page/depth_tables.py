"""Tables and lines of the summary for the benchmarks of depth."""

import statistics

from cells import Row, Rows, crossed, find, listed, lowest, spread, values, where
from tables import Line, against, goal, number


def depth_tables(rows: Rows) -> list[str]:
    told = []
    for row in where(rows, threads=1, start="smooth"):
        (eager,) = where(rows, threads=1, start="smooth", case=row["case"], method="eager loop")
        told.append(row | {"gain": eager["ms_least"] / row["ms_least"]})
    columns = {"": "{case}", "method": "{method}", "ms, least": "{ms_least:.2f}"}
    columns |= {"median": "{ms_median:.2f}", "eager / it": "{gain:.2f}", "work": "{work:.2f}"}
    columns |= {"error of output": "{output_error:.0e}", "of gradients": "{gradient_error:.0e}"}
    return [f"One thread, smooth weights (other cases are below):\n\n{listed(told, columns)}"]


def depth_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for case in values(rows, "case"):
        own = where(rows, case=case, threads=1, start="smooth")
        ours = lowest([row for row in own if row["method"].endswith("c + 1")], "ms_least")
        judged = next((t for t in targets if t["name"].startswith(f"{case}: best of the")), None)
        eager_goal = next((t for t in targets if t["name"].startswith(f"{case}: eager")), None)
        rival = lowest([row for row in own if "mgnet" not in row["method"]], "ms_least")
        for row, target in ((rival, judged), (find(own, method="eager loop"), eager_goal)):
            short = case.removesuffix(", batch 32")
            told = f"{ours['ms_least']:.2f} ms", f"{row['ms_least']:.2f} ms ({row['method']})"
            line = Line(f"{short}, one cycle", *told, row["ms_least"] / ours["ms_least"])
            found = {"target": target["target"], "met": target["met"]} if target else {}
            lines.append(line._replace(**found))
    return lines


def ranks_tables(rows: Rows) -> list[str]:
    pairs = {key: f"{{{key}}} ({{{key}_plan}})" for key in ("evaluations", "products", "clocks")}
    columns = {"": "{case}, factor {factor}", "method": "{method}"}
    columns |= {"ms, least": "{ms_least:.2f}", "median": "{ms_median:.2f}"}
    columns |= {"speedup, median": "{speedup_median:.2f}", "model": "{model:.2f}"}
    columns |= {"gradient error, smooth": "{error_smooth:.0e}", "default": "{error_default:.0e}"}
    told = [row | {"first": row.get("wins_from") or "-"} for row in where(rows, part=3)]
    index = {"": "{case}", "cycles": "c + {cycles}"}
    return [
        f"Speedup over serial PyTorch with one thread:\n\n{listed(where(rows, part=2), columns)}",
        "Counts on the critical path (in brackets: as planned):\n\n"
        + listed(where(rows, part=1), {"": "{case}"} | pairs),
        "Planned speedup with 1024 layers by ranks (in brackets: the number of layers from which "
        "several ranks are faster than one):\n\n"
        + crossed(told, index, "ranks", "{speedup_1024:.1f} ({first})"),
    ]


def ranks_lines(rows: Rows, targets: Rows) -> list[Line]:
    return [judged_line(target) for target in targets]


def judged_line(target: Row) -> Line:
    """A line of the summary from a complete target."""
    told = [number(target[key]) for key in ("measured", "target")]
    return Line(target["name"], told[0], "-", None, told[1], target["met"])


def training_tables(rows: Rows) -> list[str]:
    accuracy = "{{{0}_median:.3f}} ({{{0}_deviation:.3f}})"
    columns = {"": "{data}, {layers} layers", "propagation": "{method}"}
    columns |= {"accuracy, serially": accuracy.format("serial")}
    columns |= {"own propagation": accuracy.format("own"), "off": "{off:.1f}"}
    columns |= {"evaluations": "{evaluations:.2f}", "vjps": "{vjps:.2f}", "cycles": "{cycles}"}
    return [listed(rows, columns | {"warned": "{warned}", "seconds": "{seconds:.2f}"})]


def training_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for target in targets:
        method = target["name"].split(":")[0]
        own, serial = where(rows, method=method), where(rows, method="serial")
        seconds = [s["seconds"] / o["seconds"] for o, s in zip(own, serial, strict=True)]
        what = f"{method}: cases within one standard deviation (ratio of seconds)"
        told = target["measured"].split(" cases")[0]
        ratio = statistics.median(seconds)
        lines.append(Line(what, told, "serial", ratio, target["target"], target["met"]))
    return lines


def refinement_tables(rows: Rows) -> list[str]:
    columns = {"": "{method}", "cross entropy, training": spread("loss", ".4f")}
    columns |= {"accuracy, test": spread("accuracy", ".3f"), "largest jump": "{jump:.1e}"}
    columns |= {"seeds below the best fine-only": "{better} of {seeds}", "work": "{work:.0f}"}
    columns |= {
        "seconds": "{seconds:.1f}",
        "corrections full / cut / refused": "{full} / {cut} / {refused}",
    }
    return [listed(rows, columns)]


def refinement_lines(rows: Rows, targets: Rows) -> list[Line]:
    ours = find(rows, method="cascade by learnable steps")
    fine = lowest([row for row in rows if row["method"].startswith("fine")], "loss_median")
    judged = goal(targets, "median loss of the cascade by learnable steps")
    return [against("loss of the cascade by learnable steps", ours, fine, "loss", judged)]


def calls_tables(rows: Rows) -> list[str]:
    columns = {"": "{case}", "pass": "{way}", "ms": "{ms:.2f}", "cb918c4, ms": "{ms_before:.2f}"}
    columns |= {"ratio (quartiles)": spread("gain", ".2f"), "eager loop, ms": "{ms_eager:.2f}"}
    told = [row | {"bits": "same" if row.get("same_bits") else "other"} for row in rows]
    return [listed(told, columns | {"bits": "{bits}"})]


def calls_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for row in [row for row in rows if "gain_median" in row]:
        told = f"{row['ms']:.2f} ms", f"{row['ms_before']:.2f} ms (cb918c4)"
        line = Line(f"{row['case']}, {row['way']}", *told, row["gain_median"])
        named = next((t for t in targets if t["name"].startswith(f"{row['case']}: ")), None)
        if named and row["way"] == "training":
            line = line._replace(target=named["target"], met=named["met"])
        lines.append(line)
    return lines


def pymgrit_tables(rows: Rows) -> list[str]:
    columns = {"": "{problem}", "cycle": "{cycle}", "method": "{method}"}
    columns |= {"iterations": "{iterations}", "residual": "{residual:.1e}"}
    columns |= {"seconds": "{seconds:.3f}", "error against serial": "{error:.1e}"}
    return [listed(rows, columns)]


def pymgrit_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for row in where(rows, method="pyMGRIT"):
        ours = find(rows, problem=row["problem"], cycle=row["cycle"], method="mgnet")
        what = f"{row['problem']}, {row['cycle']} ({row['iterations']} iterations)"
        told = f"{ours['seconds']:.3f} s", f"{row['seconds']:.3f} s (pyMGRIT)"
        lines.append(Line(what, *told, row["seconds"] / ours["seconds"]))
    return lines


def recurrent_tables(rows: Rows) -> list[str]:
    cycles = "{cycles_forward_median:g}, {cycles_backward_median:g}"
    told = []
    for kind in values(rows, "kind"):
        columns = {"steps": "{steps}", "width": "{width}", "weights": "{memory}", "cycles": cycles}
        columns |= {"s, mgnet": "{seconds_mgrit_median:.3f}"}
        columns |= {f"nn.{kind}": "{seconds_torch_median:.3f}"}
        columns |= {"loop over cells": "{seconds_loop_median:.3f}"}
        columns |= {f"nn.{kind} / cycles": spread("gain", ".2f")}
        columns |= {"/ exact": "{gain_exact_median:.2f}", '/ "auto"': "{gain_auto:.2f}"}
        told.append(f"{kind}:\n\n{listed(where(rows, kind=kind), columns)}")
    return told


def recurrent_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for row in where(rows, kind="GRU", memory="as drawn"):
        if row["steps"] == max(values(rows, "steps")):
            what = f"GRU of width {row['width']}, {row['steps']} steps, forward and backward"
            ours, other = row["seconds_mgrit_median"], row["seconds_torch_median"]
            told = f"{ours:.2f} s", f"{other:.2f} s (nn.GRU)"
            lines.append(Line(what, *told, row["gain_median"]))
    return lines


def recurrent_ranks_tables(rows: Rows) -> list[str]:
    cycles = "{cycles_forward_median:g}, {cycles_backward_median:g}"
    told, measured = [], where(rows, part=1)
    for kind, title in (("processor", "Processor seconds"), ("seconds", "Seconds")):
        columns = {"steps": "{steps}", "width": "{width}", "cycles": cycles}
        ways = {"torch": "nn.GRU", "serial": 'mode="serial"', "cycles": "cycles, 1 core"}
        ways |= {"pieces": "in pieces, 1 core", "ranks": f"{measured[0]['ranks']} ranks"}
        columns |= {way: f"{{{kind}_{name}_median:.3f}}" for name, way in ways.items()}
        for name, way in (("torch", "nn.GRU"), ("cycles", "cycles"), ("pieces", "in pieces")):
            columns[f"{way} / ranks"] = spread(f"{kind}_gain_{name}", ".2f")
        told.append(f"{title}:\n\n{listed(measured, columns)}")
    index = {"steps": "{steps}", "width": "{width}"}
    cell = "{speedup:.1f} ({levels}, {factor})"
    planned = crossed(where(rows, part=2), index, "ranks", cell)
    title = "Speedup over nn.GRU on one core, planned, by the number of ranks (levels, factor):"
    return [*told, f"{title}\n\n{planned}"]


def recurrent_ranks_lines(rows: Rows, targets: Rows) -> list[Line]:
    return [judged_line(target) for target in targets]


def ode_march_tables(rows: Rows) -> list[str]:
    columns = {"": "{case}", "method": "{method}", "ms": "{ms_median:.2f}"}
    columns |= {"it / mgnet": spread("ratio", ".2f"), "MiB": "{mib_median:.1f}"}
    columns |= {"error of gradients": "{error:.0e}"}
    return [listed(rows, columns)]


def ode_march_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for case in values(rows, "case"):
        own = where(rows, case=case)
        ours = find(own, method="mgnet")
        for name in ("torchdiffeq", "JAX scan"):
            for row in where(own, method=name):
                told = f"{ours['ms_median']:.2f} ms", f"{row['ms_median']:.2f} ms ({name})"
                line = Line(f"neural ODE, {case}", *told, row["ratio_median"])
                start = f"{case}: time of {name}"
                target = next((t for t in targets if t["name"].startswith(start)), None)
                found = {"target": target["target"], "met": target["met"]} if target else {}
                lines.append(line._replace(**found))
    return lines


def serial_memory_tables(rows: Rows) -> list[str]:
    columns = {"layers": "{layers}", "weights": "{weights}", "memory": "{memory}"}
    columns |= {"ms": "{ms_median:.1f}", "it / all states": spread("ratio", ".2f")}
    columns |= {"states held": "{held:.0f}", "over sqrt(N)": "{roots:.2f}", "MiB": "{mib:.1f}"}
    return [listed(rows, columns)]


def serial_memory_lines(rows: Rows, targets: Rows) -> list[Line]:
    return [judged_line(target) for target in targets]
