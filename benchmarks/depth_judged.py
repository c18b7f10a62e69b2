"""Tables and targets of the rows of `depth_vs_serial.py`, from combined runs."""

from __future__ import annotations

import json
from pathlib import Path

import saved

ONE_LEVEL, AUTO = "mgnet, one level", "mgnet, auto"


def fastest(rows: list[saved.Row], kind: str) -> saved.Row:
    """The fastest other method, or row of mgnet whose name has this ending."""
    chosen = [row for row in rows if row["method"].endswith(kind)]
    if kind == "rival":
        chosen = [row for row in rows if "mgnet" not in row["method"]]
    return min(chosen, key=lambda row: row["ms_least"])


def ratios(above: saved.Row, below: saved.Row) -> tuple[float, float]:
    """Ratios of the smallest and of the median times."""
    return above["ms_least"] / below["ms_least"], above["ms_median"] / below["ms_median"]


def of_choices(rows: list[saved.Row]) -> float:
    """Time of "auto" over that of the better of what it chooses from, the lower of two ratios."""
    named = {row["method"]: row for row in rows}
    first = next(row for row in rows if row["method"].endswith("c + 1"))  # its factor is auto's
    best = [
        min(first[key], named[ONE_LEVEL][key]) / named[AUTO][key]
        for key in ("ms_least", "ms_median")
    ]
    return 1.0 / max(best)


def table(rows: list[saved.Row]) -> str:
    head = f"{'':<27}{'least ms':>10}{'median ms':>11}{'times':>8}{'work':>7}"
    lines = [f"{head}{'output':>10}{'gradients':>11}"]
    for row in rows:
        line = f"  {row['method']:<25}{row['ms_least']:>10.2f}{row['ms_median']:>11.2f}"
        work = f"{row['work']:.2f}" if "work" in row else "-"
        line += f"{row['times']:>8.2f}{work:>7}"
        lines.append(f"{line}{row['output_error']:>10.0e}{row['gradient_error']:>11.0e}")
    named = {row["method"]: row for row in rows}
    eagerly, one = named["eager loop"], fastest(rows, "c + 1")
    for best in (one, fastest(rows, "c + 0")):
        short = best["method"][7:]
        told = [
            f"{name} / {short}: {a:.2f} (medians {b:.2f})"
            for name, row in (("best rival", fastest(rows, "rival")), ("eager", eagerly))
            for a, b in [ratios(row, best)]
        ]
        lines.append("  " + "; ".join(told))
    for name in (ONE_LEVEL, AUTO):
        a, b = ratios(named[name], eagerly)
        lines.append(f"  {name[7:]} / eager: {a:.2f} ({b:.2f})")
    a, b = ratios(one, named[ONE_LEVEL])
    lines.append(f"  {one['method'][7:]} / one level: {a:.2f} ({b:.2f})")
    lines.append(f"  auto / the better of its choices: {of_choices(rows):.2f}")
    ratio = one["ms_least"] / eagerly["ms_least"] / one["work"]
    lines.append(f"  time over eager / counted work: {ratio:.2f}  (c + k: cascade, then k cycles)")
    return "\n".join(lines)


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    """Targets for the smallest times on one thread, for both kinds of weights."""
    found = [*auto_targets(rows), *march_target(rows)]
    one_thread = [row for row in rows if row["threads"] == 1]
    for case in dict.fromkeys(row["case"] for row in one_thread):
        starts = dict.fromkeys(row["start"] for row in one_thread if row["case"] == case)
        tables = [
            [row for row in one_thread if (row["case"], row["start"]) == (case, start)]
            for start in starts
        ]
        found += targets_of(case, tables)
    return found


def groups(rows: list[saved.Row]) -> dict[tuple[str, int, str], list[saved.Row]]:
    """The rows of each case, number of threads and kind of weights."""
    found: dict[tuple[str, int, str], list[saved.Row]] = {}
    for row in rows:
        found.setdefault((row["case"], row["threads"], row["start"]), []).append(row)
    return found


def auto_targets(rows: list[saved.Row]) -> list[saved.Row]:
    worst = max((of_choices(own), *about) for about, own in groups(rows).items())
    told = f"{worst[0]:.2f} ({worst[1]}, {worst[2]} threads)"
    name = "auto over the better of its choices, the worst of all rows"
    return [saved.target(name, "at most 1.1", told, worst[0] <= 1.1)]


def march_target(rows: list[saved.Row]) -> list[saved.Row]:
    """Whether a cycle ever beats the compiled march over the layers."""
    pairs = [
        (ratios(fastest(own, "c + 1"), fastest(own, "one level"))[0], *about)
        for about, own in groups(rows).items()
        if about[1] > 1
    ]
    if not pairs:
        return []
    best = min(pairs)
    name = "one cycle over one level on two threads, the best row"
    return [saved.target(name, "below 1", f"{best[0]:.2f} ({best[1]})", best[0] < 1.0)]


def targets_of(case: str, tables: list[list[saved.Row]]) -> list[saved.Row]:
    """Of one case, a table per kind of weights."""

    def told(name: str, goal: float, values: list[float], at_least: bool) -> saved.Row:
        met = min(values) >= goal if at_least else max(values) <= goal
        word = "at least" if at_least else "at most"
        measured = ", ".join(f"{value:.2f}" for value in values)
        return saved.target(f"{case}: {name}", f"{word} {goal:g}", measured, met)

    def over_eager(name: str) -> list[float]:
        return [ratios(fastest(rows, name), fastest(rows, "eager loop"))[0] for rows in tables]

    gains = [ratios(fastest(rows, "rival"), fastest(rows, "c + 1"))[0] for rows in tables]
    found = [told("one level over eager", 1.1, over_eager("one level"), False)]
    for start, goal in (("width 16, 1024", 2.5), ("width 32, 1024", 1.3)):
        if case.startswith(start):
            found.append(told("best other method over one cycle", goal, gains, True))
    if case.startswith("width 32, 128"):
        eager_gains = [1.0 / value for value in over_eager("c + 1")]
        found.append(told("eager over one cycle", 1.5, eager_gains, True))
        found.append(told("auto over eager", 1.0, over_eager("auto"), False))
    if "channels" in case:
        pairs = zip(over_eager("c + 1"), tables, strict=True)
        shares = [value / fastest(rows, "c + 1")["work"] for value, rows in pairs]
        found.append(told("time over eager / counted work, one cycle", 1.1, shares, False))
    return found


def methods(rows: list[saved.Row]) -> set[str]:
    return {row["method"] for row in rows}


def told_of(case: str, threads: int) -> str:
    return f"{case}, {threads} thread{'s' * (threads > 1)}"


def keep(folder: Path, setting: str, rows: list[saved.Row], cases: list[str]) -> None:
    """Save a table beside those that are there, in the place of its own former one."""
    path = folder / "depth_vs_serial.json"
    before = groups(json.loads(path.read_text())["rows"] if path.is_file() else [])
    before = {about: own for about, own in before.items() if {AUTO, ONE_LEVEL} <= methods(own)}
    every = list(before | groups(rows))
    every = sorted(
        [about for about in every if about[0] in cases],
        key=lambda about: (cases.index(about[0]), about[1], about[2] != "smooth"),
    )
    whole = [row for about in every for row in (before | groups(rows))[about]]
    lines = [setting, saved.heading()]
    for (case, threads, start), own in groups(whole).items():
        lines.append(f"\n{told_of(case, threads)}, {start} weights\n{table(own)}")
    saved.save(folder, "depth_vs_serial", setting, whole, targets(whole), "\n".join(lines))
