"""The adaptive basis (LS + a step on the hidden layers) from box starts against Adam and others.

    python benchmarks/adaptive_basis.py [--seconds 5] [--seeds 5] [--cases sin1 step ...]
        [--methods "KAN nested, LM" ...] [--save]

Seven regressions with ReLU networks of width 32, full batch, float64, one thread, the same seconds
(of the processor) for every training. Adam is PyTorch's own training loop, with three rates from
three starts (PyTorch's default, He, box), and keeps its best iterate; of these nine the best on a
case, by the geometric mean over seeds, is the baseline of its gains. Each of our methods has one
setting for all cases, and the box start alone. Beside them: the same networks with tanh, from
PyTorch's start, by Levenberg-Marquardt and by self-scaled Broyden; KANs of cubic splines of about
as many parameters by Levenberg-Marquardt, from an untrained start of a quarter of the intervals:
"at once" on the finest knots, "nested" a third of the seconds on each of three levels. Errors are
mean squares, on the training points and on a fine grid. Between the points around a jump nobody
knows where it is: on the fine grid the step function leaves 3.3e-4 (a twelfth of their distance) to
all methods that interpolate. Failed: not finite.

With --save the rows of this run replace those in results/adaptive_basis.json, or join them.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import saved
import torch

from mgnet import Level, Smoother
from mgnet.knots import KAN
from mgnet.training import (
    LBFGS,
    AdaptiveBasis,
    Broyden,
    LastLayer,
    LeastSquares,
    LevenbergMarquardt,
    Residual,
    TorchOptimizer,
    box_init_,
)

WIDTH = 32
RATES = (1e-3, 3e-3, 1e-2)
STARTS = ("default", "He", "box")
KINDS = {"train": "training points", "fine": "fine grid"}
CAP = 100.0  # of a gain in the means over cases: no single case carries them
LAST = LastLayer(rcond=1e-12)
# Methods of mgnet: name -> (step on the hidden layers, sweeps per visit).
STEPS: dict[str, tuple[Smoother, int]] = {
    "LS + Adam 3e-3": (TorchOptimizer(torch.optim.Adam, {"lr": 3e-3}), 50),
    "LSGD 0.1": (TorchOptimizer(torch.optim.SGD, {"lr": 0.1}), 50),
    "LS + L-BFGS": (LBFGS(), 20),
    "LS + LM (varpro)": (LevenbergMarquardt(), 1),
}


class Case(NamedTuple):
    """A function on the unit cube, and the networks that are to learn it."""

    function: Callable[[torch.Tensor], torch.Tensor]
    depth: int
    kan: tuple[int, int]  # width and intervals
    inputs: int = 1
    residual: bool = False


def waves(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(2 * math.pi * x) + 0.5 * torch.sin(16 * math.pi * x)


def wave(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(2 * math.pi * x)


CASES = {
    "sin1": Case(wave, 1, (2, 20)),
    "sin4": Case(wave, 4, (24, 64)),
    "sin8": Case(wave, 8, (56, 64)),
    "residual8": Case(wave, 8, (56, 64), residual=True),
    "waves": Case(waves, 2, (16, 32)),
    "step": Case(lambda x: (x > 0.5).to(x), 2, (16, 32)),
    "sinsin": Case(lambda x: wave(x).prod(1, keepdim=True), 2, (20, 16), inputs=2),
}


class Run(NamedTuple):
    """One training: mean squared errors on the training points and on the fine grid, steps."""

    train: float
    fine: float
    steps: int
    parameters: int


def points(inputs: int, fine: bool) -> torch.Tensor:
    count = (4001 if fine else 256) if inputs == 1 else (101 if fine else 23)
    axis = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * inputs).reshape(-1, inputs)


def network(
    case: Case, start: str, seed: int, activation: type[torch.nn.Module] = torch.nn.ReLU
) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = [torch.nn.Linear(case.inputs, WIDTH), activation()]
    for _ in range(case.depth - 1):
        layer = [torch.nn.Linear(WIDTH, WIDTH), activation()]
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
    begin = time.process_time()
    net = network(case, start, seed)
    parameters = list(net.parameters())
    optimizer = torch.optim.Adam(parameters, lr=rate)
    best, state, steps = float("inf"), [], 0
    while not steps or time.process_time() - begin < seconds:
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


def smooth(case: Case, net: torch.nn.Module, smoother: Smoother, sweeps: int, end: float) -> int:
    """Sweeps until `end`; at least one visit. The network keeps the result."""
    x = points(case.inputs, fine=False)
    problem = LeastSquares(net, (x, case.function(x)))
    level = Level(problem, smoother, objective=problem.value)
    u, steps = problem.start(), 0
    memory = smoother.start(level, u)
    while not steps or time.process_time() < end:
        u, memory = smoother.smooth(level, u, None, sweeps, memory)
        steps += sweeps
    torch.nn.utils.vector_to_parameters(u, net.parameters())
    return steps


def train_ours(case: Case, method: str, seed: int, seconds: float) -> Run:
    end = time.process_time() + seconds
    step, sweeps = STEPS[method]
    net = network(case, "box", seed)
    return measure(case, net, smooth(case, net, AdaptiveBasis(step, LAST), sweeps, end))


def train_tanh(case: Case, smoother: Smoother, seed: int, seconds: float) -> Run:
    end = time.process_time() + seconds
    net = network(case, "default", seed, torch.nn.Tanh)
    sweeps = 1
    if isinstance(smoother, Broyden):  # a step costs the square of the parameters
        sweeps = max(1, min(20, 20_000 // count(net)))
    return measure(case, net, smooth(case, net, smoother, sweeps, end))


def train_kan(case: Case, nested: bool, seed: int, seconds: float) -> Run:
    begin, (width, intervals) = time.process_time(), case.kan
    generator = torch.Generator().manual_seed(seed)
    widths, domain = [case.inputs, width, 1], (0.0, 1.0)
    net, steps = KAN(widths, intervals // 4, domain=domain, generator=generator), 0
    for part in (1, 2, 3):
        if nested or part == 3:
            steps += smooth(case, net, LevenbergMarquardt(), 1, begin + seconds * part / 3)
        net = net if part == 3 else net.refine()
    return measure(case, net, steps)


Training = Callable[[Case, int, float], Run]
METHODS: dict[tuple[str, str], Training] = {  # by name and start
    (f"Adam {rate:g}", start): lambda case, seed, seconds, rate=rate, start=start: train_adam(
        case, start, rate, seed, seconds
    )
    for start in STARTS
    for rate in RATES
}
METHODS |= {
    (name, "box"): lambda case, seed, seconds, name=name: train_ours(case, name, seed, seconds)
    for name in STEPS
}
METHODS |= {
    (f"tanh MLP, {name}", "default"): lambda case, seed, seconds, smoother=smoother: train_tanh(
        case, smoother, seed, seconds
    )
    for name, smoother in {"LM": LevenbergMarquardt(), "Broyden": Broyden()}.items()
}
METHODS |= {
    (f"KAN {name}, LM", "coarse"): lambda case, seed, seconds, nested=nested: train_kan(
        case, nested, seed, seconds
    )
    for name, nested in {"at once": False, "nested": True}.items()
}


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def measure(case: Case, net: torch.nn.Module, steps: int) -> Run:
    with torch.no_grad():
        train, fine = (
            float((net(x) - case.function(x)).square().mean())
            for x in (points(case.inputs, False), points(case.inputs, True))
        )
    return Run(train, fine, steps, count(net))


def error(value: float) -> float:
    """Not below the square of the rounding; failures count as 1e16."""
    return max(value, 1e-30) if math.isfinite(value) else 1e16


def row(case: str, method: tuple[str, str], runs: list[Run]) -> saved.Row:
    """Figures of one method on one case."""
    made: saved.Row = {"case": case, "method": method[0], "start": method[1]}
    made["parameters"] = runs[0].parameters
    for kind in KINDS:
        values = [getattr(run, kind) for run in runs]
        made[f"{kind}_median"] = statistics.median(values)
        made[f"{kind}_least"], made[f"{kind}_largest"] = min(values), max(values)
        made[f"{kind}_mean"] = statistics.geometric_mean(map(error, values))
    made["steps_median"] = statistics.median(run.steps for run in runs)
    made["failed"] = sum(not math.isfinite(run.train + run.fine) for run in runs)
    return made


def gain(rows: list[saved.Row], one: saved.Row, kind: str) -> float:
    """Over the best Adam on the case."""
    adam = [r[f"{kind}_mean"] for r in rows if r["method"].startswith("Adam")]
    return min(adam, default=math.nan) / one[f"{kind}_mean"]


def table(rows: list[saved.Row]) -> str:
    """Of one case."""
    head = f"{'training points':>28} {'fine grid':>28} {'steps':>6} {'gains':>16} {'failed':>6}"
    lines = [rows[0]["case"], f"{'':<17} {'start':<7} {'weights':>7} {head}"]
    for one in rows:
        line = f"{one['method']:<17} {one['start']:<7} {one['parameters']:>7}"
        for kind in KINDS:
            median, least, most = (one[f"{kind}_{part}"] for part in ("median", "least", "largest"))
            line += f" {f'{median:.1e} ({least:.1e} to {most:.1e})':>28}"
        ours = [] if one["method"].startswith("Adam") else [gain(rows, one, k) for k in KINDS]
        gains = " ".join(f"{each:.3g}x" for each in ours if math.isfinite(each))
        lines.append(f"{line} {one['steps_median']:>6.0f} {gains:>16} {one['failed']:>6}")
    for kind, where in KINDS.items():
        best = min(rows, key=lambda one: one[f"{kind}_median"])
        lines.append(f"lowest median, {where}: {best['method']}, {best['start']} start")
    return "\n".join(lines)


def targets(cases: dict[str, list[saved.Row]]) -> list[saved.Row]:
    """Targets of mgnet's methods; a mean over the cases counts a gain 100 times at most."""
    made = []
    for kind, where in KINDS.items():
        for method in STEPS:
            gains = {
                case: gain(rows, one, kind)
                for case, rows in cases.items()
                for one in rows
                if one["method"] == method
            }
            if len(gains) < len(CASES):
                continue
            mean = statistics.geometric_mean(min(one, CAP) for one in gains.values())
            each = ", ".join(f"{case} {one:.3g}" for case, one in gains.items())
            met = mean >= 10.0 and min(gains.values()) >= 3.0
            measured = f"mean {mean:.1f}x, least {min(gains.values()):.2g}x ({each})"
            goal = "a mean of at least 10x, no case below 3x"
            made.append(saved.target(f"{method}, {where}", goal, measured, met))
    return made


def place(one: saved.Row) -> tuple[int, int]:
    method = (one["method"], one["start"])
    return list(CASES).index(one["case"]), list(METHODS).index(method)


def save(folder: Path, rows: list[saved.Row], setting: str) -> None:
    """The rows of this run, and those of earlier ones."""
    before = saved.read("adaptive_basis")
    known = {place(one): one for one in before["rows"]} if before else {}
    known |= {place(one): one for one in rows}
    cases: dict[str, list[saved.Row]] = {}
    for key in sorted(known):
        cases.setdefault(known[key]["case"], []).append(known[key])
    text = [f"{saved.heading()}\n{setting}", *map(table, cases.values())]
    goals = targets(cases)
    note = f"Gain over the best Adam; in the mean each counts {CAP:g}x at most"
    ends = [f"{g['name']}: {g['measured']}, met: {g['met']}" for g in goals]
    text.append("\n".join([f"{note} (target: {goals[0]['target']})" if goals else note, *ends]))
    rows = [one for of_case in cases.values() for one in of_case]
    saved.save(folder, "adaptive_basis", setting, rows, goals, "\n\n".join(text))


def main() -> None:
    names = list(dict.fromkeys(name for name, _ in METHODS))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="per training")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    saved.add_option(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    setting = f"{given.seeds} seeds, {given.seconds:g} s each, one thread"
    chosen = {key: train for key, train in METHODS.items() if key[0] in given.methods}
    for train in chosen.values():  # PyTorch loads parts when first used
        train(CASES["sin1"], 0, 0.1)
    rows: list[saved.Row] = []
    for name in given.cases:
        made = []
        for key, train in chosen.items():
            runs = [train(CASES[name], seed, given.seconds) for seed in range(given.seeds)]
            made.append(row(name, key, runs))
        print(f"\n{table(made)}", flush=True)
        rows += made
        if given.save:  # as far as it is
            save(given.save, rows, setting)


if __name__ == "__main__":
    main()
