"""Levenberg-Marquardt and the exact last layer with 1e5 samples spread over MPI ranks.

    mpiexec -n 2 python benchmarks/sample_parallel.py [--samples 100000] [--rounds 3] [--save]

A product of sines of four variables, float64. "alone" is one process without blocks; "1 rank" the
blocks of `spread_samples` on rank 0, while the others sleep; "P ranks" the same on all. One thread
each. They take turns; a time is the least of the rounds, of three sweeps of Levenberg-Marquardt
(direct solves of the normal equations) from the same start, or of one solution of the last layer.
"equal" tells whether 1 and P ranks end with the same bits, "alone" how far the value is from that
of one process, relative.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import petsc4py  # noqa: E402

petsc4py.init([])

import torch  # noqa: E402
from mpi4py import MPI  # noqa: E402
from petsc4py import PETSc  # noqa: E402

from mgnet import Hierarchy, Level, cascade, run  # noqa: E402
from mgnet.knots import KAN  # noqa: E402
from mgnet.petsc.ranks import end_all_ranks_on_error  # noqa: E402
from mgnet.petsc.spread_least_squares import spread_samples  # noqa: E402
from mgnet.petsc.tsqr import solve_last_layer_  # noqa: E402
from mgnet.training import LeastSquares, LevenbergMarquardt  # noqa: E402
from mgnet.training import solve_last_layer_ as solve_alone_  # noqa: E402

RESULT = Path(__file__).parent / "results" / "sample_parallel.txt"
WORLD = MPI.COMM_WORLD
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
        lambda comm: sweeps(spread_samples(problem, comm)),
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


def sleep_until_all_are_here() -> None:
    request = WORLD.Ibarrier()
    while not request.Test():
        time.sleep(1e-3)


def timed(solve: Solve | None) -> tuple[float, torch.Tensor]:
    """Of what this rank solves, if it does; nothing begins before all are ready."""
    sleep_until_all_are_here()
    began = time.perf_counter()
    found = torch.empty(0) if solve is None else solve()
    seconds = time.perf_counter() - began
    sleep_until_all_are_here()
    return seconds, found


def measured(case: Case, rounds: int) -> str:
    first = WORLD.rank == 0
    ways: list[Solve | None] = [
        case.alone if first else None,
        (lambda: case.spread(PETSc.COMM_SELF)) if first else None,
        lambda: case.spread(PETSc.COMM_WORLD),
    ]
    least, found = [float("inf")] * len(ways), [torch.empty(0)] * len(ways)
    for _ in range(rounds):
        for number, way in enumerate(ways):
            seconds, found[number] = timed(way)
            least[number] = min(least[number], seconds)
    if not first:
        return ""
    alone, one, all_of_them = found
    value = case.value(alone)
    apart = abs(case.value(all_of_them) - value) / value
    equal = "yes" if torch.equal(one, all_of_them) else "NO"
    times = "".join(f"{seconds:>9.3f}" for seconds in least)
    return f"{case.name:<28}{case.parameters:>7}{times}{least[1] / least[2]:>8.2f}{equal:>7}" + (
        f"{apart:>10.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
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
    ranks = WORLD.size
    lines = [
        f"{given.samples} samples, {ranks} ranks of one thread, {os.cpu_count()} cores, "
        f"{platform.machine()}, torch {torch.__version__}, PETSc "
        f"{'.'.join(map(str, PETSc.Sys.getVersion()))}; least of {given.rounds}, seconds",
        f"{'':<28}{'unknowns':>8}{'alone':>8}{'1 rank':>9}{f'{ranks} ranks':>9}{'ratio':>8}"
        f"{'equal':>7}{'alone':>10}",
    ]
    if WORLD.rank == 0:
        print("\n".join(lines), flush=True)
    for case in cases:
        lines.append(measured(case, given.rounds))
        if WORLD.rank == 0:
            print(lines[-1], flush=True)
    if given.save and WORLD.rank == 0:
        RESULT.write_text("\n".join([" ".join(["mpiexec -n", str(ranks), *sys.argv]), *lines, ""]))


if __name__ == "__main__":
    main()
