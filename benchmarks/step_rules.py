"""Step rules of Levenberg-Marquardt on networks: how far, after so many Jacobians and seconds.

    OMP_NUM_THREADS=1 python benchmarks/step_rules.py [--seeds 1 2 3 4 5] [--cycles 200] [--save]

Four problems: a curve with 1-30-1 and a surface with 2-16-16-1 (tanh, data without noise),
Poisson's equation with 2-14-14-1 at 600 points that stay, and cos(8 x) from 60 values in float32
with 1-20-1. A seed draws the parameters. Objectives 1/2 |r|^2 are relative to those of a network
that gives zero. With corrections, the geodesic acceleration is on, too. "seconds" are shares of the
processor seconds that the default takes for all of the cycles: other rules may use more cycles in
them.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import saved
import torch
from pinn_problems import poisson_problem

from mgnet import CycleRecord
from mgnet.training import (
    Ansatz,
    Collocation,
    LeastSquares,
    Nielsen,
    ProbedRadius,
    TrustRegion,
    levenberg_marquardt,
    quasi_random,
)

SQUARE = [(-1.0, 1.0), (-1.0, 1.0)]
RULES: dict[str, dict[str, Any]] = {
    "Nielsen, corrections": {"rule": Nielsen()},
    "Nielsen, geodesic": {"rule": Nielsen(), "corrections": 0},
    "Nielsen": {"rule": Nielsen(), "acceleration": 0.0},
    "ProbedRadius, corrections": {"rule": ProbedRadius()},
    "ProbedRadius": {"rule": ProbedRadius(), "corrections": 0},
    "TrustRegion": {"rule": TrustRegion()},
}
DEFAULT = "Nielsen, corrections"


def tanh(*widths: int) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        layers += [torch.nn.Linear(before, after), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1]).double()


def curve() -> LeastSquares:
    x = torch.linspace(-1.0, 1.0, 300, dtype=torch.float64).unsqueeze(1)
    return LeastSquares(tanh(1, 30, 1), (x, torch.sin(6.0 * x) + torch.exp(-20.0 * x**2)))


def surface() -> LeastSquares:
    x = quasi_random(900, SQUARE)
    y = torch.sin(3.0 * x[:, :1]) * torch.cos(2.0 * x[:, 1:] + x[:, :1] ** 2)
    return LeastSquares(tanh(2, 16, 16, 1), (x, y))


def single() -> LeastSquares:
    x = torch.linspace(-1.0, 1.0, 60).unsqueeze(1)
    return LeastSquares(tanh(1, 20, 1).float(), (x, torch.cos(8.0 * x)))


def poisson() -> LeastSquares:
    problem = poisson_problem()
    network = Ansatz(tanh(2, 14, 14, 1), output=problem.output)
    return Collocation(network, problem.terms(quasi_random(600, SQUARE)))


PROBLEMS: dict[str, Callable[[], LeastSquares]] = {
    "curve": curve,
    "surface": surface,
    "Poisson": poisson,
    "float32": single,
}


def silent(problem: LeastSquares) -> float:
    """The objective of a network that gives zero."""
    u = problem.start()
    return problem.value(torch.zeros_like(u))


def run(name: str, rule: str, seed: int, cycles: int, seconds: float) -> list[tuple[float, float]]:
    """Processor seconds and objectives, one pair for each cycle."""
    torch.manual_seed(seed)
    problem = PROBLEMS[name]()
    reference, found, began = silent(problem), list[tuple[float, float]](), time.process_time()

    def watch(record: CycleRecord, u: torch.Tensor) -> bool:
        spent = time.process_time() - began
        found.append((spent, (record.value or 0.0) / reference))
        return record.cycle >= cycles and spent >= seconds

    exact = {"ftol": 0.0, "xtol": 0.0, "gtol": 0.0, "max_cycles": 10**6}
    levenberg_marquardt(problem, monitor=watch, **exact, **RULES[rule])
    return found


def within(found: list[tuple[float, float]], seconds: float) -> float:
    return [value for spent, value in found if spent <= seconds or value == found[0][1]][-1]


def rows_of(name: str, seeds: list[int], cycles: int) -> list[saved.Row]:
    run(name, DEFAULT, 0, 3, 0.0)  # what is made once is made before the clock starts
    own = {seed: run(name, DEFAULT, seed, cycles, 0.0) for seed in seeds}
    given = {seed: found[min(cycles, len(found) - 1)][0] for seed, found in own.items()}
    rows = []
    for rule in RULES:
        runs = {
            seed: own[seed] if rule == DEFAULT else run(name, rule, seed, cycles, given[seed])
            for seed in seeds
        }
        row: saved.Row = {"problem": name, "method": rule, "seeds": len(seeds)}
        for count in (25, 50, 100, 200):
            if count <= cycles:
                values = [found[min(count, len(found) - 1)][1] for found in runs.values()]
                row |= spread(f"after_{count}", values)
        for part in (0.25, 0.5, 1.0):
            values = [within(found, part * given[seed]) for seed, found in runs.items()]
            row |= spread(f"seconds_{part:g}", values)
        row |= {"seconds": statistics.median(given.values())}
        rows.append(row)
        print(text_of([row]), flush=True)
    return rows


def spread(key: str, values: list[float]) -> saved.Row:
    told = {f"{key}_median": statistics.median(values)}
    return told | {f"{key}_least": min(values), f"{key}_largest": max(values)}


def text_of(rows: list[saved.Row]) -> str:
    lines = []
    for row in rows:
        told = [f"{k.removesuffix('_median')} {v:.1e}" for k, v in row.items() if "median" in k]
        lines.append(f"{row['problem']:<8} {row['method']:<19} " + ", ".join(told))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    saved.add_option(parser)
    told = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in told.problems for row in rows_of(name, told.seeds, told.cycles)]
    text = f"{saved.heading()}\n\n{text_of(rows)}"
    if told.save:
        setting = "1/2 |r|^2 over that of a network that gives zero; medians of the seeds"
        saved.save(told.save, "step_rules", setting, rows, [], text)


if __name__ == "__main__":
    main()
