"""Regression on rough functions of one input in a smooth one, and on what has no such form.

    OMP_NUM_THREADS=1 python benchmarks/rough_compositions.py [--cases one-sum noise million
        two-sums field] [--methods multilevel lightgbm ...] [--seeds 1 2 3 4 5] [--seconds 20]
        [--peers PATH] [--tune] [--save]

Targets are those of rough_targets.py: y = sin(s) with s a sum of rough functions of six inputs (32
modes and bumps 0.01 wide each), 40000 rows, alone, with noise and with 1e6 rows; two interacting
sums of four inputs; and a random field that is not a composition. The multilevel KAN has the form
of the first, and so have the link models, which are additive but for one outer function. Errors are
RMSE over 10000 held-out rows against values without noise; the deviation of y is 1.

Every run has the same seconds of a processor, on one thread; some end earlier by themselves.
Settings of other methods, and with noise also those of mgnet, were chosen by their held-out error
on seed 0, with the same seconds: `--tune` tries those of rough_settings.py and prints the best. A
seed draws target, rows and starts.

PATH is a folder with lightgbm, xgboost and catboost, `pip install --target PATH lightgbm xgboost
catboost`; without it, and without R, their rows are left out. With --save every run is appended to
results/rough_compositions.jsonl (those of --tune to results/rough_settings.jsonl); runs that are
there are not repeated, and the table uses all of them.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import saved
import torch
from rough_settings import CASES, GENERAL, METHODS, NOISY, OURS, Settings

SETTING = (
    "error: held-out RMSE against values without noise, of a target of deviation 1; processor "
    "seconds of one thread"
)
Run = dict[str, Any]


def clock() -> float:
    """Processor seconds of this process and of those it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def run(case: str, name: str, seed: int, seconds: float, settings: Settings) -> Run:
    data = CASES[case].draw(seed)
    began = clock()
    predict = METHODS[name].fit(data, seconds, seed, **settings)
    spent = clock() - began
    few = slice(0, len(data.x_held))  # of the training rows, for their error
    errors = [
        float((predict(x) - y).square().mean().sqrt())
        for x, y in ((data.x_held, data.y_held), (data.x[few], data.y[few]))
    ]
    return {"error": errors[0], "training": errors[1], "seconds": spent}


def groups(runs: list[Run]) -> dict[tuple[str, str, float], list[Run]]:
    """By case, method and seconds, in the order of the settings."""
    found: dict[tuple[str, str, float], list[Run]] = {}
    for each in runs:
        found.setdefault((each["case"], each["method"], each["asked"]), []).append(each)
    cases, names = list(CASES), list(METHODS)

    def place(key: tuple[str, str, float]) -> tuple[int, int, float]:
        return cases.index(key[0]), names.index(key[1]), key[2]

    return {key: found[key] for key in sorted(found, key=place)}


def rows_of(runs: list[Run]) -> list[saved.Row]:
    """Medians over the seeds."""
    rows = []
    for (case, name, asked), own in groups(runs).items():
        errors = [each["error"] for each in own]
        row = {"target": CASES[case].title, "method": METHODS[name].title}
        row |= {"kind": METHODS[name].kind, "seeds": len(own), "asked": asked}
        row |= {"error_median": statistics.median(errors)}
        row |= {"error_least": min(errors), "error_largest": max(errors)}
        row |= {"training_median": statistics.median(each["training"] for each in own)}
        row |= {"seconds_median": statistics.median(each["seconds"] for each in own)}
        rows.append(row)
    return rows


def ratios(runs: list[Run], case: str, asked: float, name: str) -> list[tuple[float, str]]:
    """For each seed, the error of the best general method over that of mgnet, and its name."""
    found = []
    own = [r for r in runs if r["case"] == case and r["asked"] == asked]
    for ours in sorted((r for r in own if r["method"] == name), key=lambda r: r["seed"]):
        others = [
            (r["error"], r["method"])
            for r in own
            if r["seed"] == ours["seed"] and METHODS[r["method"]].kind == GENERAL
        ]
        if others:
            error, best = min(others)
            found.append((error / ours["error"], best))
    return found


def targets_of(runs: list[Run], asked: float) -> list[saved.Row]:
    """Those of the first and of the fourth target, for each of our rows."""
    told = []
    for name in (name for name, method in METHODS.items() if method.kind == OURS):
        title = METHODS[name].title
        about = ("one-sum", name, asked)
        errors = [r["error"] for r in runs if (r["case"], r["method"], r["asked"]) == about]
        if errors:
            median, largest = statistics.median(errors), max(errors)
            measured = f"{median:.1e}, {largest:.1e} of {len(errors)} seeds"
            goal = f"median at most 1e-3, none above 5e-3, in {asked:g} s"
            met = median <= 1e-3 and largest <= 5e-3
            told.append(saved.target(f"error, one sum, {title}", goal, measured, met))
        for case, least, middle in (("one-sum", 50.0, 200.0), ("two-sums", 5.0, 5.0)):
            found = ratios(runs, case, asked, name)
            if not found:
                continue
            values = [value for value, _ in found]
            best = ", ".join(dict.fromkeys(METHODS[rival].title for _, rival in found))
            measured = f"{min(values):.3g} at least, {statistics.median(values):.3g} in the median"
            measured += f" of {len(values)} seeds; best other method: {best}"
            goal = f"at least {least:g} times on every seed, {middle:g} in the median"
            met = min(values) >= least and statistics.median(values) >= middle
            about = (
                f"factor below the error of the best general method, {CASES[case].title}, {title}"
            )
            told.append(saved.target(about, goal, measured, met))
    return told


def table(rows: list[saved.Row], targets: list[saved.Row]) -> str:
    lines = []
    for title in dict.fromkeys(row["target"] for row in rows):
        lines += [
            f"{title:<38}{'kind':<22}{'seeds':>5}  {'error, median':>13} {'least':>8} "
            f"{'largest':>8} {'training':>9} {'seconds':>8}"
        ]
        lines += [
            f"  {row['method']:<36}{row['kind']:<22}{row['seeds']:>5}  {row['error_median']:>13.1e}"
            f" {row['error_least']:>8.1e} {row['error_largest']:>8.1e} "
            f"{row['training_median']:>9.1e} {row['seconds_median']:>8.1f}"
            for row in sorted(rows, key=lambda row: row["error_median"])
            if row["target"] == title
        ]
        lines.append("")
    lines += [
        f"{t['name']}, {t['target']}: {t['measured']}{'' if t['met'] else ', missed'}"
        for t in targets
    ]
    return "\n".join(lines)


def measure(runs: list[Run], about: Run, path: Path | None) -> None:
    """One run, kept at once; a method whose library is not there is left out."""
    try:
        found = run(
            about["case"], about["method"], about["seed"], about["asked"], about["settings"]
        )
    except ImportError as missing:
        print(f"{about['method']}, left out: {missing}", flush=True)
        return
    runs.append({**about, **found})
    print(json.dumps(runs[-1]), flush=True)
    if path is not None:
        saved.keep_run(path, runs[-1])


def tune(told: argparse.Namespace) -> None:
    """Try the choices on seed 0; print the best of each method."""
    path = saved.RESULTS / "rough_settings.jsonl"
    runs = saved.kept_runs(path) if told.save else []
    for case in told.cases:
        for name in told.methods:
            choices = METHODS[name].choices
            for settings in NOISY.get(name, choices) if case == "noise" else choices:
                about = {"case": case, "method": name, "seed": 0, "asked": told.seconds}
                about |= {"settings": json.loads(json.dumps(settings))}
                if not saved.found_run(runs, about):
                    measure(runs, about, path if told.save else None)
    for (case, name, asked), own in groups(runs).items():
        best = min(own, key=lambda each: each["error"])
        print(f"{case}, {name}, {asked:g} s, {len(own)} tried: {best['settings']} "
              f"{best['error']:.2e}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--seconds", type=float, default=20.0, help="of a processor, per run")
    parser.add_argument("--peers", metavar="PATH", help="where the boosting libraries are")
    parser.add_argument("--tune", action="store_true", help="try settings on seed 0")
    parser.add_argument("--save", action="store_true", help="keep the runs, and the table")
    told = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if told.peers:
        sys.path.append(told.peers)  # at the end, so that NumPy is the installed one
    if told.tune:
        tune(told)
        return
    path = saved.RESULTS / "rough_compositions.jsonl"
    runs = saved.kept_runs(path) if told.save else []
    for case in told.cases:
        for seed in told.seeds:
            for name in told.methods:
                settings = json.loads(json.dumps(METHODS[name].settings(case)))
                about = {"case": case, "method": name, "seed": seed, "asked": told.seconds}
                about |= {"settings": settings}
                if not saved.found_run(runs, about):
                    measure(runs, about, path if told.save else None)
    rows, targets = rows_of(runs), targets_of(runs, told.seconds)
    text = "\n".join([saved.place(), "", table(rows, targets)])
    print(text)
    if told.save:
        result = {"setting": SETTING, "machine": saved.machine(), "versions": saved.versions()}
        result |= {"rows": rows, "targets": targets}
        saved.save_table("rough_compositions", result, text)


if __name__ == "__main__":
    main()
