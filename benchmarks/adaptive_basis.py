"""The adaptive basis (LS + a step on the hidden layers) from box starts against Adam.

    python benchmarks/adaptive_basis.py [--seconds 5] [--seeds 5] [--cases sin1 step ...] [--save]

Seven regressions with ReLU networks of width 32, full batch, float64, one thread, the same seconds
for every training (set-up counted). Adam is PyTorch's own training loop, with three rates from
three starts (PyTorch's default, He, box), and keeps its best iterate; the gain compares every run
with the best of these nine for its seed. LS + Adam runs with one rate, chosen beforehand for all
cases, from the box start alone. Errors are mean squares on the training points (on a fine grid for
the step function, whose training points LS interpolates); the fine grid's are printed beside.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from mgnet import Level, Smoother
from mgnet.training import (
    LBFGS,
    AdaptiveBasis,
    LastLayer,
    LeastSquares,
    LevenbergMarquardt,
    Residual,
    TorchOptimizer,
    box_init_,
)

RESULT = Path(__file__).parent / "results" / "adaptive_basis.txt"
WIDTH = 32
RATES = (1e-3, 3e-3, 1e-2)
STARTS = ("default", "He", "box")
LAST = LastLayer(rcond=1e-12)
# Ours: name -> (step on the hidden layers, sweeps per visit). The first is what the target is for.
STEPS: dict[str, tuple[Smoother, int]] = {
    "LS + Adam 3e-3": (TorchOptimizer(torch.optim.Adam, {"lr": 3e-3}), 50),
    "LSGD 0.1": (TorchOptimizer(torch.optim.SGD, {"lr": 0.1}), 50),
    "LS + L-BFGS": (LBFGS(), 20),
    "LS + LM (varpro)": (LevenbergMarquardt(), 1),
}


class Case(NamedTuple):
    """A function on the unit cube, and the network that is to learn it."""

    function: Callable[[torch.Tensor], torch.Tensor]
    depth: int
    inputs: int = 1
    residual: bool = False
    held_out: bool = False  # whether the error on the fine grid is the one that counts


def waves(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(2 * math.pi * x) + 0.5 * torch.sin(16 * math.pi * x)


CASES = {
    "sin1": Case(lambda x: torch.sin(2 * math.pi * x), 1),
    "sin4": Case(lambda x: torch.sin(2 * math.pi * x), 4),
    "sin8": Case(lambda x: torch.sin(2 * math.pi * x), 8),
    "residual8": Case(lambda x: torch.sin(2 * math.pi * x), 8, residual=True),
    "waves": Case(waves, 2),
    "step": Case(lambda x: (x > 0.5).to(x), 2, held_out=True),
    "sinsin": Case(lambda x: torch.sin(2 * math.pi * x).prod(1, keepdim=True), 2, inputs=2),
}


class Run(NamedTuple):
    """One training: mean squared errors on the training points and on the fine grid, steps."""

    train: float
    fine: float
    steps: int


def points(inputs: int, fine: bool) -> torch.Tensor:
    count = (4001 if fine else 256) if inputs == 1 else (101 if fine else 23)
    axis = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * inputs).reshape(-1, inputs)


def network(case: Case, start: str, seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = [torch.nn.Linear(case.inputs, WIDTH), torch.nn.ReLU()]
    for _ in range(case.depth - 1):
        layer = [torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU()]
        layers += [Residual(torch.nn.Sequential(*layer))] if case.residual else layer
    net = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 1)).double()
    if start == "box":
        return box_init_(net, (0.0, 1.0), torch.Generator().manual_seed(seed))
    if start == "He":
        for module in net.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                torch.nn.init.zeros_(module.bias)
    if case.residual:  # else the blocks blow the values up; the box start does this by itself
        for module in net.modules():
            if isinstance(module, Residual):
                for p in module.parameters():
                    p.data /= case.depth - 1
    return net


def train_adam(case: Case, start: str, rate: float, seed: int, seconds: float) -> Run:
    """A plain training loop; keeps the best iterate."""
    x = points(case.inputs, fine=False)
    y = case.function(x)
    begin = time.perf_counter()
    net = network(case, start, seed)
    parameters = list(net.parameters())
    optimizer = torch.optim.Adam(parameters, lr=rate)
    best, state, steps = float("inf"), [], 0
    while not steps or time.perf_counter() - begin < seconds:
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        if loss.item() < best:
            best, state = loss.item(), [p.detach().clone() for p in parameters]
        loss.backward()
        optimizer.step()
        steps += 1
    for p, value in zip(parameters, state, strict=True):
        p.data = value
    return measure(case, net, steps)


def train_ours(case: Case, step: Smoother, sweeps: int, seed: int, seconds: float) -> Run:
    x = points(case.inputs, fine=False)
    begin = time.perf_counter()
    net = network(case, "box", seed)
    problem = LeastSquares(net, (x, case.function(x)))
    smoother = AdaptiveBasis(step, LAST)
    level = Level(problem, smoother, objective=problem.value)
    u = problem.start()
    memory = smoother.start(level, u)
    steps = 0
    while not steps or time.perf_counter() - begin < seconds:
        u, memory = smoother.smooth(level, u, None, sweeps, memory)
        steps += sweeps
    torch.nn.utils.vector_to_parameters(u, net.parameters())
    return measure(case, net, steps)


def measure(case: Case, net: torch.nn.Module, steps: int) -> Run:
    with torch.no_grad():
        train, fine = (
            float((net(x) - case.function(x)).square().mean())
            for x in (points(case.inputs, False), points(case.inputs, True))
        )
    return Run(train, fine, steps)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8.1e} ({min(values):.1e} to {max(values):.1e})"


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values))


def compare(name: str, case: Case, seeds: int, seconds: float, say: Callable[..., None]) -> dict:
    """Print the table of one case; return the gains of our methods, one per seed."""
    adam = {
        (start, rate): [train_adam(case, start, rate, seed, seconds) for seed in range(seeds)]
        for start in STARTS
        for rate in RATES
    }
    ours = {
        label: [train_ours(case, step, sweeps, seed, seconds) for seed in range(seeds)]
        for label, (step, sweeps) in STEPS.items()
    }

    def error(run: Run) -> float:
        value = run.fine if case.held_out else run.train
        return max(value, 1e-16) if math.isfinite(value) else 1e16  # below: rounding

    counts = "fine grid" if case.held_out else "training points"
    say(f"\n{name}, counted: error on the {counts}")
    say(
        f"{'':<18} {'start':<8} {'training points':>30} {'fine grid, median':>18} {'steps':>6} gain"
    )
    best = [min(error(runs[seed]) for runs in adam.values()) for seed in range(seeds)]
    gains = {}
    rows = [(f"Adam {rate:g}", start, runs) for (start, rate), runs in adam.items()]
    rows += [(label, "box", runs) for label, runs in ours.items()]
    for label, start, runs in rows:
        fine = statistics.median(run.fine for run in runs)
        steps = int(statistics.median(run.steps for run in runs))
        line = (
            f"{label:<18} {start:<8} {spread([r.train for r in runs]):>30} {fine:>18.1e} {steps:>6}"
        )
        if label in ours:
            gains[label] = [b / error(run) for b, run in zip(best, runs, strict=True)]
            failures = sum(gain < 1.0 for gain in gains[label])
            line += f" {geometric_mean(gains[label]):.1f}x"
            line += f" ({min(gains[label]):.1f} to {max(gains[label]):.1f}), worse: {failures}"
        say(line)
    return gains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="per training")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--save", action="store_true", help=f"also write {RESULT.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    say(f"python benchmarks/adaptive_basis.py {' '.join(sys.argv[1:])}".rstrip())
    say(
        f"{options.seeds} seeds, {options.seconds:g} s each, one thread, {platform.machine()}, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}"
    )
    compare(
        "warm-up", CASES["sin1"], 1, 0.1, lambda text: None
    )  # PyTorch loads parts when first used
    gains: dict[str, list[float]] = {label: [] for label in STEPS}
    for name in options.cases:
        one = compare(name, CASES[name], options.seeds, options.seconds, say)
        for label, values in one.items():
            gains[label].append(geometric_mean(values))
    say("\nGain over the best of the nine Adam runs, geometric means over seeds")
    for label, values in gains.items():
        each = ", ".join(f"{n} {g:.1f}" for n, g in zip(options.cases, values, strict=True))
        say(
            f"{label:<18} all cases {geometric_mean(values):.1f}x, least {min(values):.1f}x: {each}"
        )
    least, mean = min(gains["LS + Adam 3e-3"]), geometric_mean(gains["LS + Adam 3e-3"])
    verdict = "met" if mean >= 10.0 and least >= 3.0 else "missed"
    say(f"Target (LS + Adam: mean at least 10x, no case below 3x): {verdict}")
    if options.save:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
