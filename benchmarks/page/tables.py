"""Tables of the page of benchmarks, and the lines of its summary, from saved rows."""

import re
from typing import NamedTuple

from cells import Row, Rows, crossed, filled, find, listed, lowest, spread, values, where


class Line(NamedTuple):
    """A line of the summary; ratio: how many times better mgnet is, below 1 it is worse."""

    what: str
    ours: str
    rival: str
    ratio: float | None
    target: str = "-"
    met: bool | None = None


def goal(targets: Rows, start: str) -> tuple[str, bool]:
    """The target whose name begins so."""
    found = next(t for t in targets if t["name"].startswith(start))
    return found["target"], found["met"]


def number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


# Poisson


AIMED = {("Jacobi 2/3", "PyAMG"), ("Gauss-Seidel", "PETSc")}


def poisson_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for smoother in values(rows, "smoother"):
        own = where(rows, smoother=smoother, fast=True)
        ours = find(own, method="mgnet")["ms_median"]
        for peer in [row for row in own if row["method"] != "mgnet"]:
            judged = ("-", None)
            if (smoother, peer["method"]) in AIMED:
                aimed = f"time per cycle over {peer['method']}'s, {smoother}, with"
                judged = goal(targets, aimed)
            what = f"V(1,1)-cycle, {smoother}, against {peer['method']}"
            rival = f"{peer['ms_median']:.1f} ms"
            lines.append(Line(what, f"{ours:.1f} ms", rival, 1.0 / peer["ratio_median"], *judged))
    return lines


def poisson_tables(rows: Rows) -> list[str]:
    told = [row | {"extra": "with" if row["fast"] else "without"} for row in rows]
    columns = {"smoother": "{smoother}", "extra `fast`": "{extra}", "": "{method}"}
    columns |= {"ms per cycle, median": "{ms_median:.1f}"}
    columns |= {"mgnet's time / this time (range)": spread("ratio", ".2f")}
    return [listed(told, columns | {"residual norm after 10 cycles": "{residual:.1e}"})]


def small_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for n in (15, 31, 127):
        own = where(rows, n=n, fast=True, hierarchy="from_pyamg")
        ours, theirs = find(own, method="mgnet"), find(own, method="PyAMG")
        judged = goal(targets, f"time per cycle over PyAMG's, {n}^2")
        what = f"V(1,1)-cycle, Gauss-Seidel, {n} x {n} unknowns, against PyAMG"
        told = f"{ours['ms_median']:.3f} ms", f"{theirs['ms_median']:.3f} ms"
        lines.append(Line(what, *told, theirs["ratio_median"], *judged))
    return lines


def small_tables(rows: Rows) -> list[str]:
    told = [row | {"extra": "with" if row["fast"] else "without"} for row in rows]
    index = {"extra `fast`": "{extra}", "unknowns": "{n} x {n}"}
    cell = "{ms_median:.3f} ({ratio_median:.2f})"
    heads = {
        "from_pyamg": "Milliseconds per cycle on one hierarchy, that of `Hierarchy.from_pyamg` "
        "(multiples of mgnet's time):",
        "gallery": "The same on the hierarchy of `gallery.poisson`:",
    }
    return [
        f"{head}\n\n" + crossed(where(told, hierarchy=name), index, "method", cell)
        for name, head in heads.items()
    ]


def convergence_tables(rows: Rows) -> list[str]:
    named = [row | {"at": f"k = {row['k']}"} for row in rows]
    index = {"": "{dimension}-D", "cycle": "{cycle}"}
    nested = [row for row in named if "smoother" in row]
    told = [row for row in named if "cycle" in row]
    return [
        "Residual reduction per cycle, Jacobi 2/3, 2^k - 1 unknowns per direction:\n\n"
        + crossed(told, index, "at", "{factor:.4f}"),
        "Algebraic over discretization error after one nested F(1,1) in 2-D (work units):\n\n"
        + crossed(nested, {"smoother": "{smoother}"}, "at", "{error:.1e} ({work:.2f})"),
    ]


def line_tables(rows: Rows) -> list[str]:
    named = [row | {"at": f"k = {row['k']}"} for row in rows]
    index = {"smoother": "{smoother}", "eps": "{eps:.0e}"}
    head = "Residual reduction per V(1,1)-cycle, 2^k - 1 unknowns per direction:\n\n"
    return [head + crossed(named, index, "at", "{factor:.2g}")]


def ranks_tables(rows: Rows) -> list[str]:
    told = [row | {"of": f"{row['method']} {row['smoother']}".strip()} for row in rows]
    columns = {"": "{of}", "ranks": "{ranks}"}
    times = {"seconds, median": "{seconds_median:.3g}", "least": "{seconds_least:.3g}"}
    more = {"cycles": "{cycles}", "set-up, seconds": "{setup_median:.2f}"}
    solves = [row for row in told if "cycles" in row]
    products = [row for row in told if "cycles" not in row]
    head = "One product with the finest matrix:\n\n"
    return [listed(solves, columns | more | times), head + listed(products, columns | times)]


def ranks_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for smoother in [name for name in values(rows, "smoother") if name]:
        many = max(values(rows, "ranks"))
        own = where(rows, smoother=smoother, ranks=many)
        ours, rival = (find(own, method=name)["seconds_least"] for name in ("mgnet", "PCMG"))
        what = f"3-D Poisson on {many} ranks, {smoother}, against PETSc's PCMG"
        lines.append(Line(what, f"{ours:.2f} s", f"{rival:.2f} s", rival / ours))
        one = find(where(rows, smoother=smoother, ranks=1), method="mgnet")["seconds_least"]
        aimed = goal(targets, f"{smoother}: seconds of a solve on one rank")
        what = f"3-D Poisson, {smoother}, {many} ranks against one"
        lines.append(Line(what, f"{ours:.2f} s", f"{one:.2f} s", one / ours, *aimed))
    return lines


# Knots


def speed_tables(rows: Rows) -> list[str]:
    index = {"threads": "{threads}", "grid": "{grid}"}
    cell = "{ms:.3g} ({ratio_fused:.2f})"
    return [
        f"{case[0].upper()}{case[1:]}, milliseconds (multiples of mgnet's fused form):\n\n"
        + crossed(where(rows, case=case), index, "method", cell)
        for case in values(rows, "case")
    ]


def speed_lines(rows: Rows, targets: Rows) -> list[Line]:
    layer = [r for r in rows if r["case"].startswith("layer") and r["threads"] == 1]
    lines = []
    for peer, grid in (("efficient-kan", 128), ("FastKAN", 5), ("pykan", 128), ("Linear+SiLU", 5)):
        own = where(layer, grid=grid)
        if where(own, method=peer):
            ours, row = find(own, method="fused"), find(own, method=peer)
            starts = {"Linear+SiLU": "over Linear", "FastKAN": "over FastKAN's, grid 5, 1 thread"}
            aimed = f"time of the fused layer {starts.get(peer, '')}"
            judged = goal(targets, aimed) if peer in starts else ("-", None)
            what = f"layer, {grid} intervals, against {peer}"
            told = f"{ours['ms']:.2f} ms", f"{row['ms']:.2f} ms"
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


def estimators_tables(rows: Rows) -> list[str]:
    columns = {"": "{case}", "estimator": "{estimator}"}
    columns |= {"score": "{median:.4f} ({least:.4f} to {largest:.4f})", "measure": "{measure}"}
    return [listed(rows, columns | {"seconds": "{seconds:.2f}"})]


def estimators_lines(rows: Rows, targets: Rows) -> list[Line]:
    """Ratio: of what is missing to the score 1."""
    lines = []
    for case, target in zip(values(rows, "case"), targets, strict=True):
        own = where(rows, case=case)
        ours = next(row for row in own if row["estimator"].startswith("KAN"))
        rival = max((r for r in own if r is not ours), key=lambda row: row["median"])
        told = f"{ours['median']:.4f}", f"{rival['median']:.4f} ({rival['estimator']})"
        missing = (1.0 - rival["median"]) / (1.0 - ours["median"])
        what = f"{case}: {ours['measure']} (ratio of the distances to 1)"
        lines.append(Line(what, *told, missing, "not below", target["met"]))
    return lines


def pinn_tables(rows: Rows) -> list[str]:
    columns = {"": "{problem}", "seconds": "{asked:g}", "network": "{method}"}
    columns |= {"weights": "{weights}", "seeds": "{seeds}", "error": spread("error", ".1e")}
    columns |= {"loss": "{loss_median:.1e}", "steps": "{steps:.0f}", "failed": "{failed}"}
    return [listed(rows, columns)]


def pinn_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for problem in values(rows, "problem"):
        own = where(rows, problem=problem, shown=True)
        ours = find(own, method="KAN, nested")
        rival = lowest([row for row in own if row is not ours], "judged_median")
        aim = find(targets, name=problem)
        what = f"{problem}, {ours['asked']:g} s"
        lines.append(against(what, ours, rival, "judged", (aim["target"], aim["met"])))
    return lines


def newton_tables(rows: Rows) -> list[str]:
    told = [row | {"cell": row.get("note", "").split(":")[0]} for row in rows]
    for row in told:
        row["cell"] = row["cell"] or filled("{iterations_median:g} / {seconds_median:.3g}", row)
    index = {"network": "[{widths}]", "intervals": "{intervals}", "parameters": "{parameters}"}
    table = crossed(
        [row for row in told if row["method"] != "all"],
        index | {"damping": "{damping:g}"},
        "method",
        "{cell}",
    )
    named = "[{widths}] with {intervals} intervals"
    left = [filled(named, row) for row in rows if row["method"] == "all"]
    note = f"\n\nLeft out: {', '.join(left)}." if left else ""
    return [f"Iterations (median) / seconds with set-up:\n\n{table}{note}"]


def newton_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for target in targets:
        found = re.search(r"damping (\S+?),", target["name"])
        damping = float(found[1]) if found else 0.0
        what = f"[2,6,1], damping {damping:g}"
        told = target["measured"], "-", None, target["target"], target["met"]
        lines.append(Line(f"{what}: CG iterations with patches", *told))
        own = [row for row in where(rows, damping=damping) if "seconds_median" in row]
        for size in (min, max):  # of the systems that the other method could solve
            pairs = [
                (row, lowest(others, "seconds_median"))
                for row in where(own, method="V, patches")
                for others in [[r for r in own if same_system(r, row) and r is not row]]
                if others
            ]
            ours, rival = size(pairs, key=lambda pair: pair[0]["parameters"])
            mine, other = ours["seconds_median"], rival["seconds_median"]
            named = f"[{ours['widths']}], {ours['parameters']} parameters, damping {damping:g}"
            times = f"{mine:.3f} s", f"{other:.3f} s ({rival['method']})", other / mine
            lines.append(Line(f"{named}: seconds", *times))
    return lines


def same_system(one: Row, other: Row) -> bool:
    return all(one[key] == other[key] for key in ("widths", "intervals", "damping"))


def guarded_tables(rows: Rows) -> list[str]:
    index = {"": "{problem}", "smoother": "{smoother}"}
    cycles = [r for r in rows if "gain_median" in r and r["method"] != "fine sweeps"]
    named = [r | {"method": r["method"].split(",")[0]} for r in rows]
    failed = sum(row["failed"] for row in rows)
    return [
        "Loss of fine sweeps over loss of the cycles, equal seconds (above 1: cycles pay off):\n\n"
        + crossed(cycles, index, "method", spread("gain", ".2f")),
        f"Errors at the end, medians; {failed} runs failed:\n\n"
        + crossed(named, index, "method", "{error_median:.1e}"),
    ]


def guarded_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for problem in values(rows, "problem"):
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
    """The Adam of the lowest mean on each case, and all others with their gain over it."""
    tables = []
    for key, title in (("train", "the training points"), ("fine", "a fine grid")):
        told = []
        for case in values(rows, "case"):
            own = where(rows, case=case)
            best = lowest([r for r in own if r["method"].startswith("Adam")], f"{key}_mean")
            told.append(best | {"method": "best Adam", "gain": 1.0})
            for row in [row for row in own if not row["method"].startswith("Adam")]:
                told.append(row | {"gain": best[f"{key}_mean"] / row[f"{key}_mean"]})
        cell = f"{{{key}_median:.1e}} ({{gain:.3g}}x)"
        head = f"Mean squared error on {title}, medians (gain of the geometric mean over Adam's)"
        tables.append(f"{head}:\n\n" + crossed(told, {"": "{case}"}, "method", cell))
    return tables


def basis_lines(rows: Rows, targets: Rows) -> list[Line]:
    """The methods with a mean gain above 1."""
    lines = []
    for target in targets:
        mean = float(target["measured"].split()[1].rstrip("x,"))
        if mean >= 1.0:
            ours = target["measured"].split(" (")[0]
            told = ours, "best of nine runs of Adam", mean, target["target"], target["met"]
            lines.append(Line(f"{target['name']}: gain", *told))
    return lines


def ngd_tables(rows: Rows) -> list[str]:
    told = [row for row in rows if "accuracy_median" in row]
    index = {"": "{data}", "network": "{inputs}-{network}", "after": "{mark}"}
    table = crossed(told, index, "method", spread("accuracy", ".4f"))
    return [f"Held-out accuracy, each at its best rate (ep: epochs):\n\n{table}"]


def ngd_lines(rows: Rows, targets: Rows) -> list[Line]:
    """After the longest time, mgnet against the best of the others on any network."""
    lines = []
    for data in values(rows, "data"):
        timed = [r for r in where(rows, data=data) if r["mark"].endswith(" s")]
        last = max(values(timed, "mark"), key=lambda mark: float(mark.split()[0]))
        own = where(timed, mark=last)
        ours = [row for row in own if row["method"] in ("NGD", "Adam + N")]
        others = [row for row in own if row["method"] not in ("NGD", "Adam + N")]
        best, rival = (max(r, key=lambda row: row["accuracy_median"]) for r in (ours, others))
        told = [
            f"{row['accuracy_median']:.4f} ({row['method']} on {row['network']})"
            for row in (best, rival)
        ]
        ratio = (1.0 - rival["accuracy_median"]) / (1.0 - best["accuracy_median"])
        what = f"{data}: held-out accuracy after {last} (ratio of errors)"
        lines.append(Line(what, told[0], told[1], ratio))
    return lines


# Ranks


def samples_tables(rows: Rows) -> list[str]:
    columns = {"": "{case}", "unknowns": "{unknowns}", "1 rank": "{one_rank_s_least:.2f}"}
    columns |= {"2 ranks": "{all_ranks_s_least:.2f}", "ratio": "{ratio_least:.2f}"}
    columns |= {"ratio of medians": "{ratio_median:.2f}", "bits on both": "{bits}"}
    columns |= {"not spread": "{alone_s_least:.2f}", "ratio to it": "{gain:.2f}"}
    columns |= {"its result differs by": "{apart:.0e}"}
    told = [
        row
        | {"bits": "the same" if row["equal"] else "**differ**"}
        | {"gain": row["alone_s_least"] / row["all_ranks_s_least"]}
        for row in rows
    ]
    return ["Seconds of a solve, least of the rounds:\n\n" + listed(told, columns)]


def samples_lines(rows: Rows, targets: Rows) -> list[Line]:
    lines = []
    for row, target in zip(rows, targets, strict=True):
        told = f"{row['all_ranks_s_least']:.2f} s", f"{row['one_rank_s_least']:.2f} s (1 rank)"
        what = target["name"].removesuffix(" over 1")
        lines.append(Line(what, *told, row["ratio_least"], target["target"], target["met"]))
    return lines
