"""Time per cycle beside PyAMG and PETSc: the same matrices, transfers, smoothers and coarse solver.

    OMP_NUM_THREADS=1 python benchmarks/poisson_vs_pyamg.py [points per direction, 1023] [--save]

Each row is one process in which the solvers take turns (mgnet, PyAMG, PETSc, mgnet, ...), set-up
excluded for all; a time is the median of the rounds, a ratio the median of the ratios within the
rounds, with their range. All do the same number of cycles and take a residual norm after each.
"fast" is the extra of that name: compiled loops by numba.
"""

import argparse
import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyamg
import saved

from mgnet import (
    Chebyshev,
    GaussSeidel,
    Hierarchy,
    Injection,
    Jacobi,
    Level,
    Smoother,
    Solver,
    cycle,
    gallery,
    kernels,
)

CYCLES, ROUNDS = 10, 7
JACOBI = 2.0 / 3.0
Timed = Callable[[], float]


def mgnet_solver(n: int, smoother: Smoother, f: np.ndarray) -> Timed:
    hierarchy = gallery.poisson((n, n), smoother=smoother)
    solver = Solver(hierarchy, "V(1,1)", rtol=0.0, max_cycles=CYCLES)
    memory = solver.solve(f).memory

    def solve() -> float:
        began = time.perf_counter()
        solution = solver.solve(f, memory=memory)
        seconds = time.perf_counter() - began
        solve.residual = solution.residual_norms[-1]  # type: ignore[attr-defined]
        return seconds / CYCLES

    return solve


def pyamg_solver(n: int, relax: Callable[..., None], f: np.ndarray) -> Timed:
    levels = []
    for level in gallery.poisson((n, n)):
        part: Any = pyamg.multilevel.MultilevelSolver.Level()
        part.A = level.matrix
        transfer: Any = level.transfer
        if transfer is not None:
            part.P, part.R = transfer.P, transfer.P.T.tocsr()
            part.presmoother = part.postsmoother = relax
        levels.append(part)
    solver = pyamg.multilevel.MultilevelSolver(levels, coarse_solver="splu")
    solver.solve(f, tol=1e-300, maxiter=1)

    def solve() -> float:
        norms: list[float] = []
        began = time.perf_counter()
        solver.solve(f, tol=1e-300, maxiter=CYCLES, residuals=norms)
        seconds = time.perf_counter() - began
        solve.residual = norms[-1]  # type: ignore[attr-defined]
        return seconds / CYCLES

    return solve


def petsc_solver(n: int, options: str, f: np.ndarray) -> Timed | None:
    if importlib.util.find_spec("petsc4py") is None:
        return None
    import petsc4py

    petsc4py.init([])
    from petsc4py import PETSc

    def mat(matrix: Any) -> Any:
        matrix = matrix.tocsr()
        csr = (matrix.indptr.astype("i4"), matrix.indices.astype("i4"), matrix.data)
        return PETSc.Mat().createAIJ(matrix.shape, csr=csr, comm=PETSc.COMM_SELF)

    hierarchy: Any = gallery.poisson((n, n))
    last = len(hierarchy) - 1
    prefix = "bench_"
    PETSc.Options().prefixPush(prefix)
    PETSc.Options().insertString("-ksp_type richardson -ksp_norm_type unpreconditioned " + options)
    PETSc.Options().prefixPop()
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOptionsPrefix(prefix)
    A = mat(hierarchy[0].matrix)
    ksp.setOperators(A)
    pc = ksp.getPC()
    pc.setType("mg")
    pc.setMGLevels(len(hierarchy))
    for number, level in enumerate(hierarchy):
        if level.transfer is not None:
            pc.setMGInterpolation(last - number, mat(level.transfer.P))
            pc.setMGRestriction(last - number, mat(level.transfer.P.T))
        pc.getMGSmoother(last - number).setOperators(mat(level.matrix))
    ksp.setTolerances(rtol=1e-300, atol=1e-300, max_it=CYCLES)
    ksp.setFromOptions()
    b = PETSc.Vec().createWithArray(f.copy(), comm=PETSc.COMM_SELF)
    x = b.duplicate()
    ksp.solve(b, x)

    def solve() -> float:
        x.set(0.0)
        began = time.perf_counter()
        ksp.solve(b, x)
        seconds = time.perf_counter() - began
        solve.residual = (b - A(x)).norm()  # type: ignore[attr-defined]
        return seconds / CYCLES

    return solve


def compare(ours: Timed, peers: dict[str, Timed | None]) -> list[saved.Row]:
    """A row per solver; its ratio is our time over its own."""
    solvers = {"mgnet": ours} | {name: timed for name, timed in peers.items() if timed is not None}
    times: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(ROUNDS):
        for name, timed in solvers.items():
            times[name].append(timed())
    rows = []
    for name, timed in solvers.items():
        ratios = sorted(a / b for a, b in zip(times["mgnet"], times[name], strict=True))
        row: saved.Row = {"method": name, "ms_median": 1e3 * statistics.median(times[name])}
        row |= {"ratio_median": statistics.median(ratios)}
        row |= {"ratio_least": ratios[0], "ratio_largest": ratios[-1]}
        rows.append(row | {"residual": timed.residual})  # type: ignore[attr-defined]
    return rows


def line(rows: list[saved.Row]) -> str:
    """Of one smoother, in print."""
    label = f"{rows[0]['smoother']}, {'with' if rows[0]['fast'] else 'without'} fast"
    text = f"{label:<33} {rows[0]['ms_median']:>6.1f}"
    for peer in ("PyAMG", "PETSc"):
        row = next((row for row in rows if row["method"] == peer), None)
        if row is None:
            text += f" {'-':>6} {'-':>5} {'-':>9}"
            continue
        text += f" {row['ms_median']:>6.1f} {row['ratio_median']:>5.2f}"
        text += f" {row['ratio_least']:.2f}-{row['ratio_largest']:.2f}"
    return "  ".join([text, " ".join(f"{row['residual']:.1e}" for row in rows)])


class Nothing(Smoother):
    """Costs nothing, so that what remains of a cycle is the interpreter."""

    def smooth(self, level: Level, u: Any, f: Any, sweeps: int, memory: Any) -> tuple[Any, Any]:
        return u, memory


class Same(Injection):
    """Hands its argument on."""

    def restrict(self, residual: Any) -> Any:
        return residual

    def prolong(self, correction: Any) -> Any:
        return correction

    inject = None  # type: ignore[assignment]


def interpreter_overhead(levels: int = 8, repeats: int = 2000) -> float:
    """Seconds per V(1,1)-cycle of `Solver` whose operators, transfers and smoothers do nothing."""
    parts = [
        Level(lambda u: u, Nothing(), Same(1), residual=lambda u, f: u) for _ in range(levels - 1)
    ]
    hierarchy, u = Hierarchy([*parts, Level(lambda u: u, Nothing())]), np.full(1, 0.5)
    solver = Solver(hierarchy, cycle(levels), rtol=0.0, max_cycles=CYCLES)
    memory = solver.solve(u, u).memory
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(repeats // 10 // CYCLES):
            solver.solve(u, u, memory)
        best = min(best, (time.perf_counter() - began) / (repeats // 10))
    return best


def case(name: str, fast: bool, n: int) -> list[saved.Row]:
    """The rows of one smoother, in a process of its own: no case inherits another's memory."""
    kernels.available = fast
    relaxation = pyamg.relaxation.relaxation
    levels, f = "-mg_levels_ksp_norm_type none ", gallery.sine((n, n))[1]
    once = levels + "-mg_levels_ksp_type richardson -mg_levels_ksp_max_it 1 "
    if name == "Jacobi 2/3":
        smoother: Smoother = Jacobi(JACOBI)
        options = once + f"-mg_levels_pc_type jacobi -mg_levels_ksp_richardson_scale {JACOBI}"

        def relax(A: Any, x: np.ndarray, b: np.ndarray) -> None:
            relaxation.jacobi(A, x, b, omega=JACOBI)
    elif name == "Gauss-Seidel":
        smoother = GaussSeidel()
        options = once + "-mg_levels_pc_type sor -mg_levels_pc_sor_local_forward"
        relax = relaxation.gauss_seidel
    else:
        # PETSc and PyAMG get the interval that mgnet estimates, rounded.
        smoother, bounds = Chebyshev(3), (0.1 * 1.95, 1.1 * 1.95)
        options = levels + "-mg_levels_ksp_type chebyshev -mg_levels_ksp_max_it 3 "
        options += "-mg_levels_pc_type jacobi -mg_levels_ksp_chebyshev_eigenvalues {},{}"
        options = options.format(*bounds)
        polynomial = pyamg.relaxation.chebyshev.chebyshev_polynomial_coefficients(*bounds, 3)
        coefficients = -polynomial[:-1] * 0.25 ** np.arange(3, 0, -1)  # the diagonal is 4

        def relax(A: Any, x: np.ndarray, b: np.ndarray) -> None:
            relaxation.polynomial(A, x, b, coefficients=coefficients)

    peers = {"PyAMG": pyamg_solver(n, relax, f), "PETSc": petsc_solver(n, options, f)}
    rows = compare(mgnet_solver(n, smoother, f), peers)
    return [{"smoother": name, "fast": fast} | row for row in rows]


# (smoother, with `fast`, peer, most): time per cycle over the peer's
TARGETS = [
    ("Jacobi 2/3", True, "PyAMG", 1.1),
    ("Jacobi 2/3", False, "PyAMG", 1.0),
    ("Gauss-Seidel", True, "PETSc", 1.0),
]


def targets(rows: list[saved.Row], overhead: float) -> list[saved.Row]:
    found = []
    for smoother, fast, peer, most in TARGETS:
        for row in rows:
            if (row["smoother"], row["fast"], row["method"]) == (smoother, fast, peer):
                told, ratio = "with" if fast else "without", row["ratio_median"]
                name = f"time per cycle over {peer}'s, {smoother}, {told} `fast`"
                wanted = f"at most {most:.2f}"
                found.append(saved.target(name, wanted, f"{ratio:.2f}", ratio <= most))
    name = "interpreter alone, a V-cycle on 8 levels"
    return [*found, saved.target(name, "below 0.1 ms", f"{overhead:.3f} ms", overhead < 0.1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("n", type=int, nargs="?", default=1023, help="points per direction")
    saved.add_option(parser)
    given = parser.parse_args()
    n = given.n
    if importlib.util.find_spec("petsc4py"):
        import petsc4py  # noqa: F401 (its version is told)
    setting = f"Poisson, {n} x {n} unknowns, V(1,1), {CYCLES} cycles, {ROUNDS} alternating rounds"
    lines = [
        setting,
        saved.heading(),
        "",
        f"{'milliseconds per cycle,':<33} {'':>6} {'':>6} {'mgnet/PyAMG':>15} "
        f"{'':>6} {'mgnet/PETSc':>15}   residual norms",
        f"{'medians':<33} {'mgnet':>6} {'PyAMG':>6} {'ratio':>5} {'range':>9} "
        f"{'PETSc':>6} {'ratio':>5} {'range':>9}   after {CYCLES} cycles",
    ]
    print("\n".join(lines), flush=True)
    rows: list[saved.Row] = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in ("Jacobi 2/3", "Gauss-Seidel", "Chebyshev, degree 3"):
            for fast in (True, False) if kernels.available else (False,):
                of_case = pool.apply(case, (name, fast, n))
                rows += of_case
                lines.append(line(of_case))
                print(lines[-1], flush=True)
    overhead = 1e3 * interpreter_overhead()
    lines += [
        f"\ninterpreter alone, V(1,1) on 8 levels by Solver: {overhead:.3f} ms per cycle",
        "targets: Jacobi at most 1.10 times PyAMG, without fast 1.00; Gauss-Seidel with fast at "
        "most 1.00 times PETSc; interpreter below 0.1 ms",
    ]
    print("\n".join(lines[-2:]))
    if given.save:
        found = targets(rows, overhead)
        saved.save(given.save, "poisson_vs_pyamg", setting, rows, found, "\n".join(lines))


if __name__ == "__main__":
    main()
