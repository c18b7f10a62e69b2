"""docs/benchmarks.md, made of the results that are saved in benchmarks/results.

    python benchmarks/page/make.py

Text on a benchmark stands in benchmarks/notes/<name>.md. There `{{ key form | a=b; c=d }}` is the
figure `key` of the one saved row in which `a` is `b` and `c` is `d`, in Python's format `form`. In
notes/choice.md, which is about all of them, `benchmark` is one of these conditions.
The figures are drawn when the pages are built (docs/hooks.py).
"""

import re
import statistics
import sys
from pathlib import Path
from typing import Any

import drawing
from cells import Row, find, markdown, values, where
from sections import SECTIONS
from tables import Line, number

BENCHMARKS = Path(__file__).resolve().parent.parent
sys.path.append(str(BENCHMARKS))
import pinn_tables  # noqa: E402
import saved  # noqa: E402

PAGE, NOTES = BENCHMARKS.parent / "docs" / "benchmarks.md", BENCHMARKS / "notes"
OURS = pinn_tables.TITLES["nested"]
RENAMED = {  # pattern -> what the same is called now; some results were saved before
    r"^Fixed\(": "FixedCycles(",
    r"^Tolerance\(": "CyclesToTolerance(",
    r"^Adaptive\(": "AdaptiveCycles(",
    r"^pulls$": "vjps",
    r"\bno gates\b": "fixed steps",
    r"\bgates\b": "learnable steps",
}
HEAD = """# Benchmarks

<!-- Made by `python benchmarks/page/make.py`; edit benchmarks/results and benchmarks/notes. -->

Every table and figure on this page is made of what the scripts in `benchmarks/` saved. `make bench`
runs them all in small (some ten minutes, into `out/bench`); `make bench FULL=1` repeats what is
published here (many hours) and makes this page anew. Medians stand with the least and the largest
of the seeds in brackets. A target that was not reached is printed as missed.
"""


def pinn_rows(runs: list[Row]) -> list[Row]:
    """A row per problem, seconds and network: medians over the seeds, and what was aimed at."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for run in runs:
        key = (run["title"], run["asked"], run["row"], run["network"])
        groups.setdefault(key, []).append(run)
    rows = []
    for (problem, asked, name, network), own in groups.items():
        judged = "loss" if "loss" in own[0]["target"] else "error"
        goal = float(own[0]["target"].removeprefix("loss ").split()[0])
        row: Row = {"problem": problem, "asked": asked, "method": pinn_tables.TITLES[name]}
        row |= {"network": network, "weights": own[0]["weights"], "seeds": len(own)}
        for key, source in (("error", "error"), ("loss", "loss"), ("judged", judged)):
            found = [run[source] for run in own]
            row |= {f"{key}_median": statistics.median(found)}
            row |= {f"{key}_least": min(found), f"{key}_largest": max(found)}
        row |= {"steps": statistics.median(run["steps"] for run in own), "goal": goal}
        rows.append(row | {"failed": sum(not run[judged] <= 10.0 * goal for run in own)})
    problems, names = values(runs, "title"), list(pinn_tables.TITLES.values())
    latest = {(row["problem"], row["asked"], row["method"]): row["network"] for row in rows}
    for row in rows:
        asked = shown(where(rows, problem=row["problem"]))
        network = latest[row["problem"], asked, row["method"]] if row["asked"] == asked else None
        row["shown"] = row["network"] == network

    def place(row: Row) -> tuple[int, float, int]:
        return problems.index(row["problem"]), row["asked"], names.index(row["method"])

    return sorted(rows, key=place)


def shown(rows: list[Row]) -> float:
    """The longest seconds of a problem with all seeds of our network, and with a rival."""
    with_rival = [asked for asked in values(rows, "asked") if len(where(rows, asked=asked)) > 1]
    seeds = {row["asked"]: row["seeds"] for row in where(rows, method=OURS)}
    asked = [asked for asked in with_rival if asked in seeds]
    return max(asked, key=lambda asked: (seeds[asked], asked))


def pinn() -> Row:
    """The runs of benchmarks/pinn.py, which are kept one by one, in the form of the others."""
    runs = pinn_tables.read()
    rows, targets = pinn_rows(runs), []
    for problem in values(runs, "title"):
        best = find(rows, problem=problem, method=OURS, shown=True)
        goal = next(run["target"] for run in runs if run["title"] == problem)
        measured = f"{best['judged_median']:.1e} in {best['asked']:g} s ({OURS})"
        met = best["judged_median"] <= best["goal"]
        targets.append(saved.target(problem, goal, measured, met))
    told = "error: relative, of u in L2; mean squared for the regression, judged by its loss where "
    told += "the target is a loss"
    return {
        "command": "OMP_NUM_THREADS=1 python benchmarks/pinn.py --save",
        "setting": f"{told}; failed: above 10 times the target",
        "machine": "; ".join(dict.fromkeys(run["machine"] for run in runs)),
        "versions": {},
        "rows": rows,
        "targets": targets,
    }


def renamed(result: Row) -> Row:
    """A saved result with the names that its methods have now."""

    def now(text: str) -> str:
        for before, after in RENAMED.items():
            text = re.sub(before, after, text)
        return text

    rows = [{now(k): now(v) if k == "method" else v for k, v in r.items()} for r in result["rows"]]
    targets = [target | {"name": now(target["name"])} for target in result["targets"]]
    return result | {"rows": rows, "targets": targets}


def results() -> dict[str, Row]:
    """All that is saved, in the order of the page; what has no section of its own comes last."""
    there = {file.stem for file in saved.RESULTS.glob("*.json")}
    names = [name for name in SECTIONS if name in there or name == "pinn"]
    names += sorted(there - set(names))
    found = {name: renamed(saved.read(name) or {}) for name in names if name != "pinn"}
    return {name: pinn() if name == "pinn" else found[name] for name in names}


def where_measured(result: Row) -> str:
    told = result["machine"]
    if isinstance(told, dict):
        threads = f"{told['threads']} thread{'' if told['threads'] == 1 else 's'}"
        told = f"{told['cores']} cores, {told['architecture']}, {threads}"
    return ", ".join([told, *(f"{name} {value}" for name, value in result["versions"].items())])


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def summary(found: dict[str, Row]) -> str:
    heads = ["", "ours", "best rival", "ratio", "target"]
    lines: list[list[str]] = []
    for name, section in SECTIONS.items():
        told: list[Line] = []
        if name in found:
            told = section.summary(found[name]["rows"], found[name]["targets"])
        if told:
            lines.append([f"**[{section.title}](#{anchor(section.title)})**", "", "", "", ""])
        for line in told:
            ratio = "-"
            if line.ratio is not None:
                ratio = f"{line.ratio:.2g}" if line.ratio < 100 else f"{line.ratio:.0f}"
            target = "-" if line.met is None else f"{line.target}: {verdict(line.met)}"
            lines.append([line.what, line.ours, line.rival, ratio, target])
    return markdown(heads, lines)


def anchor(title: str) -> str:
    """As the page's own table of contents makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def looked_up(text: str, rows: list[Row]) -> str:
    """A note with its figures."""

    def figure(match: re.Match) -> str:
        key, form, wanted = match.groups()
        pairs = [pair.strip().split("=", 1) for pair in wanted.split(";")]
        own = [row for row in rows if all(str(row.get(k)).lower() == v.lower() for k, v in pairs)]
        if len(own) != 1:
            raise LookupError(f"{match[0]} fits {len(own)} saved rows; it must fit one")
        return format(own[0][key], form)

    return re.sub(r"\{\{ (\w+) (\S+) \| (.+?) \}\}", figure, text)


def note(name: str, rows: list[Row]) -> str:
    file = NOTES / f"{name}.md"
    return looked_up(file.read_text(), rows).strip() if file.is_file() else ""


def plain_table(rows: list[Row]) -> str:
    """All columns but the part; medians with their spread where that was saved."""

    def cell(row: Row, key: str) -> str:
        value = row.get(key, "-")
        if isinstance(value, bool) or not isinstance(value, float):
            return str(value)
        ends = [row.get(key.replace("_median", f"_{end}")) for end in ("least", "largest")]
        if None in ends or not key.endswith("_median"):
            return f"{value:.3g}"
        return f"{value:.2g} ({ends[0]:.2g} to {ends[1]:.2g})"

    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "part"]
    shown = [key for key in keys if not key.endswith(("_least", "_largest"))]
    heads = [key.removesuffix("_median").replace("_", " ") for key in shown]
    return markdown(heads, [[cell(row, key) for key in shown] for row in rows])


def part(name: str, result: Row) -> str:
    """The section of one benchmark."""
    section, rows = SECTIONS.get(name), result["rows"]
    title = section.title if section else name.replace("_", " ").capitalize()
    told = [f"## {title}"]
    if section:
        told.append(section.compared)
    told.append(f"    {result['command']}")
    told.append(f"{result.get('setting', '')}. {where_measured(result)}.".removeprefix(". "))
    if section:
        told += section.tables(rows)
        told.append(f"![{title}: {section.caption}](pictures/benchmark-{name}.svg)")
    else:
        parts = dict.fromkeys(row.get("part") for row in rows)
        told += [plain_table([row for row in rows if row.get("part") == each]) for each in parts]
    for target in result["targets"]:
        start = "\n" if told[-1].startswith("- ") else ""
        goal, measured = number(target["target"]), number(target["measured"])
        line = f"- {target['name']}: target {goal}; measured {measured}: "
        line += verdict(target["met"])
        if start:
            told[-1] += f"\n{line}"
        else:
            told += ["Targets:", line]
    text = note(name, rows)
    if text:
        told.append(text)
    if (saved.RESULTS / f"{name}.txt").is_file():
        snippet = f'--8<-- "benchmarks/results/{name}.txt"'
        told.append(f'??? note "As printed, with all rows"\n\n    ```text\n    {snippet}\n    ```')
    return "\n\n".join(told)


def choice(found: dict[str, Row]) -> str:
    """Which method for which problem: rows of several benchmarks."""
    rows = [{"benchmark": name} | row for name, result in found.items() for row in result["rows"]]
    return f"## Which method for which problem\n\n{note('choice', rows)}"


def page() -> str:
    found = results()
    told = [HEAD, choice(found), "## Ours and the best rival"]
    told += ["Ratio: how many times better we are than the rival, below 1 the rival is ahead."]
    told += [summary(found), *(part(name, result) for name, result in found.items())]
    for name, section in SECTIONS.items():
        if name not in found and section.absent:
            told.append(f"## {section.title}\n\n{section.compared}\n\n{section.absent}")
    return "\n\n".join(text.strip("\n") for text in told) + "\n"


def pictures() -> dict[str, str]:
    """Name -> SVG."""
    found = results()
    return {
        name: drawing.svg(section.draw, found[name]["rows"])
        for name, section in SECTIONS.items()
        if name in found
    }


if __name__ == "__main__":
    PAGE.write_text(page())
