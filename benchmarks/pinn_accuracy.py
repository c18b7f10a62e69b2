"""How far a network gets on an equation, one change a row: relative L2 errors over seconds.

    OMP_NUM_THREADS=2 python benchmarks/pinn_accuracy.py [--problems burgers shock poisson
        allen-cahn] [--rows 0 1 2] [--seeds 1 2 3 4 5] [--seconds SECONDS] [--save]

Equations, hard constraints and references are those of benchmarks/pinn.py; Levenberg-Marquardt by
its defaults. Row 0 is the tanh network of that page: points drawn anew every few steps, more of
them where residuals are large. Then one change after the other: inputs that are exactly periodic,
points that stay (Sobol), other widths. A seed draws points and parameters; settings were chosen on
seed 0. Errors are those at the given seconds of one run, and at an eighth, a quarter and half of
them. A run fails if it ends above 10 times the target.

With --save every run is appended to results/pinn_accuracy.jsonl; runs that are there are not
repeated, and the table is made of all of them.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pinn_problems import PROBLEMS, Problem

from mgnet import Level
from mgnet.training import Ansatz, Collocation, LevenbergMarquardt, by_residual, quasi_random

RESULTS = Path(__file__).parent / "results"
SHARES = (0.125, 0.25, 0.5, 1.0)  # of the seconds, when errors are taken
STRIP, SQUARE = [(-1.0, 1.0), (0.0, 1.0)], [(-1.0, 1.0), (-1.0, 1.0)]


class Setting(NamedTuple):
    """A row: the network, its inputs and its points."""

    name: str
    widths: tuple[int, ...]  # from the inputs of the network on
    points: int
    periodic: bool = True
    fixed: bool = True


class Case(NamedTuple):
    """A problem of benchmarks/pinn.py with its rows and its target."""

    seconds: float
    target: float
    domain: list[tuple[float, float]]
    rows: tuple[Setting, ...]


CASES = {
    "burgers": Case(
        300.0,
        5e-9,
        STRIP,
        (
            Setting("page", (2, 24, 24, 24, 1), 4000, periodic=False, fixed=False),
            Setting("periodic inputs", (3, 24, 24, 24, 1), 4000, fixed=False),
            Setting("fixed points", (3, 24, 24, 24, 1), 4096),
            Setting("deeper", (3, 20, 20, 20, 20, 1), 4096),
        ),
    ),
    "shock": Case(
        300.0,
        2e-7,
        STRIP,
        (
            Setting("page", (2, 24, 24, 24, 1), 4000, periodic=False, fixed=False),
            Setting("periodic inputs", (3, 24, 24, 24, 1), 4000, fixed=False),
            Setting("fixed points", (3, 24, 24, 24, 1), 8192),
            Setting("deeper", (3, 20, 20, 20, 20, 1), 8192),
        ),
    ),
    "poisson": Case(
        60.0,
        1e-9,
        SQUARE,
        (
            Setting("page", (2, 30, 30, 1), 2500, periodic=False, fixed=False),
            Setting("fixed points", (2, 30, 30, 1), 2500, periodic=False),
            Setting("narrower", (2, 20, 20, 1), 2000, periodic=False),
            Setting("deeper", (2, 14, 14, 14, 1), 2000, periodic=False),
        ),
    ),
    "allen-cahn": Case(
        600.0,
        5e-6,
        STRIP,
        (
            Setting("page", (3, 24, 24, 24, 1), 4000, periodic=False, fixed=False),
            Setting("fixed points", (3, 24, 24, 24, 1), 8192, periodic=False),
            Setting("deeper", (3, 20, 20, 20, 20, 1), 8192, periodic=False),
        ),
    ),
}


def inputs(x: torch.Tensor) -> torch.Tensor:
    """(x, t) on [-1, 1] x [0, 1], with period 2 in x."""
    turn = torch.pi * x[:, :1]
    return torch.cat([turn.cos(), turn.sin(), 2.0 * x[:, 1:] - 1.0], 1)


def output(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The initial values of Burgers' equation, and what a periodic network adds."""
    return -torch.sin(torch.pi * x[:, :1]) + x[:, 1:] * y


def ansatz(problem: Problem, setting: Setting, seed: int) -> Ansatz:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for before, after in zip(setting.widths[:-1], setting.widths[1:], strict=True):
        layers += [torch.nn.Linear(before, after), torch.nn.Tanh()]
    network = torch.nn.Sequential(*layers[:-1]).double()
    if setting.periodic:
        return Ansatz(network, output=output, features=inputs)
    return Ansatz(network, output=problem.output, features=problem.features)


def error(problem: Problem, equation: Collocation, u: torch.Tensor) -> float:
    with torch.no_grad():
        values = equation.flat.evaluate(lambda network: network(problem.grid), u)
    return float((values - problem.exact).norm() / problem.exact.norm())


def run(name: str, setting: Setting, seed: int, seconds: float) -> dict[str, Any]:
    problem, case, step = PROBLEMS[name](), CASES[name], LevenbergMarquardt()
    generator = torch.Generator().manual_seed(seed)
    points = quasi_random(setting.points, case.domain, seed=seed, dtype=torch.float64)
    equation = Collocation(ansatz(problem, setting, seed), problem.terms(points))
    u, memory, steps, errors = equation.start(), None, 0, list[float]()
    level, began, apart = Level(equation, step), time.perf_counter(), 0.0
    while len(errors) < len(SHARES):
        if not setting.fixed and steps % problem.plan.every == 0:
            candidates = problem.draw(10 * setting.points, generator)
            drawn = by_residual(equation, u, candidates, setting.points, generator)
            equation = equation.with_data(problem.terms(drawn))
            level = Level(equation, step)
        memory = memory or step.start(level, u)
        u, memory = step.smooth(level, u, None, 1, memory)
        steps += 1
        now = time.perf_counter()
        while len(errors) < len(SHARES) and now - began - apart >= SHARES[len(errors)] * seconds:
            errors.append(error(problem, equation, u))
        apart += time.perf_counter() - now
    told = {
        "weights": len(u),
        "steps": steps,
        "loss": equation.mean_square(u),
        "mu": memory and memory.mu,
    }
    return told | {"errors": errors}


def table(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| problem | network | points | weights | seeds | "
        + " | ".join(f"{share:g} of the time" for share in SHARES)
        + " | least, largest | steps | target |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for each in runs:
        groups.setdefault((each["problem"], each["row"], each["asked"]), []).append(each)
    for (problem, row, asked), own in groups.items():
        columns = list(zip(*(each["errors"] for each in own), strict=True))
        middle = " | ".join(f"{statistics.median(column):.1e}" for column in columns)
        ends, target = columns[-1], CASES[problem].target
        failed = sum(end > 10.0 * target for end in ends)
        lines.append(
            f"| {problem} | {row}: {own[0]['network']} | {own[0]['points']} | "
            f"{own[0]['weights']} | {len(own)} | {middle} | {min(ends):.1e}, {max(ends):.1e} | "
            f"{statistics.median(each['steps'] for each in own):g} | {target:.0e} in {asked:g} s"
            f"{f', {failed} failed' if failed else ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rows", nargs="+", type=int, help="numbers of rows, from 0")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--seconds", type=float, help="per run; the target's by default")
    parser.add_argument("--save", action="store_true", help="keep the runs, and the table")
    told = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    kept = RESULTS / "pinn_accuracy.jsonl"
    runs = []
    if told.save and kept.is_file():
        runs = [json.loads(line) for line in kept.read_text().splitlines()]
    machine = (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}"
    )
    for name in told.problems:
        case = CASES[name]
        seconds = told.seconds or case.seconds
        chosen = range(len(case.rows)) if told.rows is None else told.rows
        for setting in (case.rows[number] for number in chosen if number < len(case.rows)):
            about = {"problem": name, "row": setting.name, "network": list(setting.widths)}
            about |= {"points": setting.points, "asked": seconds}
            for seed in told.seeds:
                if any(about | {"seed": seed} == {k: r[k] for k in [*about, "seed"]} for r in runs):
                    continue
                found = run(name, setting, seed, seconds)
                runs.append(about | {"seed": seed, "machine": machine} | found)
                print(name, setting.name, seed, found, flush=True)
                if told.save:
                    with kept.open("a") as file:
                        file.write(json.dumps(runs[-1]) + "\n")
    text = "\n".join([*dict.fromkeys(each["machine"] for each in runs), "", table(runs)])
    print(text)
    if told.save:
        (RESULTS / "pinn_accuracy.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
