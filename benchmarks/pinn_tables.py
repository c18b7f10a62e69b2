"""Runs of benchmarks/pinn.py on disk, a line of JSON each, and their tables."""

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
RUNS, TABLES = RESULTS / "pinn.jsonl", RESULTS / "pinn.txt"
TITLES = {
    "nested": "KAN, nested",
    "at once": "KAN, fine at once",
    "LM": "tanh MLP, LM",
    "Broyden": "tanh MLP, Broyden",
}


class Run(NamedTuple):
    """Figures of one seed; `pinn_regression.py` defines error and losses of the regression."""

    weights: int
    steps: int
    took: float
    error: float
    loss: float
    second_loss: float


def read() -> list[dict[str, Any]]:
    """All runs that were kept."""
    return [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.is_file() else []


def store(run: dict[str, Any]) -> None:
    """Append a run."""
    with RUNS.open("a") as file:
        file.write(json.dumps(run) + "\n")


def tables(runs: list[dict[str, Any]], save: bool) -> str:
    """One for each problem, network and seconds."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["problem"], run["asked"]), []).append(run)
    machines = dict.fromkeys(run["machine"] for run in runs)
    text = "\n".join([*machines, "", *(table(of_problem) for of_problem in groups.values())])
    if save:
        TABLES.write_text(text)
    return text


def table(runs: list[dict[str, Any]]) -> str:
    first, regression = runs[0], runs[0]["problem"] == "regression"
    heads = ("mean squared error, targets", "in [0, 1]", "as they are", "held out")
    if not regression:
        heads = ("", "relative L2 error", "loss, 64 x 64", "256 x 256")
    lines = [
        f"{first['title']}; target {first['target']}; here {first['asked']:g} s; "
        f"{first['classical']}",
        f"{'':<18}{heads[0]:^14} {heads[1]:^26} {heads[2]:^17} {heads[3]:>9}"
        if not regression
        else f"{heads[0]:<32} {heads[1]:^26} {heads[2]:^17} {heads[3]:>9}",
        f"{'':<18}{'weights':>8}{'seeds':>6} {'median':>8} {'least':>8} {'largest':>8} "
        f"{'median':>8} {'largest':>8} {'median':>9} {'steps':>6} {'seconds':>8} {'failed':>7}",
    ]
    judged = "loss" if "loss" in first["target"] else "error"
    limit = 10.0 * float(first["target"].removeprefix("loss ").split()[0])
    networks = dict.fromkeys((run["row"], run["network"]) for run in runs)
    medians = {}
    for row, network in networks:
        own = [run for run in runs if (run["row"], run["network"]) == (row, network)]
        errors, losses = (sorted(run[key] for run in own) for key in ("error", "loss"))
        second, steps, took = (
            statistics.median(run[key] for run in own) for key in ("second_loss", "steps", "took")
        )
        failed = sum(not run[judged] <= limit for run in own)
        medians[row, network] = statistics.median(run[judged] for run in own)
        lines.append(
            f"{TITLES[row]:<18}{own[0]['weights']:>8}{len(own):>6} "
            f"{statistics.median(errors):>8.1e} {errors[0]:>8.1e} {errors[-1]:>8.1e} "
            f"{statistics.median(losses):>8.1e} {losses[-1]:>8.1e} {second:>9.1e} "
            f"{steps:>6.0f} {took:>8.1f} {failed:>7}"
        )
    for one in dict.fromkeys(network for _, network in networks):
        titles = ", ".join(TITLES[row] for row, network in networks if network == one)
        lines.append(f"  {titles}:\n    {one}")
    least = min(medians, key=lambda key: medians[key])
    met = "met" if 10.0 * medians[least] <= limit else "missed"
    lines.append(f"lowest median {judged}: {TITLES[least[0]]}, {medians[least]:.1e}; target {met}")
    return "\n".join(lines) + "\n"
