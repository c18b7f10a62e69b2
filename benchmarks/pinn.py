"""Differential equations by networks: errors against independent references, at equal seconds.

    OMP_NUM_THREADS=1 python benchmarks/pinn.py [--problems burgers shock poisson interface
        allen-cahn paper regression] [--seeds 5] [--seconds SCALE] [--save]

Seconds are those of each problem's target, times SCALE. Every row has the same residuals, hard
constraints, points drawn in the same way (half of them where the residual is large, anew every few
steps) and our Levenberg-Marquardt; the rows differ in the network and in the knots:

    KAN, nested        from few knots to many, exact refinement
    KAN, fine at once  the finest level from the start, which is the coarsest level's start refined
    MLP                three or two hidden layers of tanh, derivatives and Jacobian by autograd

A seed draws the points and the initial parameters. The error is that of u on a grid, in L2,
relative to the reference (benchmarks/pinn_references.py). "loss" is the weighted mean of squares of
the residuals as they are written in benchmarks/pinn_problems.py. A run fails if its error is above
10 times the target. "paper" is judged by the loss of arXiv 2603.04827 (no hard constraints) on its
64 x 64 points and on 256 x 256, which the runs never see as such.
"""

import argparse
import os
import platform
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch
from pinn_problems import PROBLEMS, Problem, lattice
from pinn_regression import regression

from mgnet import Level
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import Ansatz, Collocation, LevenbergMarquardt, by_residual

RESULT = Path(__file__).parent / "results" / "pinn.txt"
SMOOTHER = LevenbergMarquardt()


class Run(NamedTuple):
    """Of one seed."""

    parameters: int
    steps: int
    seconds: float
    error: float
    loss: float
    loss_on_256: float


def around(problem: Problem, network: torch.nn.Module) -> Ansatz:
    return Ansatz(network, output=problem.output, features=problem.features)


def descend(
    problem: Problem,
    equation: Collocation,
    u: torch.Tensor,
    count: int,
    seconds: float,
    every: int,
    generator: torch.Generator,
    memory: object = None,
) -> tuple[torch.Tensor, object, int]:
    """Levenberg-Marquardt for some seconds, with new points every few steps."""
    steps, began = 0, time.perf_counter()
    level = Level(equation, SMOOTHER)
    while time.perf_counter() - began < seconds:
        if steps % every == 0:
            candidates = problem.draw(10 * count, generator)
            points = by_residual(equation, u, candidates, count, generator)
            level = Level(equation.at(problem.terms(points)), SMOOTHER)
        memory = memory or SMOOTHER.start(level, u)
        u, memory = SMOOTHER.smooth(level, u, None, 1, memory)  # type: ignore[arg-type]
        steps += 1
    return u, memory, steps


def judge(
    problem: Problem, equation: Collocation, u: torch.Tensor, steps: int, began: float
) -> Run:
    seconds = time.perf_counter() - began
    with torch.no_grad():
        values = equation.flat.evaluate(lambda network: network(problem.grid), u)
    error = float((values - problem.exact).norm() / problem.exact.norm())
    points = [lattice(count) for count in (64, 256)]
    if problem.title.startswith("Poisson"):
        points = [torch.stack([p[:, 0], 2.0 * p[:, 1] - 1.0], 1) for p in points]
    losses = [equation.at(problem.terms(p)).mean_square(u) for p in points]
    return Run(len(u), steps, seconds, error, *losses)


def nested(problem: Problem, seed: int, scale: float, at_once: bool = False) -> Run:
    """A KAN, upward through its knots; or all the seconds on the finest level."""
    plan, generator = problem.plan, torch.Generator().manual_seed(seed)
    kan = KAN(plan.widths, plan.intervals, plan.degree, linear=plan.linear, generator=generator)
    first = problem.draw(plan.points[0], generator)
    coarsest = around(problem, kan)
    equation = Collocation(coarsest, problem.terms(first))
    hierarchy = knot_hierarchy(coarsest, equation, len(plan.points), SMOOTHER)
    u, memory, steps, began = equation.start(), None, 0, time.perf_counter()
    for stage, (count, share) in enumerate(zip(plan.points, plan.shares, strict=True)):
        level = len(hierarchy) - 1 - stage
        if stage:
            u = hierarchy[level].transfer.interpolate(u)  # type: ignore[union-attr]
        if at_once:
            share = 0.0 if level else 1.0
        equation = hierarchy[level].operator
        seconds = share * scale * problem.seconds
        u, memory, more = descend(
            problem, equation, u, count, seconds, plan.every, generator, memory
        )
        steps += more
    return judge(problem, equation, u, steps, began)


def mlp(problem: Problem, seed: int, scale: float) -> Run:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in zip(problem.mlp[:-1], problem.mlp[1:], strict=True):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.Tanh()]
    network = around(problem, torch.nn.Sequential(*layers[:-1]).double())
    plan, generator = problem.plan, torch.Generator().manual_seed(seed)
    count = plan.points[-1]
    first = problem.draw(count, generator)
    equation = Collocation(network, problem.terms(first))
    began = time.perf_counter()
    seconds = scale * problem.seconds
    u, _, steps = descend(
        problem, equation, equation.start(), count, seconds, plan.every, generator
    )
    return judge(problem, equation, u, steps, began)


def table(problem: Problem, runs: dict[str, list[Run]]) -> str:
    by_loss = "loss" in problem.target
    limit = 10.0 * float(problem.target.removeprefix("loss ").split()[0])
    lines = [
        f"{problem.title}; target {problem.target}; {problem.classical}",
        f"{'':<20}{'':>8} {'relative L2 error':^26} {'loss (64 x 64, 256 x 256)':^27}",
        f"{'':<20}{'weights':>8} {'median':>8} {'least':>8} {'largest':>8} {'median':>8} "
        f"{'largest':>8} {'median':>8} {'steps':>6} {'seconds':>8} {'failed':>7}",
    ]
    for name, of_seeds in runs.items():
        errors = sorted(run.error for run in of_seeds)
        losses = [sorted(run[place] for run in of_seeds) for place in (4, 5)]
        failed = sum(not (run.loss if by_loss else run.error) <= limit for run in of_seeds)
        lines.append(
            f"{name:<20}{of_seeds[0].parameters:>8} {statistics.median(errors):>8.1e} "
            f"{errors[0]:>8.1e} {errors[-1]:>8.1e} {statistics.median(losses[0]):>8.1e} "
            f"{losses[0][-1]:>8.1e} {statistics.median(losses[1]):>8.1e} "
            f"{statistics.median(run.steps for run in of_seeds):>6.0f} "
            f"{statistics.median(run.seconds for run in of_seeds):>8.1f} {failed:>7}"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    names = [*PROBLEMS, "regression"]
    parser.add_argument("--problems", nargs="+", choices=names, default=names)
    parser.add_argument("--only", choices=["nested", "at once", "mlp"], help="one row")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, metavar="SCALE")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    text = [
        f"{given.seeds} seeds, {given.seconds:g} of the seconds, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, {platform.machine()}, PyTorch {torch.__version__}\n"
    ]
    print(text[0], flush=True)
    KAN([1, 1])(torch.ones(1, 1).double())  # the first call compiles, which is not to be timed
    for name in given.problems:
        if name == "regression":
            text.append(regression(given.seeds, given.seconds))
        else:
            problem = PROBLEMS[name]()
            ways = {
                "nested": ("KAN, nested", nested),
                "at once": ("KAN, fine at once", lambda p, s, k: nested(p, s, k, at_once=True)),
                "mlp": ("MLP", mlp),
            }
            chosen = [way for key, way in ways.items() if given.only in (None, key)]
            runs = {
                title: [train(problem, seed, given.seconds) for seed in range(given.seeds)]
                for title, train in chosen
            }
            text.append(table(problem, runs))
        print(text[-1], flush=True)
    if given.save:
        RESULT.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
