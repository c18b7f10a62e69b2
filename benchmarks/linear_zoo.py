"""Fifteen linear problems, solved to 1e-8: PyAMG and PETSc as their users take them, and mgnet.

    OMP_NUM_THREADS=1 python benchmarks/linear_zoo.py [--scale 1] [--problems ...] [--save]

From the matrix to a residual of 1e-8 |f|, which is recomputed here with the matrix as it was given:
a method that believes it is there and is not begins again with a smaller tolerance, and only its
last attempt counts. Every way of a library is tried on meshes twice as wide, within 100 iterations,
and the three that are fastest there on the problem itself, within 200; the fastest that converges
takes turns with the fastest of the other libraries, each in a process of its own. A time is that of
the processor, one thread, the median of these rounds. Loops that numba compiles are compiled
before. `--scale 2` makes all meshes twice as wide; `--problems` repeats some, and `--save` then
keeps the rows of the others. The L-shape needs scikit-fem and is left out without it.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import math
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import saved
from zoo_mgnet import mgnet_methods
from zoo_problems import PROBLEMS, Method, Problem, Setup, problem
from zoo_pyamg import pyamg_methods

RTOL, CAP, SCREENING_CAP, ROUNDS, FINALISTS = 1e-8, 200, 100, 5, 3


def petsc_methods(given: Problem, ours: bool = False) -> dict[str, Method]:
    """Those of `zoo_petsc.py`, whose import starts MPI; none where PETSc is not installed."""
    if not importlib.util.find_spec("petsc4py"):
        return {}
    import zoo_petsc

    return zoo_petsc.with_our_levels(given) if ours else zoo_petsc.petsc_methods(given)


METHODS: dict[str, Callable[[Problem], dict[str, Method]]] = {
    "mgnet": mgnet_methods,
    "PyAMG": pyamg_methods,
    "PETSc": petsc_methods,
    "PETSc, our levels": partial(petsc_methods, ours=True),
}


@dataclass
class Run:
    """One set-up and solve: seconds, iterations, and the residual over |f|."""

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


def once(setup: Setup, given: Problem, cap: int = CAP) -> Run:
    """One set-up and solve to a true residual of RTOL, or as far as the method gets."""
    gc.collect()  # what the run before has left is not freed on the clock of this one
    began = time.process_time()
    solve = setup()
    seconds, rtol = time.process_time() - began, RTOL
    for _ in range(4):
        began = time.process_time()
        x, iterations = solve(rtol, cap)
        run = Run(seconds, time.process_time() - began, iterations, given.residual(x))
        if run.converged or iterations >= cap or not run.residual < 1e-3:
            break
        rtol *= 0.9 * RTOL / run.residual
    return run


def tried(methods: dict[str, Method], given: Problem, cap: int = CAP) -> dict[str, Run]:
    """The runs of those that converge."""
    found = {}
    for name, method in methods.items():
        try:
            run = once(method(given), given, cap)
        except Exception as error:  # whatever a library raises, its user has no solution
            print(f"  {name}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
            continue
        told = f"{run.setup:.3f} + {run.solve:.3f} s, {run.iterations}, {run.residual:.0e}"
        print(f"  {name}: {told}", flush=True)
        if run.converged:
            found[name] = run
    return found


class Contestant:
    """The fastest way of a library for one problem, in a process of its own.

    In one process a library pays for what another has left: after hypre PETSc's PCMG took three
    times as long to set up.
    """

    def __init__(self, library: str, name: str, scale: int):
        warnings.simplefilter("ignore")
        coarse, self.given = problem(name, 2 * scale), problem(name, scale)
        screened = tried(METHODS[library](coarse), coarse, SCREENING_CAP)
        best = sorted(screened, key=lambda way: screened[way].total)[:FINALISTS]
        methods = METHODS[library](self.given)
        found = tried({way: methods[way] for way in best}, self.given)
        self.way = min(found, key=lambda way: found[way].total) if found else ""
        self.setup = methods[self.way](self.given) if found else None


_contestants: list[Contestant] = []  # one in each process


def enter(library: str, name: str, scale: int) -> str | None:
    """Make this process a library's; its way, "" where none converges, None where it has none."""
    if not METHODS[library](problem(name, 16)):
        return None
    _contestants[:] = [Contestant(library, name, scale)]
    return _contestants[0].way


def turn() -> Run:
    own = _contestants[0]
    if own.setup is None:
        raise RuntimeError("this library has no way that converges")
    return once(own.setup, own.given)


def case(name: str, scale: int, rounds: int) -> list[saved.Row]:
    """The rows of one problem: one for each library."""
    print(name, flush=True)
    libraries = list(METHODS)
    spawn = multiprocessing.get_context("spawn")
    ways, runs = dict[str, str | None](), dict[str, list[Run]]()
    with ExitStack() as stack:
        pools = {library: stack.enter_context(spawn.Pool(1)) for library in libraries}
        for library, pool in pools.items():
            ways[library] = pool.apply(enter, (library, name, scale))
        for _ in range(rounds):
            for library, pool in pools.items():
                if ways[library]:
                    runs.setdefault(library, []).append(pool.apply(turn))
    unknowns = problem(name, scale).A.shape[0]
    return [
        row_of(unknowns, name, own, way, runs.get(own, []))
        for own, way in ways.items()
        if way is not None
    ]


def row_of(unknowns: int, name: str, library: str, way: str, runs: list[Run]) -> saved.Row:
    row: saved.Row = {"problem": name, "unknowns": unknowns, "library": library}
    if not runs:
        return row | {"method": "none converges", "converged": False}
    totals = sorted(run.total for run in runs)
    row |= {"method": way, "converged": all(run.converged for run in runs)}
    row |= {"setup_median": statistics.median(run.setup for run in runs)}
    row |= {"solve_median": statistics.median(run.solve for run in runs)}
    row |= {"total_median": statistics.median(totals)}
    row |= {"total_least": totals[0], "total_largest": totals[-1]}
    return row | {"iterations": runs[0].iterations, "residual": max(r.residual for r in runs)}


def ratios(rows: list[saved.Row]) -> dict[str, float]:
    """Seconds over those of the fastest other, by problem; infinite without convergence."""
    found = {}
    for name in dict.fromkeys(row["problem"] for row in rows):
        mine = [row for row in rows if row["problem"] == name]
        totals = {row["library"]: row["total_median"] for row in mine if row["converged"]}
        rivals = [total for library, total in totals.items() if library != "mgnet"]
        if "mgnet" not in totals:
            found[name] = math.inf
        elif rivals:
            found[name] = totals["mgnet"] / min(rivals)
        else:
            found[name] = 0.0
    return found


def text_of(rows: list[saved.Row]) -> list[str]:
    lines = [
        f"{'problem':<16} {'':<17} {'set-up':>7} {'its':>4} {'solve':>7} {'total':>7} "
        f"{'ratio':>6}  method"
    ]
    for name, ratio in ratios(rows).items():
        for row in (row for row in rows if row["problem"] == name):
            head = f"{name if row['library'] == 'mgnet' else '':<16} {row['library']:<17}"
            if not row["converged"]:
                lines.append(f"{head} {'':>35}  {row['method']}")
                continue
            told = f"{row['setup_median']:>7.3f} {row['iterations']:>4} {row['solve_median']:>7.3f}"
            told += f" {row['total_median']:>7.3f}"
            own = f"{ratio:>6.2f}" if row["library"] == "mgnet" else f"{'':>6}"
            lines.append(f"{head} {told} {own}  {row['method']}")
    return lines


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    found = ratios(rows)
    fast, most = sum(ratio <= 1.0 for ratio in found.values()), max(found.values())
    half, slowest = math.ceil(len(found) / 2), max(found, key=lambda name: found[name])
    converged = sum(row["converged"] for row in rows if row["library"] == "mgnet")
    return [
        saved.target(
            "problems on which mgnet is not slower than the fastest of the others",
            f"at least {half} of {len(found)}",
            str(fast),
            fast >= half,
        ),
        saved.target(
            "seconds over those of the fastest of the others, the slowest problem",
            "at most 2",
            f"{most:.2f} ({slowest})",
            most <= 2.0,
        ),
        saved.target(
            "problems that mgnet solves",
            f"all {len(found)}",
            str(converged),
            converged == len(found),
        ),
    ]


def with_others(rows: list[saved.Row], file: Path) -> list[saved.Row]:
    """The rows, and those of other problems that are saved already."""
    kept = json.loads(file.read_text())["rows"] if file.is_file() else []
    new = {row["problem"] for row in rows}
    rows = [*rows, *(row for row in kept if row["problem"] not in new)]
    return sorted(rows, key=lambda row: list(PROBLEMS).index(row["problem"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=int, default=1, help="1, 2, 4: meshes as many times wider")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the fastest of each library")
    saved.add_option(parser)
    given = parser.parse_args()
    names: list[str] = list(given.problems)
    if "L-shape" in names and not importlib.util.find_spec("skfem"):
        print("L-shape: left out, scikit-fem is not installed")
        names.remove("L-shape")
    for other in ("numba", "petsc4py"):  # to record their versions
        if importlib.util.find_spec(other):
            importlib.import_module(other)
    rows: list[saved.Row] = []
    for name in names:
        own = case(name, given.scale, given.rounds)
        rows += own
        print("\n".join(text_of(own)), flush=True)
    if given.save:
        rows = with_others(rows, given.save / "linear_zoo.json")
    setting = f"residual 1e-8, {given.rounds} alternating rounds, processor seconds"
    told: Any = targets(rows)
    lines = [setting, saved.heading(), "", *text_of(rows), "", *saved.verdicts(told)]
    print("\n".join(lines))
    if given.save:
        saved.save(given.save, "linear_zoo", setting, rows, told, "\n".join(lines))


if __name__ == "__main__":
    main()
