"""Differential equations by networks: errors against independent references, at equal seconds.

    OMP_NUM_THREADS=1 python benchmarks/pinn.py [--problems burgers shock poisson interface
        allen-cahn paper regression] [--rows nested "at once" LM Broyden] [--seeds 1 2 3 4 5]
        [--seconds SECONDS] [--save]

Seconds are per run; those of each problem's target by default. All rows of a problem have the same
residuals, hard constraints, and points drawn in the same way: half of them where the residual is
large, again every few steps.

    KAN, nested        Levenberg-Marquardt from few knots to many, exact refinement
    KAN, fine at once  the finest level from the start, which is the coarsest level's start refined
    tanh MLP, LM       Levenberg-Marquardt, derivatives and Jacobian by autograd
    tanh MLP, Broyden  self-scaled Broyden on the same network and points; new points when it
                       restarts, every 500 steps; its inverse Hessian is kept

A seed draws the points and the initial parameters; configurations were chosen on seed 0. The error
is that of u on a grid, in L2, relative to the reference (benchmarks/pinn_references.py). "loss" is
the weighted mean of squares of the residuals as they are written in benchmarks/pinn_problems.py. A
run fails if its error is above 10 times the target. "paper" is judged by the loss of arXiv
2603.04827 (no hard constraints) on its 64 x 64 points and on 256 x 256, which the runs never see as
such; "regression" is benchmarks/pinn_regression.py.

With --save every run is appended to results/pinn.jsonl when it ends; runs that are there with the
same network and seconds are not repeated, and the tables use all of them.
"""

import argparse
import os
import platform
import time

import pinn_regression
import torch
from pinn_problems import PROBLEMS, Problem, lattice
from pinn_tables import Run, read, store, tables

from mgnet import Level, Smoother
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import Ansatz, Broyden, Collocation, LevenbergMarquardt, by_residual

LM = LevenbergMarquardt()


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
    smoother: Smoother = LM,
    sweeps: int = 1,
) -> tuple[torch.Tensor, object, int]:
    """Sweeps for some seconds, with new points every few steps."""
    steps, began = 0, time.perf_counter()
    level = Level(equation, smoother)
    while time.perf_counter() - began < seconds:
        if steps % every == 0:
            candidates = problem.draw(10 * count, generator)
            points = by_residual(equation, u, candidates, count, generator)
            now = equation.with_data(problem.terms(points))
            level = Level(now, smoother, objective=now.value)
        memory = memory or smoother.start(level, u)
        u, memory = smoother.smooth(level, u, None, sweeps, memory)  # type: ignore[arg-type]
        steps += sweeps
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
    losses = [equation.with_data(problem.terms(p)).mean_square(u) for p in points]
    return Run(len(u), steps, seconds, error, *losses)


def nested(problem: Problem, seed: int, seconds: float, at_once: bool = False) -> Run:
    """A KAN, upward through its knots; or all the seconds on the finest level."""
    plan, generator = problem.plan, torch.Generator().manual_seed(seed)
    kan = KAN(plan.widths, plan.intervals, plan.degree, linear=plan.linear, generator=generator)
    first = problem.draw(plan.points[0], generator)
    coarsest = around(problem, kan)
    equation = Collocation(coarsest, problem.terms(first))
    hierarchy = knot_hierarchy(coarsest, equation, len(plan.points), LM)
    u, memory, steps, began = equation.start(), None, 0, time.perf_counter()
    for stage, (count, share) in enumerate(zip(plan.points, plan.shares, strict=True)):
        level = len(hierarchy) - 1 - stage
        if stage:
            u = hierarchy[level].transfer.interpolate(u)  # type: ignore[union-attr]
        if at_once:
            share = 0.0 if level else 1.0
        equation = hierarchy[level].operator
        u, memory, more = descend(
            problem, equation, u, count, share * seconds, plan.every, generator, memory
        )
        steps += more
    return judge(problem, equation, u, steps, began)


def fine_at_once(problem: Problem, seed: int, seconds: float) -> Run:
    return nested(problem, seed, seconds, at_once=True)


def mlp(problem: Problem, seed: int, seconds: float, broyden: bool = False) -> Run:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in zip(problem.mlp[:-1], problem.mlp[1:], strict=True):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.Tanh()]
    network = around(problem, torch.nn.Sequential(*layers[:-1]).double())
    plan, generator = problem.plan, torch.Generator().manual_seed(seed)
    count = plan.points[-1]
    equation = Collocation(network, problem.terms(problem.draw(count, generator)))
    every, smoother, sweeps = (500, Broyden(), 10) if broyden else (plan.every, LM, 1)
    u, began = equation.start(), time.perf_counter()
    u, _, steps = descend(
        problem, equation, u, count, seconds, every, generator, None, smoother, sweeps
    )
    return judge(problem, equation, u, steps, began)


def mlp_by_broyden(problem: Problem, seed: int, seconds: float) -> Run:
    return mlp(problem, seed, seconds, broyden=True)


ROWS = {"nested": nested, "at once": fine_at_once, "LM": mlp, "Broyden": mlp_by_broyden}


def network_of(problem: Problem | pinn_regression.Regression, row: str) -> str:
    """What the runs of a row have in common: runs of other networks are other runs."""
    plan = problem.plan
    if row in ("LM", "Broyden"):
        return f"tanh {list(problem.mlp)}, {plan.points[-1]} points"
    linear = "linear, " if plan.linear else ""
    return (
        f"{linear}{list(plan.widths)}, degree {plan.degree}, intervals {plan.intervals} to "
        f"{plan.intervals * 2 ** (len(plan.points) - 1)}, points {list(plan.points)}, shares "
        f"{list(plan.shares)}, new points every {plan.every}"
    )


def main() -> None:
    names = [*PROBLEMS, "regression"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", nargs="+", choices=names, default=names)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--seconds", type=float, help="per run; the target's by default")
    parser.add_argument("--save", action="store_true", help="keep the runs, and the tables")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    machine = (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}"
    )
    runs = read() if given.save else []
    done = {(run["problem"], run["row"], run["network"], run["seed"], run["asked"]) for run in runs}
    nested(PROBLEMS["poisson"](), 0, 0.01)  # compiles, which is not to be timed
    for name in given.problems:
        problem = pinn_regression.PROBLEM if name == "regression" else PROBLEMS[name]()
        ways = pinn_regression.ROWS if name == "regression" else ROWS
        seconds = given.seconds or problem.seconds
        for row in given.rows:
            network = network_of(problem, row)
            for seed in given.seeds:
                if (name, row, network, seed, seconds) in done:
                    continue
                run = ways[row](problem, seed, seconds)
                about = {"problem": name, "title": problem.title, "target": problem.target}
                about |= {"classical": problem.classical, "row": row, "network": network}
                about |= {"seed": seed, "asked": seconds, "machine": machine}
                runs.append(about | run._asdict())
                print(name, row, seed, *(f"{value:.3g}" for value in run), flush=True)
                if given.save:
                    store(runs[-1])
        text = tables(runs, given.save)
    print(text)


if __name__ == "__main__":
    main()
