"""MGRIT for one-step methods beside pyMGRIT: the same problems, cycles and tolerance, one process.

    OMP_NUM_THREADS=1 python benchmarks/mgrit_vs_pymgrit.py [--pymgrit PATH] [--rounds 3] [--save]

PATH is a folder with pyMGRIT, `pip install --target PATH --no-deps pymgrit` (it needs mpi4py and
matplotlib); without it, and where pyMGRIT is not installed, our rows stand alone. The problems are
those of its examples: Dahlquist's equation u' = -u by backward Euler, the heat equation u_t = u_xx
with a sine at the start by backward Euler, the Brusselator by the classical Runge-Kutta method.

FCF-relaxation on all levels, no nested iteration, zero at the start. Both stop when the 2-norm of
the residual over all times is below 1e-7; the histories of residual norms must agree to 1e-6 of the
first, or the script ends with an error. Seconds: set-up and solve, the least of alternating
rounds. "serial": the steps of mgnet one after the other. The error is the largest difference from
them.
"""

import argparse
import importlib.util
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import saved

from mgnet import Solver
from mgnet.depth import OneStep, dahlquist, heat

TOLERANCE, MOST = 1e-7, 50
POINTS = 63


class Case(NamedTuple):
    """A problem, and pyMGRIT's own class for it with the times of a level."""

    name: str
    make: Callable[[], OneStep]  # new for every run, as it keeps the factors of its matrices
    theirs: Callable[[np.ndarray], Any]


class Found(NamedTuple):
    """What one run took and ended with."""

    seconds: float
    residuals: list[float]  # after each cycle
    trajectory: np.ndarray


def slope(u: np.ndarray) -> np.ndarray:
    x, y = u[:, 0], u[:, 1]
    return np.stack([1.0 + x**2 * y - 4.0 * x, 3.0 * x - x**2 * y], axis=1)


def runge_kutta(t: np.ndarray, dt: np.ndarray, u: np.ndarray) -> np.ndarray:
    h = dt[:, None]
    k1 = slope(u)
    k2 = slope(u + h / 2.0 * k1)
    k3 = slope(u + h / 2.0 * k2)
    k4 = slope(u + h * k3)
    return u + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


def their_dahlquist(times: np.ndarray) -> Any:
    from pymgrit.dahlquist.dahlquist import Dahlquist  # type: ignore

    return Dahlquist(t_interval=times)


def their_heat(times: np.ndarray) -> Any:
    from pymgrit.heat.heat_1d import Heat1D  # type: ignore

    return Heat1D(
        x_start=0.0,
        x_end=1.0,
        nx=POINTS + 2,
        a=1.0,
        init_cond=lambda x: np.sin(np.pi * x),
        rhs=lambda x, t: 0.0 * x,
        t_interval=times,
    )


def their_brusselator(times: np.ndarray) -> Any:
    from pymgrit.brusselator.brusselator import Brusselator  # type: ignore

    return Brusselator(t_interval=times)


def cases() -> list[Case]:
    sine = np.sin(np.pi * np.arange(1, POINTS + 1) / (POINTS + 1))
    steps = np.full(640, 12.0 / 640)
    return [
        Case("Dahlquist, 1024 steps", lambda: dahlquist(-1.0, 1024, 5.0), their_dahlquist),
        Case(
            f"heat equation, {POINTS} points, 1024 steps",
            lambda: heat(POINTS, 1024, 0.5, initial=sine),
            their_heat,
        ),
        Case(
            "Brusselator, 640 steps",
            lambda: OneStep(runge_kutta, np.array([0.0, 1.0]), steps),
            their_brusselator,
        ),
    ]


CYCLES = {  # name -> letter and factors; 640 is not a power of 2
    "2 levels": ("V", (16,)),
    "3 levels, V": ("V", (4, 4)),
    "3 levels, F": ("F", (4, 4)),
}


def ours(case: Case, letter: str, factors: tuple[int, ...]) -> Found:
    began = time.perf_counter()
    problem = case.make()
    hierarchy = problem.hierarchy(len(factors) + 1, factors, ("FCF",))
    solver = Solver(hierarchy, f"{letter}(1,1)", rtol=0.0, atol=TOLERANCE, max_cycles=MOST)
    start = np.zeros_like(problem.guess())
    start[0] = problem.initial
    solution = solver.solve(u=start).require()
    seconds = time.perf_counter() - began
    return Found(seconds, list(solution.residual_norms[1:]), solution.value)


def serial(case: Case, letter: str, factors: tuple[int, ...]) -> Found:
    began = time.perf_counter()
    trajectory = case.make().serial()
    return Found(time.perf_counter() - began, [], trajectory)


def theirs(case: Case, letter: str, factors: tuple[int, ...]) -> Found:
    from pymgrit.core.mgrit import Mgrit  # type: ignore

    times = [case.make().times]
    for factor in factors:
        times.append(times[-1][::factor])
    began = time.perf_counter()
    solver = Mgrit(
        problem=[case.theirs(grid) for grid in times],
        nested_iteration=False,
        cycle_type=letter,
        tol=TOLERANCE,
        max_iter=MOST,
        logging_lvl=logging.WARNING,
    )
    told = solver.solve()
    seconds = time.perf_counter() - began
    values = np.array([np.atleast_1d(u.get_values()) for u in solver.u[0]])
    return Found(seconds, [float(value) for value in told["conv"]], values)


def row_of(runs: list[Found], exact: np.ndarray) -> saved.Row:
    last = runs[-1]
    row: saved.Row = {"iterations": len(last.residuals)}
    row |= {"residual": last.residuals[-1] if last.residuals else 0.0}
    row |= {"seconds": min(run.seconds for run in runs)}
    return row | {"error": float(abs(last.trajectory - exact).max())}


def compare(case: Case, cycle: str, rounds: int, peer: bool) -> list[saved.Row]:
    ways = {"mgnet": ours} | ({"pyMGRIT": theirs} if peer else {}) | {"serial": serial}
    runs: dict[str, list[Found]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            runs[name].append(way(case, *CYCLES[cycle]))
    if peer:
        histories = [runs[name][0].residuals for name in ("mgnet", "pyMGRIT")]
        if len(histories[0]) != len(histories[1]) or not np.allclose(
            *histories, rtol=1e-6, atol=1e-6 * histories[0][0]
        ):
            raise ValueError(f"{case.name}, {cycle}: the residual norms differ: {histories}")
    exact = runs["serial"][0].trajectory
    return [
        {"problem": case.name, "cycle": cycle, "method": name} | row_of(found, exact)
        for name, found in runs.items()
    ]


def line(row: saved.Row) -> str:
    return (
        f"  {row['method']:<10} {row['iterations']:>10} {row['residual']:>10.1e} "
        f"{row['error']:>10.1e} {row['seconds']:>10.4f}"
    )


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    theirs = [row for row in rows if row["method"] == "pyMGRIT"]
    if not theirs:
        return []
    same = [row for row in rows if row["method"] == "mgnet"]
    count = sum(a["iterations"] == b["iterations"] for a, b in zip(same, theirs, strict=True))
    measured = f"{count} of {len(theirs)} cases"
    name = "iterations equal to pyMGRIT's"
    return [saved.target(name, "all cases", measured, count == len(theirs))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pymgrit", metavar="PATH")
    parser.add_argument("--rounds", type=int, default=3)
    saved.add_option(parser)
    given = parser.parse_args()
    if given.pymgrit:
        sys.path.append(given.pymgrit)
    peer = importlib.util.find_spec("pymgrit") is not None
    if peer:
        import pymgrit  # type: ignore  # noqa: F401 (its version is told)
    setting = f"tolerance {TOLERANCE:g}, FCF, least of {given.rounds} alternating rounds"
    lines = [setting, saved.heading()]
    if not peer:
        lines.append(
            "pyMGRIT is not installed: mgnet alone (pip install pymgrit, or --pymgrit PATH)"
        )
    print("\n".join(lines), flush=True)
    rows: list[saved.Row] = []
    for case in cases():
        for cycle in CYCLES:
            measured = compare(case, cycle, given.rounds, peer)
            rows += measured
            head = f"  {'':<10} {'iterations':>10} {'residual':>10} {'error':>10} {'seconds':>10}"
            lines.append("\n".join([f"\n{case.name}; {cycle}", head, *map(line, measured)]))
            print(lines[-1], flush=True)
    if given.save:
        found, text = targets(rows), "\n".join(lines)
        saved.save(given.save, "mgrit_vs_pymgrit", setting, rows, found, text)


if __name__ == "__main__":
    main()
