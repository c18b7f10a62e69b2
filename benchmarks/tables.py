"""Tables of the page of benchmarks, and the lines of its summary, from saved rows."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import figures
from figures import where
from saved import Row

Rows = Sequence[Row]
SPREAD = "{{{0}_median:{1}}} ({{{0}_least:{1}}} to {{{0}_largest:{1}}})"


class Line(NamedTuple):
    """Of the summary; ratio: how many times better than the rival we are, below 1 we lose."""

    what: str
    ours: str
    rival: str
    ratio: float | None
    target: str = "-"
    met: bool | None = None


def spread(key: str, form: str) -> str:
    """The format of a median with its spread."""
    return SPREAD.format(key, form)


def filled(form: str, row: Row) -> str:
    """A cell; a dash where the row lacks what it asks for."""
    try:
        return form.format(**row)
    except KeyError:
        return "-"


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    told = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in told)


def listed(rows: Rows, columns: dict[str, str]) -> str:
    """A line per row; columns are heads and formats."""
    return markdown(list(columns), [[filled(c, row) for c in columns.values()] for row in rows])


def crossed(rows: Rows, index: dict[str, str], by: str, cell: str) -> str:
    """A line for each combination of the index, a column for each value of `by`."""
    names = figures.values(rows, by)
    lines: dict[tuple[str, ...], dict[Any, str]] = {}
    for row in rows:
        key = tuple(filled(form, row) for form in index.values())
        lines.setdefault(key, {})[row[by]] = filled(cell, row)
    cells = [[*key, *(found.get(name, "-") for name in names)] for key, found in lines.items()]
    return markdown([*index, *map(str, names)], cells)


def find(rows: Rows, **wanted: Any) -> Row:
    found = where(rows, **wanted)
    if len(found) != 1:
        raise LookupError(f"{len(found)} saved rows have {wanted}; one was expected")
    return found[0]


def lowest(rows: Rows, key: str) -> Row:
    return min((row for row in rows if key in row), key=lambda row: row[key])


def goal(targets: Rows, start: str) -> tuple[str, bool]:
    """The target whose name begins so."""
    found = next(t for t in targets if t["name"].startswith(start))
    return found["target"], found["met"]


# Poisson


def poisson_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for smoother in figures.values(rows, "smoother"):
        own = where(rows, smoother=smoother, fast=True)
        ours = find(own, method="mgnet")["ms_median"]
        for peer in [row for row in own if row["method"] != "mgnet"]:
            judged = ("-", None)
            if smoother.startswith("Jacobi") and peer["method"] == "PyAMG":
                judged = goal(targets, "time per cycle over PyAMG's, Jacobi, with")
            what = f"V(1,1)-cycle, {smoother}, against {peer['method']}"
            rival = f"{peer['ms_median']:.1f} ms"
            lines.append(Line(what, f"{ours:.1f} ms", rival, 1.0 / peer["ratio_median"], *judged))
    return lines


def poisson_tables(rows: Rows) -> list[str]:
    told = [row | {"extra": "with" if row["fast"] else "without"} for row in rows]
    columns = {"smoother": "{smoother}", "extra `fast`": "{extra}", "": "{method}"}
    columns |= {"ms per cycle, median": "{ms_median:.1f}"}
    columns |= {"mgnet over it (range)": spread("ratio", ".2f")}
    return [listed(told, columns | {"residual norm after 10 cycles": "{residual:.1e}"})]


def convergence_tables(rows: Rows) -> list[str]:
    of_cycles = [row for row in rows if "cycle" in row]
    named = [row | {"at": f"k = {row['k']}"} for row in rows]
    index = {"": "{dimension}-D", "cycle": "{cycle}"}
    nested = [row for row in named if "smoother" in row]
    told = [row for row in named if "cycle" in row] if of_cycles else []
    return [
        "Residual reduction per cycle, Jacobi 2/3, 2^k - 1 unknowns per direction:\n\n"
        + crossed(told, index, "at", "{factor:.4f}"),
        "Algebraic over discretisation error after one nested F(1,1) in 2-D (work units):\n\n"
        + crossed(nested, {"smoother": "{smoother}"}, "at", "{error:.1e} ({work:.2f})"),
    ]


# Knots


def speed_tables(rows: Rows) -> list[str]:
    index = {"": "{case}", "threads": "{threads}", "grid": "{grid}"}
    return [
        "Milliseconds, and how many times those of our compiled form (fused):\n\n"
        + crossed(rows, index, "method", "{ms:.3g} ({ratio_fused:.2f})")
    ]


def speed_lines(rows: Rows, targets: Rows) -> list[Line]:
    layer = [r for r in rows if r["case"].startswith("layer") and r["threads"] == 1]
    lines = []
    for peer, grid in (("efficient-kan", 128), ("FastKAN", 5), ("pykan", 128), ("Linear+SiLU", 5)):
        own = where(layer, grid=grid)
        if where(own, method=peer):
            ours, row = find(own, method="fused"), find(own, method=peer)
            judged = goal(targets, "time of the fused") if peer == "Linear+SiLU" else ("-", None)
            what = f"layer, {grid} intervals, against {peer}"
            told = [f"{one['ms']:.2f} ms" for one in (ours, row)]
            lines.append(Line(what, *told, row["ratio_fused"], *judged))
    return lines


def regression_tables(rows: Rows) -> list[str]:
    columns = {"": "{method}", "grid": "{grid}", "points": "{points}", "weights": "{weights}"}
    columns |= {"held-out RMSE": spread("error", ".1e"), "training": "{training_median:.1e}"}
    return [listed(rows, columns | {"steps": "{steps}", "seconds": "{seconds:.1f}"})]


def regression_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for grid in (40, 80):
        own = where(rows, grid=grid)
        ours, rival = own[0], lowest(own[1:], "error_median")
        judged = goal(targets, f"{'held-out RMSE ' if grid == 40 else ''}on grid {grid}")
        lines.append(against(f"held-out RMSE, grid 5 to {grid}", ours, rival, "error", judged))
    return lines


def against(
    what: str, ours: Row, rival: Row, key: str, judged: tuple[str, bool | None] = ("-", None)
) -> Line:
    """A line about something of which less is better."""
    mine, other = ours[f"{key}_median"], rival[f"{key}_median"]
    told = f"{other:.1e} ({rival['method']})"
    return Line(what, f"{mine:.1e}", told, other / mine, *judged)


# Training


def co2_tables(rows: Rows) -> list[str]:
    columns = {"": "{method}", "held-out MSE": spread("error", ".1e")}
    columns |= {"training": "{training_median:.1e}", "seconds": "{seconds:.1f}"}
    return [listed(rows, columns | {"parameters": "{parameters}"})]


def co2_lines(rows: Rows, targets: Rows) -> list[Line]:
    judged = goal(targets, "held-out MSE over the variance")
    return [
        against(
            "held-out MSE over the variance",
            rows[0],
            lowest(rows[1:], "error_median"),
            "error",
            judged,
        )
    ]


def pinn_tables(rows: Rows) -> list[str]:
    columns = {"": "{problem}", "seconds": "{asked:g}", "network": "{method}"}
    columns |= {"weights": "{weights}", "seeds": "{seeds}", "error": spread("error", ".1e")}
    columns |= {"loss": "{loss_median:.1e}", "steps": "{steps:.0f}", "failed": "{failed}"}
    return [listed(rows, columns)]


def pinn_lines(rows: Rows, targets: Rows) -> list[Line]:
    """At the longest time that has all seeds of our network; a rival of as much time or more."""
    lines = []
    for problem in figures.values(rows, "problem"):
        own = where(rows, problem=problem)
        mine = where(own, method="KAN, nested")
        most = max(row["seeds"] for row in mine)
        ours = max(where(mine, seeds=most), key=lambda row: row["asked"])
        others = [r for r in own if r["asked"] == ours["asked"] and r["method"] != ours["method"]]
        what = f"{problem}, {ours['asked']:g} s"
        judged = goal(targets, problem)
        lines.append(against(what, ours, lowest(others, "judged_median"), "judged", judged))
    return lines


def newton_tables(rows: Rows) -> list[str]:
    told = [
        row | {"cell": "too slow"}
        if row.get("too_slow")
        else row | {"cell": filled("{iterations_median} / {seconds:.3g}", row)}
        for row in rows
        if not row.get("left_out")
    ]
    index = {"network": "{widths}", "intervals": "{intervals}", "parameters": "{parameters}"}
    table = crossed(told, index | {"damping": "{damping:g}"}, "method", "{cell}")
    left = [filled("{widths} with {intervals} intervals", r) for r in rows if r.get("left_out")]
    note = f"\n\nLeft out: {', '.join(left)}." if left else ""
    return [f"Iterations (median) / seconds with set-up:\n\n{table}{note}"]


def newton_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for damping in figures.values(rows, "damping"):
        own = where(rows, widths="[2, 6, 1]", damping=damping)
        judged = next(t for t in targets if f"[2, 6, 1], damping {damping:g}" in t["name"])
        what = f"[2, 6, 1], damping {damping:g}"
        told = judged["measured"], "-", None, judged["target"], judged["met"]
        lines.append(Line(f"{what}: CG iterations with patches", *told))
        largest = where(own, intervals=max(row["intervals"] for row in own))
        ours = find(largest, method="V, patches")
        rival = lowest([row for row in largest if row is not ours], "seconds")
        told = f"{ours['seconds']:.3f} s", f"{rival['seconds']:.3f} s ({rival['method']})"
        ratio = rival["seconds"] / ours["seconds"]
        lines.append(Line(f"{what}, {ours['intervals']} intervals: seconds", *told, ratio))
    return lines


def guarded_tables(rows: Rows) -> list[str]:
    index = {"": "{problem}", "smoother": "{smoother}"}
    cycles = [r for r in rows if "gain_median" in r and r["method"] != "fine sweeps"]
    named = [r | {"method": r["method"].split(",")[0]} for r in rows]
    failed = sum(row["failed"] for row in rows)
    return [
        "Loss of fine sweeps over loss of the cycles, equal seconds (above 1: cycles pay):\n\n"
        + crossed(cycles, index, "method", spread("gain", ".2f")),
        f"Errors at the end, medians; {failed} runs failed:\n\n"
        + crossed(named, index, "method", "{error_median:.1e}"),
    ]


def guarded_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for problem in figures.values(rows, "problem"):
        own = where(rows, problem=problem, smoother="LM")
        fine = find(own, method="fine sweeps")
        ours = max(
            (r for r in own if r["method"][:2] in ("V ", "F ")), key=lambda r: r["gain_median"]
        )
        what = f"loss of {problem}, LM"
        rival = f"{fine['loss_median']:.1e} (fine sweeps)"
        lines.append(Line(what, f"{ours['loss_median']:.1e}", rival, ours["gain_median"]))
    return lines


def basis_tables(rows: Rows) -> list[str]:
    tables = []
    for key, title in (("train", "the training points"), ("fine", "a fine grid")):
        told = []
        for case in figures.values(rows, "case"):
            adam = [row for row in where(rows, case=case) if f"gain_{key}" not in row]
            best = lowest(adam, f"{key}_median")
            told.append(best | {"method": "Adam, lowest median of nine"})
            told += [row for row in where(rows, case=case) if f"gain_{key}" in row]
        cells = {r["method"]: "{%s_median:.1e} ({gain_%s:.3g}x)" % (key, key) for r in told}  # noqa: UP031
        for row in told:
            row["cell"] = filled(cells[row["method"]], row)
            if row["cell"] == "-":
                row["cell"] = f"{row[f'{key}_median']:.1e}"
        table = crossed(told, {"": "{case}"}, "method", "{cell}")
        tables.append(
            f"Mean squared error on {title}, medians (gain over the best Adam):\n\n{table}"
        )
    return tables


def basis_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for target in targets:
        method = target["name"].split(":")[0]
        if method in ("LS + Adam 3e-3", "LS + L-BFGS"):
            mean = float(target["measured"].split()[1].rstrip(","))
            where_to = target["name"].split("Adam, ")[-1]
            what = f"{method}: gain over the best Adam, {where_to}"
            told = target["measured"], "best of nine by Adam", mean, target["target"], target["met"]
            lines.append(Line(what, *told))
    return lines


def ngd_tables(rows: Rows) -> list[str]:
    told = [
        r | {"after": f"{r['at']:g} {'s' if r['equal'] == 'seconds' else 'epochs'}"} for r in rows
    ]
    index = {"": "{data}", "network": "{network}", "after": "{after}"}
    table = crossed(told, index, "method", spread("accuracy", ".4f"))
    return [f"Held-out accuracy, each at its best rate:\n\n{table}"]


def ngd_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for data, network in dict.fromkeys((row["data"], row["network"]) for row in rows):
        own = where(rows, data=data, network=network, equal="seconds")
        last = max(row["at"] for row in own)
        accuracy = {row["method"]: row["accuracy_median"] for row in where(own, at=last)}
        adam = accuracy.pop("Adam")
        best = max(accuracy, key=lambda method: accuracy[method])
        what = f"{data}, {network}: accuracy after {last:g} s (ratio of errors)"
        ratio = (1.0 - adam) / (1.0 - accuracy[best])
        lines.append(Line(what, f"{accuracy[best]:.4f} ({best})", f"{adam:.4f} (Adam)", ratio))
    return lines


# Depth


def depth_tables(rows: Rows) -> list[str]:
    told = []
    for row in where(rows, threads=1, start="smooth"):
        (eager,) = where(rows, threads=1, start="smooth", case=row["case"], method="eager loop")
        told.append(row | {"gain": eager["ms_least"] / row["ms_least"]})
    columns = {"": "{case}", "method": "{method}", "ms, least": "{ms_least:.2f}"}
    columns |= {"median": "{ms_median:.2f}", "eager / it": "{gain:.2f}", "work": "{work:.2f}"}
    columns |= {"error of output": "{output_error:.0e}", "of gradients": "{gradient_error:.0e}"}
    return [f"One thread, smooth weights (the others are below):\n\n{listed(told, columns)}"]


def depth_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for case in figures.values(rows, "case"):
        own = where(rows, case=case, threads=1, start="smooth")
        ours = lowest([row for row in own if row["method"].endswith("c + 1")], "ms_least")
        judged = next((t for t in targets if t["name"].startswith(f"{case}: best of the")), None)
        eager_goal = next((t for t in targets if t["name"].startswith(f"{case}: eager")), None)
        rival = lowest([row for row in own if "mgnet" not in row["method"]], "ms_least")
        for row, target in ((rival, judged), (find(own, method="eager loop"), eager_goal)):
            short = case.removesuffix(", batch 32")
            told = [f"{ours['ms_least']:.2f} ms", f"{row['ms_least']:.2f} ms ({row['method']})"]
            line = Line(f"{short}, one cycle", *told, row["ms_least"] / ours["ms_least"])
            found = {"target": target["target"], "met": target["met"]} if target else {}
            lines.append(line._replace(**found))
    return lines


def training_tables(rows: Rows) -> list[str]:
    accuracy = "{{{0}_median:.3f}} ({{{0}_deviation:.3f}})"
    columns = {"": "{data}, {layers} layers", "propagation": "{method}"}
    columns |= {"accuracy, serially": accuracy.format("serial")}
    columns |= {"own propagation": accuracy.format("own"), "off": "{off:.1f}"}
    columns |= {"evaluations": "{evaluations:.2f}", "pulls": "{pulls:.2f}", "cycles": "{cycles}"}
    return [listed(rows, columns | {"warned": "{warned}", "seconds": "{seconds:.2f}"})]


def training_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for target in targets:
        method = target["name"].split(":")[0]
        own, serial = where(rows, method=method), where(rows, method="serial")
        seconds = [s["seconds"] / o["seconds"] for o, s in zip(own, serial, strict=True)]
        what = f"{method}: cases within a deviation (ratio of seconds)"
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
    ours = find(rows, method="cascade by gates")
    fine = lowest([row for row in rows if row["method"].startswith("fine")], "loss_median")
    judged = goal(targets, "median loss of the cascade by gates")
    return [against("loss of the cascade by gates", ours, fine, "loss", judged)]


def pymgrit_tables(rows: Rows) -> list[str]:
    columns = {"": "{problem}", "cycle": "{cycle}", "method": "{method}"}
    columns |= {"iterations": "{iterations}", "residual": "{residual:.1e}"}
    columns |= {"seconds": "{seconds:.3f}", "error against serial": "{error:.1e}"}
    return [listed(rows, columns)]


def pymgrit_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for row in where(rows, method="pyMGRIT"):
        ours = find(rows, problem=row["problem"], cycle=row["cycle"], method="mgnet")
        told = [f"{one['seconds']:.3f} s ({one['iterations']} iterations)" for one in (ours, row)]
        what = f"{row['problem']}, {row['cycle']}"
        lines.append(Line(what, *told, row["seconds"] / ours["seconds"]))
    return lines
