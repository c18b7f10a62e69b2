"""Levenberg-Marquardt and the exact last layer with 1e5 samples spread over MPI ranks.

    mpiexec -n 2 python benchmarks/sample_parallel.py [--samples 100000] [--rounds 3] [--save]

A product of sines of four variables, float64. "alone" is one process without blocks; "1 rank" the
blocks of `distribute_samples` on rank 0, while the others sleep; "P ranks" the same on all. One
thread each. They take turns; a time is the least of the rounds, of three sweeps of
Levenberg-Marquardt (direct solves of the normal equations) from the same start, or of one solution
of the last layer. "ratio" is 1 rank over P, of least times and of medians; "equal" tells whether 1
and P ranks end with the same bits, "alone" how far the value is from that of one process, relative.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from typing import NamedTuple

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import petsc4py  # noqa: E402

petsc4py.init([])

import saved  # noqa: E402
import torch  # noqa: E402
from petsc4py import PETSc  # noqa: E402
from rank_turns import WORLD, timed  # noqa: E402

from mgnet import Hierarchy, Level, cascade, run  # noqa: E402
from mgnet.knots import KAN  # noqa: E402
from mgnet.petsc.distributed_least_squares import distribute_samples  # noqa: E402
from mgnet.petsc.hooks import end_all_ranks_on_error  # noqa: E402
from mgnet.petsc.tsqr import solve_last_layer_  # noqa: E402
from mgnet.training import LeastSquares, LevenbergMarquardt  # noqa: E402
from mgnet.training import solve_last_layer_ as solve_alone_  # noqa: E402

GOAL = 1.6
Solve = Callable[[], torch.Tensor]


class Case(NamedTuple):
    """What is solved by one process, and on the ranks of a communicator."""

    name: str
    parameters: int
    alone: Solve
    spread: Callable[[PETSc.Comm], torch.Tensor]
    value: Callable[[torch.Tensor], float]


def tanh(*widths: int) -> torch.nn.Module:
    torch.manual_seed(0)
    parts: list[torch.nn.Module] = []
    for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
        parts += [torch.nn.Linear(inputs, outputs), torch.nn.Tanh()]
    return torch.nn.Sequential(*parts[:-1]).double()


def training(name: str, network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Case:
    problem = LeastSquares(network, (x, y))

    def sweeps(problem: LeastSquares) -> torch.Tensor:
        hierarchy = Hierarchy([Level(problem, LevenbergMarquardt())])
        return run(cascade([3]), hierarchy, problem.start(), None)[0]

    return Case(
        name,
        len(problem.start()),
        lambda: sweeps(problem),
        lambda comm: sweeps(distribute_samples(problem, comm)),
        problem.value,
    )


def last_layer(features: int, x: torch.Tensor, y: torch.Tensor) -> Case:
    network = tanh(x.shape[1], features, 1)
    problem = LeastSquares(network, (x, y))

    def solved(solve: Callable[[torch.nn.Module], torch.nn.Module]) -> torch.Tensor:
        solve(network)
        return torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()

    return Case(
        f"last layer, {features} features",
        features + 1,
        lambda: solved(lambda net: solve_alone_(net, [(x, y)], rcond=1e-12)),
        lambda comm: solved(lambda net: solve_last_layer_(net, (x, y), rcond=1e-12, comm=comm)),
        problem.value,
    )


def measured(case: Case, rounds: int) -> saved.Row:
    """On rank 0 a row of the table; elsewhere the times of nothing."""
    first = WORLD.rank == 0
    ways: list[Solve | None] = [
        case.alone if first else None,
        (lambda: case.spread(PETSc.COMM_SELF)) if first else None,
        lambda: case.spread(PETSc.COMM_WORLD),
    ]
    times: list[list[float]] = [[] for _ in ways]
    found: list[torch.Tensor | None] = [None] * len(ways)
    for _ in range(rounds):
        for number, way in enumerate(ways):
            seconds, found[number] = timed(way)
            times[number].append(seconds)
    row: saved.Row = {"case": case.name, "unknowns": case.parameters, "ranks": WORLD.size}
    for name, taken in zip(("alone", "one_rank", "all_ranks"), times, strict=True):
        row |= {f"{name}_s_least": min(taken), f"{name}_s_median": statistics.median(taken)}
    row |= {
        f"ratio_{kind}": row[f"one_rank_s_{kind}"] / row[f"all_ranks_s_{kind}"]
        for kind in ("least", "median")
    }
    alone, one, together = found
    if alone is None or one is None or together is None:
        return row
    value = case.value(alone)
    apart = abs(case.value(together) - value) / value
    return row | {"equal": torch.equal(one, together), "apart": apart}


def shown(row: saved.Row) -> str:
    times = "".join(f"{row[f'{way}_s_least']:>9.3f}" for way in ("alone", "one_rank", "all_ranks"))
    ratios = f"{row['ratio_least']:>8.2f}{row['ratio_median']:>8.2f}"
    equal = "yes" if row["equal"] else "NO"
    return f"{row['case']:<28}{row['unknowns']:>7}{times}{ratios}{equal:>7}{row['apart']:>10.1e}"


def goals(rows: list[saved.Row]) -> list[saved.Row]:
    found = []
    for row in rows:
        met = row["ratio_least"] >= GOAL and row["equal"]
        told = f"{row['ratio_least']:.2f}, {'the same' if row['equal'] else 'OTHER'} bits"
        name = f"{row['case']}, {WORLD.size} ranks over 1"
        found.append(saved.target(name, f">= {GOAL}, the same bits", told, met))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    saved.add_option(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    end_all_ranks_on_error()
    generator = torch.Generator().manual_seed(0)
    x = 2.0 * torch.rand(given.samples, 4, dtype=torch.float64, generator=generator) - 1.0
    y = torch.sin(torch.pi * x).prod(1, keepdim=True)
    cases = [
        training("KAN [4, 8, 1], 16 intervals", KAN([4, 8, 1], 16), x, y),
        training("KAN [4, 8, 1], 32 intervals", KAN([4, 8, 1], 32), x, y),
        training("tanh [4, 16, 16, 1]", tanh(4, 16, 16, 1), x, y),
        last_layer(128, x, y),
    ]
    ranks, rows = WORLD.size, []
    lines = [
        saved.heading(),
        f"{given.samples} samples, {ranks} ranks of one thread; least of {given.rounds}, seconds",
        f"{'':<28}{'unknowns':>8}{'alone':>8}{'1 rank':>9}{f'{ranks} ranks':>9}{'ratio':>8}"
        f"{'median':>8}{'equal':>7}{'alone':>10}",
    ]
    if WORLD.rank == 0:
        print("\n".join(lines), flush=True)
    for case in cases:
        rows.append(measured(case, given.rounds))
        if WORLD.rank == 0:
            lines.append(shown(rows[-1]))
            print(lines[-1], flush=True)
    if WORLD.rank != 0:
        return
    targets = goals(rows)
    for each in targets:
        met = "met" if each["met"] else "NOT met"
        lines.append(f"{each['name']}: {each['measured']} (target {each['target']}, {met})")
        print(lines[-1], flush=True)
    if given.save:
        setting = f"{given.samples} samples, {given.rounds} rounds"
        saved.save(given.save, "sample_parallel", setting, rows, targets, "\n".join(lines))


if __name__ == "__main__":
    main()
