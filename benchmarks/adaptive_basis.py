"""The adaptive basis (LS + a step on the hidden layers) from box starts against Adam.

    python benchmarks/adaptive_basis.py [--seconds 5] [--seeds 5] [--cases sin1 step ...] [--save]

Seven regressions with ReLU networks of width 32, full batch, float64, one thread, the same seconds
for every training. Adam is PyTorch's own training loop, with three rates from three starts
(PyTorch's default, He, box), and keeps its best iterate; of these nine the best on a case, by the
geometric mean over seeds, is the baseline of that case. Each of our methods has one setting for
all cases, and the box start alone. Errors are mean squares, on the training points and on a fine
grid. Between the points around a jump nobody knows where it is: on the fine grid the step function
leaves 3.3e-4 (a twelfth of their distance) to all methods that interpolate.
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
KINDS = {"train": "training points", "fine": "fine grid"}
CAP = 100.0  # of a gain in the means over cases: no single case carries them
LAST = LastLayer(rcond=1e-12)
# Ours: name -> (step on the hidden layers, sweeps per visit).
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


def waves(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(2 * math.pi * x) + 0.5 * torch.sin(16 * math.pi * x)


CASES = {
    "sin1": Case(lambda x: torch.sin(2 * math.pi * x), 1),
    "sin4": Case(lambda x: torch.sin(2 * math.pi * x), 4),
    "sin8": Case(lambda x: torch.sin(2 * math.pi * x), 8),
    "residual8": Case(lambda x: torch.sin(2 * math.pi * x), 8, residual=True),
    "waves": Case(waves, 2),
    "step": Case(lambda x: (x > 0.5).to(x), 2),
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
    return f"{statistics.median(values):.1e} ({min(values):.1e} to {max(values):.1e})"


def error(value: float) -> float:
    """Not below the square of the rounding; failures count as 1e16."""
    return max(value, 1e-30) if math.isfinite(value) else 1e16


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values))


Gains = dict[str, dict[str, float]]  # method -> kind of error -> gain on one case


def compare(name: str, case: Case, seeds: int, seconds: float, say: Callable[[str], None]) -> Gains:
    """Print the table of one case; return the gains of our methods."""
    runs = {
        (f"Adam {rate:g}", start): [
            train_adam(case, start, rate, seed, seconds) for seed in range(seeds)
        ]
        for start in STARTS
        for rate in RATES
    }
    adam = list(runs)
    for label, (step, sweeps) in STEPS.items():
        runs[label, "box"] = [
            train_ours(case, step, sweeps, seed, seconds) for seed in range(seeds)
        ]
    means = {
        key: {kind: geometric_mean([error(getattr(run, kind)) for run in ours]) for kind in KINDS}
        for key, ours in runs.items()
    }
    best = {kind: min(means[key][kind] for key in adam) for kind in KINDS}
    say(f"\n{name}")
    head = f"{'training points':>28} {'fine grid':>28} {'steps':>6} {'gains':>13} {'worse':>6}"
    say(f"{'':<16} {'start':<7} {head}")
    gains: Gains = {}
    for (label, start), ours in runs.items():
        train, fine = spread([run.train for run in ours]), spread([run.fine for run in ours])
        steps = statistics.median(run.steps for run in ours)
        line = f"{label:<16} {start:<7} {train:>28} {fine:>28} {steps:>6.0f}"
        if (label, start) not in adam:
            gains[label] = {kind: best[kind] / means[label, start][kind] for kind in KINDS}
            worse = sum(not run.train < best["train"] for run in ours)
            line += f" {gains[label]['train']:>5.1f}x {gains[label]['fine']:>5.1f}x {worse:>6}"
        say(line)
    return gains


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
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
    cases = {
        name: compare(name, CASES[name], options.seeds, options.seconds, say)
        for name in options.cases
    }
    for kind, where in KINDS.items():
        say(
            f"\nGain over the best Adam, {where}; in the mean each counts {CAP:g}x at most\n"
            "(target: a mean of at least 10x, no case below 3x)"
        )
        for label in STEPS:
            gains = [one[label][kind] for one in cases.values()]
            mean, least = geometric_mean([min(gain, CAP) for gain in gains]), min(gains)
            each = ", ".join(f"{n} {gain:.3g}" for n, gain in zip(cases, gains, strict=True))
            met = "met" if mean >= 10.0 and least >= 3.0 else "missed"
            say(f"{label:<16} mean {mean:.1f}x, least {least:.1f}x, target {met}: {each}")
    if options.save:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
