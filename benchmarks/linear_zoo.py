"""Fifteen linear problems, solved to 1e-8: PyAMG and PETSc as their users take them, and mgnet.

    OMP_NUM_THREADS=1 python benchmarks/linear_zoo.py [--scale 1] [--problems ...] [--save]

Seconds are those of one core, from the matrix to a residual of 1e-8 |f|, which is recomputed here
with the matrix as it was given: a method that believes it is there and is not begins again with a
smaller tolerance, and only its last attempt counts. Every method of a library is tried once (set-up
and solve); the fastest that converges within 200 iterations then takes turns with the fastest of
the others, and a time is the median of the rounds. Compiled loops are compiled before.
`--scale 2` makes meshes twice as wide.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
import warnings
from dataclasses import dataclass
from typing import Any

import saved
import zoo_rivals
from zoo_mgnet import mgnet_methods
from zoo_problems import PROBLEMS, Problem, problem
from zoo_rivals import Method, Setup

RTOL, CAP, ROUNDS = 1e-8, 200, 3
LIBRARIES = "mgnet", "PyAMG", "PETSc"


@dataclass
class Run:
    setup: float
    solve: float
    iterations: int
    residual: float

    @property
    def total(self) -> float:
        return self.setup + self.solve

    @property
    def converged(self) -> bool:
        return self.residual <= RTOL


def once(setup: Setup, given: Problem) -> Run:
    """One set-up and solve to a true residual of RTOL, or as far as the method gets."""
    began = time.perf_counter()
    solve = setup()
    seconds, rtol = time.perf_counter() - began, RTOL
    for _ in range(4):
        began = time.perf_counter()
        x, iterations = solve(rtol, CAP)
        run = Run(seconds, time.perf_counter() - began, iterations, given.residual(x))
        if run.converged or iterations >= CAP or not run.residual < 1e-3:
            return run
        rtol *= 0.9 * RTOL / run.residual
    return run


def methods(library: str, given: Problem) -> dict[str, Method]:
    of = {
        "mgnet": mgnet_methods,
        "PyAMG": zoo_rivals.pyamg_methods,
        "PETSc": zoo_rivals.petsc_methods,
    }
    return of[library](given)


def tried(library: str, given: Problem) -> dict[str, Any]:
    """The run of each method of a library, or the sentence with which it failed."""
    found: dict[str, Any] = {}
    for name, method in methods(library, given).items():
        try:
            found[name] = once(method(given), given)
        except Exception as error:  # whatever a library raises is that row's result
            found[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def case(name: str, scale: int, libraries: tuple[str, ...], rounds: int) -> list[saved.Row]:
    """The rows of one problem, in a process of its own."""
    warnings.simplefilter("ignore")
    small = problem(name, 8 * scale if "3-D" not in name else 4 * scale)
    given, rows = problem(name, scale), list[saved.Row]()
    setups: dict[str, tuple[str, Setup]] = {}
    for library in libraries:
        tried(library, small)  # compiles
        found = tried(library, given)
        for method, run in found.items():
            rows.append(row_of(name, given, library, method, run))
            print(line(rows[-1]), flush=True)
        fit = [(run.total, key) for key, run in found.items() if getattr(run, "converged", False)]
        if fit:
            best = min(fit)[1]
            setups[library] = best, methods(library, given)[best](given)
    runs: dict[str, list[Run]] = {library: [] for library in setups}
    for _ in range(rounds):
        for library, (_, setup) in setups.items():
            runs[library].append(once(setup, given))
    for library, (method, _) in setups.items():
        if rounds:
            middle = statistics.median(run.total for run in runs[library])
            run = min(runs[library], key=lambda run, m=middle: abs(run.total - m))
            rows.append(row_of(name, given, library, method, run) | {"best": True})
            print("*", line(rows[-1]), flush=True)
    return rows


def row_of(name: str, given: Problem, library: str, method: str, run: Any) -> saved.Row:
    row: saved.Row = {"problem": name, "unknowns": given.A.shape[0], "library": library}
    row |= {"method": method, "best": False}
    if isinstance(run, str):
        return row | {"error": run, "converged": False}
    row |= {"setup": run.setup, "solve": run.solve, "total": run.total}
    return row | {
        "iterations": run.iterations,
        "residual": run.residual,
        "converged": run.converged,
    }


def line(row: saved.Row) -> str:
    head = f"{row['problem']:<16} {row['library']:<6} {row['method']:<48}"
    if "error" in row:
        return f"{head} {row['error']}"
    told = f"{row['setup']:7.2f} {row['iterations']:4} {row['solve']:7.2f} {row['total']:7.2f}"
    return f"{head} {told}" + (
        "" if row["converged"] else f"  not converged, {row['residual']:.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=int, default=1, help="1, 2, 4, ...: wider meshes")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of those that are fastest")
    saved.add_option(parser)
    given = parser.parse_args()
    rows: list[saved.Row] = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in given.problems:
            libraries = tuple(given.libraries)
            rows += pool.apply(case, (name, given.scale, libraries, given.rounds))


if __name__ == "__main__":
    main()
