"""Generate docs/benchmarks.md from the results that are saved in benchmarks/results.

    python benchmarks/page/make.py

Notes on a benchmark are in benchmarks/notes/<name>.md. There `{{ key form | a=b; c=d }}` is the
figure `key` of the one saved row in which `a` is `b` and `c` is `d`, in Python's format `form`. In
notes/choice.md, which is about all of them, `benchmark` is one of these conditions.
The figures are drawn when the pages are built (docs/hooks.py). Benchmarks that were saved before
the builds of the current release are marked.
"""

import re
import statistics
import sys
from pathlib import Path
from typing import Any

import drawing
from cells import Row, find, markdown, values, where
from sections import SECTIONS
from summary import headlines
from tables import Line, number

BENCHMARKS = Path(__file__).resolve().parent.parent
sys.path.append(str(BENCHMARKS))
import pinn_tables  # noqa: E402
import saved  # noqa: E402

PAGE, NOTES = BENCHMARKS.parent / "docs" / "benchmarks.md", BENCHMARKS / "notes"
OURS = pinn_tables.TITLES["nested"]
RELEASE, BUILT, MARK = "0.1.0", "2026-12-01", "†"  # its builds begin on this day
PINN_MEASURED = "2026-11-22"  # the runs of pinn.jsonl have no date
RENAMED = {  # pattern -> present name; some results were saved before
    r"^Fixed\(": "FixedCycles(",
    r"^Tolerance\(": "CyclesToTolerance(",
    r"^Adaptive\(": "AdaptiveCycles(",
    r"^pulls$": "vjps",
    r"\bno gates\b": "fixed steps",
    r"\bgates\b": "learnable steps",
    r"\b(\d+) rounds in turns\b": r"\1 alternating rounds",
    r"\bseconds of the processor\b": "processor seconds",
    r"\bevery rival's\b": "that of every other method",
    r"\bbest general rival\b": "best general method",
    r"\bbest of the [r]ivals": "best other method",
    r"\bbest rival\b": "best other method",
    r"\bdiscretisation\b": "discretization",
    r"\bover ours\b": "over that of mgnet",
    r"\bwe are not slower than\b": "mgnet is not slower than",
    r"\bthat we solve\b": "that mgnet solves",
}
HEAD = f"""# Benchmarks

<!-- Made by `python benchmarks/page/make.py`; edit benchmarks/results and benchmarks/notes. -->

Every table and figure on this page is generated from saved results of the scripts in `benchmarks/`.
`make bench` runs reduced versions of all scripts (about ten minutes, into `out/bench`); `make bench
FULL=1` repeats the published runs (many hours) and generates this page again. The smallest and the
largest value over the seeds follow the median in brackets. Missed targets are printed as missed.
{MARK} marks benchmarks that were measured before the builds of release {RELEASE} began ({BUILT}).
"""
LOSSES = """mgnet is slower or less accurate than other methods in these cases: convolutional
layers by MGRIT in one process, spline layers compared with plain linear layers of the same width,
linear systems with fewer than about 20 000 unknowns, smooth differential equations by KANs compared
with tanh networks, and tables whose target jumps. The sections below have the figures.
"""


def pinn_rows(runs: list[Row]) -> list[Row]:
    """A row per problem, seconds and network: medians over the seeds, and the target."""
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
    """The longest seconds of a problem with all seeds of mgnet's network, and with a peer."""
    with_peer = [asked for asked in values(rows, "asked") if len(where(rows, asked=asked)) > 1]
    seeds = {row["asked"]: row["seeds"] for row in where(rows, method=OURS)}
    asked = [asked for asked in with_peer if asked in seeds]
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
        "measured": PINN_MEASURED,
        "machine": "; ".join(dict.fromkeys(run["machine"] for run in runs)),
        "versions": {},
        "rows": rows,
        "targets": targets,
    }


def renamed(result: Row) -> Row:
    """A saved result with the present names of methods and settings."""

    def now(text: str) -> str:
        for before, after in RENAMED.items():
            text = re.sub(before, after, text)
        return text

    rows = [{now(k): now(v) if k == "method" else v for k, v in r.items()} for r in result["rows"]]
    targets = [
        target | {key: now(str(target[key])) for key in ("name", "measured")}
        for target in result["targets"]
    ]
    setting = now(result.get("setting", ""))
    return result | {"rows": rows, "targets": targets, "setting": setting}


def results() -> dict[str, Row]:
    """All saved results, in the order of the page; those without a section come last."""
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


def mark(result: Row) -> str:
    """A sign after the title of a benchmark that was measured before the builds of the release."""
    return f" {MARK}" if result["measured"] < BUILT else ""


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def summary(found: dict[str, Row]) -> str:
    heads = ["", "mgnet", "best other method", "ratio", "target"]
    lines: list[list[str]] = []
    for name, section in SECTIONS.items():
        told: list[Line] = []
        if name in found:
            told = section.summary(found[name]["rows"], found[name]["targets"])
        if told:
            title = f"**[{section.title}](#{anchor(section.title)})**{mark(found[name])}"
            lines.append([title, "", "", "", ""])
        for line in told:
            ratio = "-"
            if line.ratio is not None:
                ratio = f"{line.ratio:.2g}" if line.ratio < 100 else f"{line.ratio:.0f}"
            target = "-" if line.met is None else f"{line.target}: {verdict(line.met)}"
            lines.append([line.what, line.ours, line.rival, ratio, target])
    return markdown(heads, lines)


def anchor(title: str) -> str:
    """The anchor of a title in the page's table of contents."""
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
    """All columns except the part; medians with their spread if that was saved."""

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
    if mark(result):
        told[-1] += f" Measured on {result['measured']}, before the builds of {RELEASE} {MARK}."
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
    told = [HEAD, "## Summary", headlines(found, {name: mark(r) for name, r in found.items()})]
    told += [LOSSES, choice(found), "## Compared with other libraries", note("peers", [])]
    told += ["## mgnet and the best other method"]
    told += ["The ratio is how many times better mgnet is; below 1 the other method is better."]
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
