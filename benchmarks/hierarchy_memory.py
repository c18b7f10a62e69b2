"""Memory of a hierarchy and a solve: mgnet beside PyAMG, Poisson on 1023 x 1023 unknowns.

    OMP_NUM_THREADS=1 python benchmarks/hierarchy_memory.py [points per direction, 1023] [--save]

MiB at the peak from before the hierarchy is made to the solution, residual 1e-8, the matrix and the
right-hand side included. Each row is a process of its own, which has solved a small problem before:
imports and compiled loops are not counted. Linux alone tells the peak.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyamg
import saved
from calls import growth

from mgnet import CG, GaussSeidel, Hierarchy, Solver, gallery

Work = Callable[[], Any]
SWEEPS: dict[str, Any] = {"smoother": GaussSeidel(), "post_smoother": GaussSeidel("backward")}


def gallery_alone(A: Any, f: np.ndarray) -> np.ndarray:
    n = round(len(f) ** 0.5)
    return solved(gallery.poisson((n, n), **SWEEPS), f)


def geometric(A: Any, f: np.ndarray) -> np.ndarray:
    n = round(len(f) ** 0.5)
    return solved(Hierarchy.geometric((n, n), A), f)


def from_ruge_stuben(A: Any, f: np.ndarray) -> np.ndarray:
    return solved(Hierarchy.from_pyamg(pyamg.ruge_stuben_solver(A), **SWEEPS), f)


def from_aggregation(A: Any, f: np.ndarray) -> np.ndarray:
    return solved(Hierarchy.from_pyamg(pyamg.smoothed_aggregation_solver(A), **SWEEPS), f)


def solved(hierarchy: Hierarchy, f: np.ndarray) -> np.ndarray:
    return Solver(hierarchy, acceleration=CG()).solve(f).require().value


def ruge_stuben(A: Any, f: np.ndarray) -> Any:
    return pyamg.ruge_stuben_solver(A).solve(f, tol=1e-8, accel="cg")


def aggregation(A: Any, f: np.ndarray) -> Any:
    return pyamg.smoothed_aggregation_solver(A).solve(f, tol=1e-8, accel="cg")


CASES: dict[str, Callable[[Any, np.ndarray], np.ndarray]] = {
    "PyAMG, ruge_stuben_solver": ruge_stuben,
    "PyAMG, smoothed_aggregation_solver": aggregation,
    "mgnet, Hierarchy.geometric": geometric,
    "mgnet, gallery.poisson": gallery_alone,
    "mgnet, from_pyamg, Ruge-Stuben": from_ruge_stuben,
    "mgnet, from_pyamg, aggregation": from_aggregation,
}

RUGE_STUBEN, AGGREGATION = list(CASES)[:2]
BESIDE = {  # mgnet's -> PyAMG's with the same levels, or the smaller of its two
    "mgnet, Hierarchy.geometric": RUGE_STUBEN,
    "mgnet, gallery.poisson": RUGE_STUBEN,
    "mgnet, from_pyamg, Ruge-Stuben": RUGE_STUBEN,
    "mgnet, from_pyamg, aggregation": AGGREGATION,
}


def case(name: str, n: int) -> saved.Row:
    work = CASES[name]
    work(pyamg.gallery.poisson((63, 63), format="csr"), np.ones(63 * 63))
    f = np.random.default_rng(0).standard_normal(n * n)
    found: dict[str, Any] = {}

    def solve() -> None:
        A = None if work is gallery_alone else pyamg.gallery.poisson((n, n), format="csr")
        began = time.process_time()
        found["u"] = work(A, f.copy())
        found["seconds"] = time.process_time() - began

    row: saved.Row = {"method": name, "unknowns": n * n, "mib": growth(solve)}
    left = f - pyamg.gallery.poisson((n, n), format="csr") @ found.pop("u")
    return row | found | {"residual": float(np.linalg.norm(left) / np.linalg.norm(f))}


def line(row: saved.Row) -> str:
    return f"{row['method']:<36}{row['mib']:>8.0f}{row['seconds']:>9.2f}{row['residual']:>11.1e}"


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    """Each hierarchy of mgnet with the one that it is compared with."""
    mib = {row["method"]: row["mib"] for row in rows}
    made = []
    for ours, theirs in BESIDE.items():
        ratio = mib[ours] / mib[theirs]
        name = f"peak of {ours.removeprefix('mgnet, ')} over that of {theirs}"
        made.append(saved.target(name, "at most 1.00", f"{ratio:.3f}", round(ratio, 2) <= 1.0))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("n", type=int, nargs="?", default=1023, help="points per direction")
    saved.add_option(parser)
    given = parser.parse_args()
    setting = f"Poisson, {given.n} x {given.n} unknowns, Gauss-Seidel, V(1,1) inside CG"
    lines = [setting, saved.heading(), "", f"{'':<36}{'MiB':>8}{'seconds':>9}{'residual':>11}"]
    print("\n".join(lines), flush=True)
    rows: list[saved.Row] = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in CASES:
            rows.append(pool.apply(case, (name, given.n)))
            lines.append(line(rows[-1]))
            print(lines[-1], flush=True)
    told = targets(rows)
    lines += ["", *saved.verdicts(told)]
    print("\n".join(lines[-1 - len(told) :]))
    if given.save:
        saved.save(given.save, "hierarchy_memory", setting, rows, told, "\n".join(lines))


if __name__ == "__main__":
    main()
