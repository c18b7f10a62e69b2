"""Guarded V and F cycles after a cascade, against going on at the fine level.

    OMP_NUM_THREADS=1 python benchmarks/guarded_cycles.py [--seconds 20] [--seeds 5]
        [--problems regression poisson] [--smoothers LM Broyden L-BFGS Adam] [--save]

Regression: exp(sin(pi x) + y^2) on [-1, 1]^2, 2000 points, error against 2000 others. Poisson: the
PINN of -laplace u = f on [-1, 1]^2 with u = sin(pi x) sin(2 pi y), second derivatives by automatic
differentiation, 600 interior and 160 boundary points; relative L2 error on a grid. Networks are
KANs [2,5,1] with 4, 8, 16, 32 intervals; a seed draws points and weights.

`train` cascades for the given seconds; from its end (state and memory of the smoothers) every row
goes on for as many seconds again. `subspace` minimizes the fine objective over u + P w, `injected`
is MG/OPT. Gain: how many times lower the loss ended than with sweeps on the fine level, median and
range over the seeds. Corrections: full / shortened / refused by the line search, on all levels,
medians. With the seconds of both parts: the finest level alone from the untrained coarse start, and
tanh networks of two layers with as many parameters. Failed: not finite, or diverged.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import saved
import torch

from mgnet import Hierarchy, Level, Reason, Schedule, Smoother, Solution, Solver, Step
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import (
    LBFGS,
    Broyden,
    LeastSquares,
    LevenbergMarquardt,
    TorchOptimizer,
    train,
)

LEVELS = 4
# Sweeps before and after a coarse correction; the coarsest level has twice as many.
SMOOTHERS: dict[str, tuple[Smoother, int]] = {
    "LM": (LevenbergMarquardt(), 1),
    "Broyden": (Broyden(), 5),
    "L-BFGS": (LBFGS(), 5),
    "Adam": (TorchOptimizer(torch.optim.Adam, {"lr": 3e-3}), 20),
}
WAYS = {  # form and letter
    "fine sweeps": ("subspace", ""),
    "V subspace": ("subspace", "V"),
    "F subspace": ("subspace", "F"),
    "V injected": ("injected", "V"),
    "F injected": ("injected", "F"),
}


class Row(NamedTuple):
    """The final figures of a method for one seed."""

    loss: float
    error: float
    cycles: int
    corrections: tuple[int, int, int]
    failed: bool


class Task(NamedTuple):
    """An objective for any network, and the error of a network."""

    objective: Callable[[torch.nn.Module], LeastSquares]
    error: Callable[[torch.nn.Module], float]


def regression(generator: torch.Generator) -> Task:
    x = 2.0 * torch.rand(4000, 2, generator=generator, dtype=torch.float64) - 1.0
    y = torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)
    y = (y - y.mean()) / y.std()

    def error(network: torch.nn.Module) -> float:
        with torch.no_grad():
            return float((network(x[2000:]) - y[2000:]).square().mean().sqrt())

    return Task(lambda network: LeastSquares(network, (x[:2000], y[:2000])), error)


def poisson(generator: torch.Generator) -> Task:
    def exact(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(math.pi * x[:, :1]) * torch.sin(2.0 * math.pi * x[:, 1:])

    interior = 2.0 * torch.rand(600, 2, generator=generator, dtype=torch.float64) - 1.0
    along = 2.0 * torch.rand(160, generator=generator, dtype=torch.float64) - 1.0
    side = torch.ones(160, dtype=torch.float64) - 2.0 * (torch.arange(160) % 2)
    flat = torch.stack([along, side], 1)
    boundary = torch.where((torch.arange(160) < 80).unsqueeze(1), flat, flat.flip(1))
    source = 5.0 * math.pi**2 * exact(interior)
    axis = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)

    def residual(network: Any) -> tuple[torch.Tensor, torch.Tensor]:
        x = interior.clone().requires_grad_()
        (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        laplace = torch.zeros(len(x), 1, dtype=x.dtype)
        for k in (0, 1):
            (second,) = torch.autograd.grad(slope[:, k].sum(), x, create_graph=True)
            laplace = laplace + second[:, k : k + 1]
        return (laplace + source) / 600**0.5, 10.0 * network(boundary) / 160**0.5

    def error(network: torch.nn.Module) -> float:
        with torch.no_grad():
            return float((network(grid) - exact(grid)).norm() / exact(grid).norm())

    return Task(lambda network: LeastSquares.from_torch(network, residual), error)


def kan_of(seed: int) -> KAN:
    return KAN([2, 5, 1], 4, generator=torch.Generator().manual_seed(seed))


def mlp_of(seed: int) -> torch.nn.Module:
    weights = sum(p.numel() for p in kan_of(0).refine(2 ** (LEVELS - 1)).parameters())
    width = round(math.sqrt(6.25 + weights - 1) - 2.5)  # w^2 + 5 w + 1 parameters
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, width)]
    return torch.nn.Sequential(*layers, torch.nn.Tanh(), torch.nn.Linear(width, 1)).double()


def go_on(
    hierarchy: Hierarchy, schedule: str | Schedule, seconds: float, u: torch.Tensor, memory: Any
) -> Solution:
    """Repeat a schedule for some seconds."""
    end = time.perf_counter() + seconds
    solver = Solver(
        hierarchy,
        schedule,
        rtol=0.0,
        max_cycles=10**9,
        monitor=lambda entry, u: time.perf_counter() >= end,
    )
    return solver.solve(u=u, memory=memory)


def row_of(solution: Solution, problem: LeastSquares, task: Task) -> Row:
    network = problem.network
    torch.nn.utils.vector_to_parameters(solution.value, network.parameters())
    told = solution.corrections.values()
    counts = tuple(sum(part) for part in zip(*(each[:3] for each in told), strict=True))
    loss, error = problem.value(solution.value), task.error(network)
    failed = solution.reason in (Reason.NOT_FINITE, Reason.DIVERGED) or not math.isfinite(loss)
    return Row(loss, error, solution.cycles, counts or (0, 0, 0), failed)  # type: ignore[arg-type]


def of_kan(task: Task, name: str, seed: int, seconds: float) -> dict[str, Row]:
    """All ways to go on after one cascade, its end, and the fine level alone."""
    smoother, sweeps = SMOOTHERS[name]
    kan = kan_of(seed)
    forms = {
        form: knot_hierarchy(kan, task.objective(kan), LEVELS, smoother, form=form)
        for form in ("subspace", "injected")
    }
    hierarchy = forms["subspace"]
    problem: Any = hierarchy[0].operator
    u = problem.start()
    smoother.smooth(hierarchy[0], u, None, 1, smoother.start(hierarchy[0], u))  # compiles
    fine = Schedule([Step("post", 0, 2 * sweeps)])
    start = train(hierarchy, u, sweeps=sweeps, seconds=seconds)
    rows = {"after the cascade": row_of(start, problem, task)}
    for way, (form, letter) in WAYS.items():
        schedule = f"{letter}({sweeps},{sweeps},{2 * sweeps})" if letter else fine
        end = go_on(forms[form], schedule, seconds, start.value, start.memory)
        rows[way] = row_of(end, problem, task)
    alone = go_on(hierarchy, fine, 2.0 * seconds, u, None)
    rows["finest level alone"] = row_of(alone, problem, task)
    return rows


def of_mlp(task: Task, name: str, seed: int, seconds: float) -> Row:
    smoother, sweeps = SMOOTHERS[name]
    problem = task.objective(mlp_of(seed))
    level, u = Level(problem, smoother, objective=problem.value), problem.start()
    smoother.smooth(level, u, None, 1, smoother.start(level, u))
    schedule = Schedule([Step("solve", 0, 2 * sweeps)])
    return row_of(go_on(Hierarchy([level]), schedule, 2.0 * seconds, u, None), problem, task)


def medians(rows: list[Row], fine: list[Row] | None) -> saved.Row:
    """Over the seeds; the gain against `fine`, where there is one."""
    errors = [row.error for row in rows]
    found: saved.Row = {"error_median": statistics.median(errors)}
    found |= {"error_least": min(errors), "error_largest": max(errors)}
    found |= {"loss_median": statistics.median(row.loss for row in rows)}
    gains = [a.loss / b.loss for a, b in zip(fine or [], rows, strict=bool(fine)) if b.loss > 0.0]
    if gains:
        found |= {"gain_median": statistics.median(gains)}
        found |= {"gain_least": min(gains), "gain_largest": max(gains)}
    parts = zip(*(row.corrections for row in rows), strict=True)
    counts = [round(statistics.median(part)) for part in parts]
    found["cycles"] = round(statistics.median(row.cycles for row in rows))
    if sum(counts):
        found |= dict(zip(("full", "short", "refused"), counts, strict=True))
    return found | {"failed": sum(row.failed for row in rows)}


def line(row: saved.Row) -> str:
    text = f"  {row['method']:<22} {row['error_median']:>8.1e} {row['error_least']:>8.1e} "
    text += f"{row['error_largest']:>8.1e} {row['loss_median']:>8.1e} "
    text += (
        f"{row['gain_median']:>7.2f} {row['gain_least']:>7.2f} {row['gain_largest']:>7.2f} "
        if "gain_median" in row
        else f"{'':>24}"
    )
    told = f"{row['full']} / {row['short']} / {row['refused']}" if "full" in row else "-"
    return f"{text}{row['cycles']:>7} {told:>18} {row['failed']:>6}"


def table(rows: list[saved.Row]) -> str:
    lines = [
        f"{rows[0]['problem']}, {rows[0]['smoother']}",
        f"  {'':<22} {'error':^26} {'loss':>8} {'gain':^23} {'':>7} {'corrections':>18}",
        f"  {'':<22} {'median':>8} {'least':>8} {'largest':>8} {'median':>8} {'median':>7} "
        f"{'least':>7} {'largest':>7} {'cycles':>7} {'full/short/refused':>18} {'failed':>6}",
    ]
    lines += map(line, rows)
    lowest = min(rows, key=lambda row: row["error_median"])
    return "\n".join([*lines, f"  lowest median error: {lowest['method']}"]) + "\n"


def main() -> None:
    problems = {"regression": regression, "poisson": poisson}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of the cascade, and again")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", nargs="+", choices=problems, default=list(problems))
    parser.add_argument("--smoothers", nargs="+", choices=SMOOTHERS, default=list(SMOOTHERS))
    saved.add_option(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    setting = f"{given.seconds:g} s + {given.seconds:g} s, {given.seeds} seeds"
    lines = [setting, saved.heading(), ""]
    print("\n".join(lines))
    rows: list[saved.Row] = []
    for problem in given.problems:
        for name in given.smoothers:
            runs: dict[str, list[Row]] = {}
            for seed in range(given.seeds):
                task = problems[problem](torch.Generator().manual_seed(seed))
                for way, run in of_kan(task, name, seed, given.seconds).items():
                    runs.setdefault(way, []).append(run)
                if name in ("LM", "Broyden"):
                    run = of_mlp(task, name, seed, given.seconds)
                    runs.setdefault(f"tanh MLP, {name}", []).append(run)
            fine = runs["fine sweeps"]
            of_table = [
                {"problem": problem, "smoother": name, "method": way}
                | medians(of_seeds, fine if way in WAYS else None)
                for way, of_seeds in runs.items()
            ]
            rows += of_table
            lines.append(table(of_table))
            print(lines[-1], flush=True)
    if given.save:
        saved.save(given.save, "guarded_cycles", setting, rows, [], "\n".join(lines))


if __name__ == "__main__":
    main()
