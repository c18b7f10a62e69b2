"""3-D Poisson on one rank and on two: our cycle on Mats beside PETSc's PCMG with the same parts.

    mpiexec -n 2 python benchmarks/poisson_ranks.py [k, 7] [--rounds 5] [--save]

The 7-point stencil on 2^k - 1 points per direction, u = 0 on the boundary and f = 1, in slabs of
planes; trilinear interpolation, its transpose, the same stencil on all levels down to 7 points,
where the system is gathered on every rank. V(1,1) to a residual of 1e-8 |f|, by Jacobi with omega =
6/7 and by Chebyshev of degree 2 with Jacobi, on 0.1 to 1.1 times the largest eigenvalue. PETSc's is
`-ksp_type richardson -pc_type mg` with these matrices, smoothers and norms. On one rank the other
sleeps. Set-up: from assembled matrices to the first cycle, with the estimates of eigenvalues.
Seconds are of whole solves; "product" is one product with the finest matrix, which reads it from
memory: what it gains is the most that a solve can gain. All in one run, in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import petsc4py  # noqa: E402

petsc4py.init([])

import saved  # noqa: E402
import scipy.sparse as sp  # noqa: E402
from petsc4py import PETSc  # noqa: E402
from rank_turns import WORLD, timed  # noqa: E402

from mgnet import Chebyshev, Hierarchy, Jacobi, Solver, interpolation_matrix  # noqa: E402
from mgnet.petsc import KSPSmoother  # noqa: E402

RTOL, LEAST, MOST = 1e-8, 1.7, 60
SMOOTHERS = {"Jacobi": Jacobi(6 / 7), "Chebyshev": Chebyshev(2)}
REDUNDANT = {"ksp_type": "preonly", "pc_type": "redundant"}
THEIRS = {
    "Jacobi": {
        "ksp_type": "richardson",
        "ksp_richardson_scale": 6 / 7,
        "ksp_max_it": 1,
        "pc_type": "jacobi",
    },
    "Chebyshev": {
        "ksp_type": "chebyshev",
        "ksp_max_it": 2,
        "pc_type": "jacobi",
        "ksp_chebyshev_esteig": "0,0.1,0,1.1",
    },
}
PRODUCTS = 5  # for one time


class Levels(NamedTuple):
    """Matrices and interpolations, finest first, and a right-hand side."""

    matrices: list[PETSc.Mat]
    prolongations: list[PETSc.Mat]
    f: PETSc.Vec


class Told(NamedTuple):
    """What a solve has taken."""

    seconds: float
    cycles: int = 0
    last_norm: float = 0.0


def planes(n: int, ranks: int) -> list[int]:
    """First planes of the ranks, on all levels where the finest has them, and n."""
    return [round((n + 1) * rank / ranks) for rank in range(ranks)] + [n]


def spread(rows: Any, columns: int, comm: PETSc.Comm) -> PETSc.Mat:
    """The matrix with these rows on this rank, and so many of the columns."""
    rows = sp.csr_matrix(rows)
    rows.sort_indices()
    places = (part.astype(PETSc.IntType) for part in (rows.indptr, rows.indices))
    sizes = (rows.shape[0], None), (columns, None)
    return PETSc.Mat().createAIJ(sizes, csr=(*places, rows.data), comm=comm)


def line(n: int) -> sp.csr_matrix:
    return sp.csr_matrix(sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)))  # type: ignore


def poisson(k: int, comm: PETSc.Comm) -> Levels:
    """All levels, this rank's planes of each."""
    sizes, ranks, rank = [2**j - 1 for j in range(k, 2, -1)], comm.getSize(), comm.getRank()
    own = [planes(n, ranks)[rank : rank + 2] for n in sizes]
    matrices, prolongations = [], []
    for n, (first, last) in zip(sizes, own, strict=True):
        second, one = line(n), sp.csr_matrix(sp.eye(n))
        plane = sp.kron(second, one) + sp.kron(one, second)
        part = slice(first, last)
        rows = sp.kron(second[part], sp.eye(n * n)) + sp.kron(one[part], plane)
        matrices.append(spread(rows / (n + 1), (last - first) * n * n, comm))
    for n, fine, coarse in zip(sizes[1:], own, own[1:], strict=False):
        P = interpolation_matrix(n)
        rows = sp.kron(sp.csr_matrix(P)[slice(*fine)], sp.kron(P, P))
        prolongations.append(spread(rows, (coarse[1] - coarse[0]) * n * n, comm))
    f = matrices[0].createVecRight()
    f.set((sizes[0] + 1.0) ** -3)
    return Levels(matrices, prolongations, f)


def ours(name: str, levels: Levels) -> Callable[[], tuple[Told, Told]]:
    """A function that sets up and solves; then it solves once more."""

    def work() -> tuple[Told, Told]:
        began = time.perf_counter()
        direct = KSPSmoother("direct_", REDUNDANT)
        parts: dict[str, Any] = {"smoother": SMOOTHERS[name], "coarse_solver": direct}
        hierarchy = Hierarchy.from_matrices(levels.matrices, levels.prolongations, **parts)
        memory = Solver(hierarchy, rtol=0.0, max_cycles=1).solve(levels.f).memory
        first = Told(time.perf_counter() - began)
        began = time.perf_counter()
        found = Solver(hierarchy, rtol=RTOL, max_cycles=MOST).solve(levels.f, memory=memory)
        seconds, norms = time.perf_counter() - began, found.residual_norms
        return first, Told(seconds, len(norms) - 1, norms[-1])

    return work


def theirs(name: str, levels: Levels) -> Callable[[], tuple[Told, Told]]:
    def work() -> tuple[Told, Told]:
        began = time.perf_counter()
        ksp = pcmg(name, levels)
        x = levels.f.duplicate()
        ksp.setTolerances(max_it=1)
        ksp.solve(levels.f, x)
        first = Told(time.perf_counter() - began)
        ksp.setTolerances(rtol=RTOL, max_it=MOST)
        began = time.perf_counter()
        ksp.solve(levels.f, x)
        seconds = time.perf_counter() - began
        r = levels.f - levels.matrices[0] * x
        told = Told(seconds, ksp.getIterationNumber(), r.norm())
        ksp.destroy()
        return first, told

    return work


def pcmg(name: str, levels: Levels) -> PETSc.KSP:
    """PETSc's multigrid with the matrices, transfers and smoothers of mgnet."""
    count, comm = len(levels.matrices), levels.f.getComm()
    ksp = PETSc.KSP().create(comm)
    ksp.setOptionsPrefix("pcmg_")
    ksp.setOperators(levels.matrices[0])
    ksp.setType("richardson")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    pc = ksp.getPC()
    pc.setType("mg")
    pc.setMGLevels(count)
    database = PETSc.Options("pcmg_")
    for option, value in THEIRS[name].items():
        database.setValue(f"mg_levels_{option}", value)
    for option, value in REDUNDANT.items():
        database.setValue(f"mg_coarse_{option}", value)
    for number, A in enumerate(levels.matrices):
        place = count - 1 - number
        (pc.getMGSmoother(place) if place else pc.getMGCoarseSolve()).setOperators(A)
        if place:
            pc.setMGInterpolation(place, levels.prolongations[number])
    ksp.setFromOptions()
    ksp.setUp()  # reads the options of the levels
    for option in [*THEIRS[name], *REDUNDANT]:
        for level in ("levels", "coarse"):
            database.delValue(f"mg_{level}_{option}")
    return ksp


def product(levels: Levels) -> Callable[[], None]:
    A, x = levels.matrices[0], levels.f
    y = x.duplicate()

    def work() -> None:
        for _ in range(PRODUCTS):
            A.mult(x, y)

    return work


def measured(k: int, rounds: int) -> list[saved.Row]:
    """Medians and least seconds of all ways, on one rank and on all."""
    problems = {WORLD.size: poisson(k, PETSc.COMM_WORLD)}
    if WORLD.rank == 0:
        problems[1] = poisson(k, PETSc.COMM_SELF)
    ways = [(who, name, ranks) for name in SMOOTHERS for who in ("mgnet", "PCMG")
            for ranks in (1, WORLD.size)]  # fmt: skip
    solves: dict[Any, list[tuple[Told, Told]]] = {way: [] for way in ways}
    products: dict[int, list[float]] = {1: [], WORLD.size: []}
    for _ in range(rounds):
        for ranks, found in products.items():
            work = product(problems[ranks]) if ranks in problems else None
            found.append(timed(work)[0] / PRODUCTS)
        for who, name, ranks in ways:
            make = ours if who == "mgnet" else theirs
            told = timed(make(name, problems[ranks]) if ranks in problems else None)[1]
            PETSc.garbage_cleanup(PETSc.COMM_WORLD)
            if told is not None:
                solves[who, name, ranks].append(told)
    rows = [row("product", "", ranks, found, {}) for ranks, found in products.items()]
    for (who, name, ranks), found in solves.items():
        if found:
            _, cycles, norm = found[0][1]
            more = {"cycles": cycles, "last_norm": norm}
            more["setup_median"] = statistics.median(each[0].seconds for each in found)
            rows.append(row(who, name, ranks, [each[1].seconds for each in found], more))
    return rows


def row(who: str, name: str, ranks: int, seconds: list[float], more: saved.Row) -> saved.Row:
    told = {"method": who, "smoother": name, "ranks": ranks, **more}
    told |= {"seconds_median": statistics.median(seconds), "seconds_least": min(seconds)}
    return told | {"seconds_largest": max(seconds)}


def of(rows: list[saved.Row], method: str, smoother: str, ranks: int) -> saved.Row:
    wanted = method, smoother, ranks
    return next(r for r in rows if (r["method"], r["smoother"], r["ranks"]) == wanted)


def text_of(rows: list[saved.Row]) -> str:
    lines = [f"{'':<18} {'ranks':>5} {'cycles':>6} {'set-up':>7} {'solve':>8} {'least':>8} gain"]
    for r in rows:
        gain = of(rows, r["method"], r["smoother"], 1)["seconds_least"] / r["seconds_least"]
        name = f"{r['method']:<8} {r['smoother']:<9} {r['ranks']:>5} {r.get('cycles', ''):>6}"
        times = f"{r['seconds_median']:>8.4f} {r['seconds_least']:>8.4f} {gain:.2f}"
        lines.append(f"{name} {r.get('setup_median', 0.0):>7.2f} {times}")
    return "\n".join(lines)


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    found = []
    for name in SMOOTHERS:
        one, all_ = (of(rows, "mgnet", name, ranks) for ranks in (1, WORLD.size))
        same = abs(one["last_norm"] / all_["last_norm"] - 1.0)
        what = f"{name}: last residual norms on one rank and on all, relative difference"
        met = same < 1e-6 and one["cycles"] == all_["cycles"]
        found.append(saved.target(what, "below 1e-6, as many cycles", f"{same:.1e}", met))
        gain = one["seconds_least"] / all_["seconds_least"]
        what = f"{name}: seconds of a solve on one rank over those on all"
        found.append(saved.target(what, f"at least {LEAST}", f"{gain:.2f}", gain >= LEAST))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("k", type=int, nargs="?", default=7, help="exponent of the points")
    parser.add_argument("--rounds", type=int, default=5)
    saved.add_option(parser)
    given = parser.parse_args()
    if WORLD.size == 1:
        raise SystemExit(
            "start it on several ranks: mpiexec -n 2 python benchmarks/poisson_ranks.py"
        )
    rows = measured(given.k, given.rounds)
    if WORLD.rank:
        return
    goals = targets(rows)
    text = "\n".join([text_of(rows), *saved.verdicts(goals)])
    print(text)
    if given.save:
        setting = f"2^{given.k} - 1 points per direction, {given.rounds} rounds, least seconds"
        saved.save(given.save, "poisson_ranks", setting, rows, goals, text)


if __name__ == "__main__":
    main()
