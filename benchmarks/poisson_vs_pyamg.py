"""Time per cycle beside PyAMG and PETSc: the same matrices, transfers, smoothers and coarse solver.

    OMP_NUM_THREADS=1 python benchmarks/poisson_vs_pyamg.py [points per direction, 1023]

Every row is measured in this one run, in turns (mgnet, PyAMG, PETSc, mgnet, ...), set-up excluded
for all; a time is the median of the rounds, a ratio the median of the ratios within the rounds.
All three stop after the same number of cycles and compute a residual norm after each.
"""

import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyamg
import scipy

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
    run,
)

CYCLES, ROUNDS = 5, 7
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
    prefix = f"bench{abs(hash(options))}_"
    PETSc.Options().prefixPush(prefix)
    PETSc.Options().insertString("-ksp_type richardson -ksp_norm_type unpreconditioned " + options)
    PETSc.Options().prefixPop()
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOptionsPrefix(prefix)
    ksp.setOperators(mat(hierarchy[0].matrix))
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
        solve.residual = ksp.getResidualNorm()  # type: ignore[attr-defined]
        return seconds / CYCLES

    return solve


def compare(name: str, ours: Timed, peers: dict[str, Timed | None]) -> None:
    times: dict[str, list[float]] = {"mgnet": []}
    for _ in range(ROUNDS):
        times["mgnet"].append(ours())
        for peer, timed in peers.items():
            if timed is not None:
                times.setdefault(peer, []).append(timed())
    row = f"{name:<28} {1e3 * statistics.median(times['mgnet']):>9.1f}"
    for peer, timed in peers.items():
        if timed is None:
            row += f" {'-':>9} {'-':>6} {'-':>13}"
            continue
        ratios = sorted(a / b for a, b in zip(times["mgnet"], times[peer], strict=True))
        spread = f"{ratios[0]:.2f}..{ratios[-1]:.2f}"
        row += f" {1e3 * statistics.median(times[peer]):>9.1f}"
        row += f" {statistics.median(ratios):>6.2f} {spread:>13}"
    residuals = [f"{t.residual:.2e}" for t in (ours, *peers.values()) if t]  # type: ignore
    print(row, " ", " ".join(residuals))


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
    """Seconds per V(1,1)-cycle whose operators, transfers and smoothers do nothing."""
    parts = [
        Level(lambda u: u, Nothing(), Same(1), residual=lambda u, f: u) for _ in range(levels - 1)
    ]
    hierarchy = Hierarchy([*parts, Level(lambda u: u, Nothing())])
    schedule, u = cycle(levels), np.zeros(1)
    _, memory = run(schedule, hierarchy, u, u)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(repeats // 10):
            run(schedule, hierarchy, u, u, memory)
        best = min(best, (time.perf_counter() - began) / (repeats // 10))
    return best


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1023
    f = gallery.sine((n, n))[1]
    relaxation = pyamg.relaxation.relaxation
    print(f"Poisson, {n} x {n} unknowns, V(1,1), {CYCLES} cycles, {ROUNDS} rounds in turns")
    print(f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    print(
        f"Python {sys.version.split()[0]}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"PyAMG {pyamg.__version__}\n"
    )
    peer = f"{'ms':>9} {'ratio':>6} {'spread':>13}"
    print(f"{'':<28} {'mgnet':>9} {'PyAMG':>9} {'':>20} {'PETSc':>9}")
    print(f"{'milliseconds per cycle':<28} {'ms':>9} {peer} {peer}   last residual norms")
    petsc = "-mg_levels_ksp_max_it 1 -mg_levels_ksp_type richardson -mg_levels_ksp_norm_type none "
    cases: list[tuple[str, Smoother, Callable[..., None], str]] = [
        (
            "Jacobi 2/3",
            Jacobi(JACOBI),
            lambda A, x, b: relaxation.jacobi(A, x, b, omega=JACOBI),
            petsc + f"-mg_levels_pc_type jacobi -mg_levels_ksp_richardson_scale {JACOBI}",
        ),
        (
            "Gauss-Seidel",
            GaussSeidel(),
            lambda A, x, b: relaxation.gauss_seidel(A, x, b),
            petsc + "-mg_levels_pc_type sor -mg_levels_pc_sor_local_forward",
        ),
    ]
    for name, smoother, relax, options in cases:
        peers = {"PyAMG": pyamg_solver(n, relax, f), "PETSc": petsc_solver(n, options, f)}
        if name == "Gauss-Seidel" and kernels.available:
            compare(name + ", with fast", mgnet_solver(n, smoother, f), peers)
            kernels.available = False
            compare(name + ", without fast", mgnet_solver(n, smoother, f), peers)
            kernels.available = True
        else:
            compare(name, mgnet_solver(n, smoother, f), peers)
    bounds = "-mg_levels_ksp_chebyshev_eigenvalues 0.2,2.2 "
    options = bounds + "-mg_levels_ksp_type chebyshev -mg_levels_ksp_max_it 3 "
    options += "-mg_levels_pc_type jacobi -mg_levels_ksp_norm_type none"
    # PyAMG's polynomial on the same interval, in its own coefficients (degree 3).
    coefficients = -pyamg.relaxation.chebyshev.chebyshev_polynomial_coefficients(0.2, 2.2, 3)[:-1]

    def chebyshev(A: Any, x: np.ndarray, b: np.ndarray) -> None:
        scale = 1.0 / A.data[0] if A.shape[0] == 1 else 0.25  # the diagonal is 4 on every level
        relaxation.polynomial(A, x, b, coefficients=chebyshev_scaled(coefficients, scale))

    peers = {"PyAMG": pyamg_solver(n, chebyshev, f), "PETSc": petsc_solver(n, options, f)}
    compare("Chebyshev, degree 3", mgnet_solver(n, Chebyshev(3), f), peers)
    overhead = interpreter_overhead()
    print(f"\ninterpreter alone, V(1,1) on 8 levels: {1e3 * overhead:.3f} ms per cycle")
    print("target: Jacobi at most 1.10 times PyAMG; interpreter below 0.1 ms")


def chebyshev_scaled(coefficients: np.ndarray, scale: float) -> np.ndarray:
    """Coefficients of p(scale A) scale, for a polynomial p in D^-1 A with a constant diagonal."""
    degrees = np.arange(len(coefficients), 0, -1)
    return coefficients * scale**degrees


if __name__ == "__main__":
    main()
