"""What users of PyAMG and PETSc take for the problems of `linear_zoo.py`.

A method is a function of a problem that returns `setup`, which is timed and returns
`solve(rtol, cap) -> (x, iterations)`. What comes before `setup`, such as copying the matrix into the
library's own format, is not timed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import petsc4py
import pyamg
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from zoo_problems import Problem

petsc4py.init([])

from petsc4py import PETSc  # noqa: E402

__all__ = ["Method", "Setup", "Solve", "petsc_methods", "pyamg_methods"]

Solve = Callable[[float, int], tuple[np.ndarray, int]]
Setup = Callable[[], Solve]
Method = Callable[[Problem], Setup]
EVOLUTION = ("evolution", {"k": 2, "epsilon": 4.0})
ENERGY = ("energy", {"krylov": "cg", "maxiter": 4, "degree": 2})


def pyamg_methods(problem: Problem) -> dict[str, Method]:
    if problem.kind == "saddle":
        return {"minres, SA on the velocities": pyamg_stokes}
    symmetric = problem.kind in ("spd", "singular")
    # PyAMG's coarse solver is a pseudo-inverse, so a constant null space needs no more of it.
    same: dict[str, Any] = {"symmetry": "hermitian" if symmetric else "nonsymmetric"}
    if problem.kind == "complex":
        same["symmetry"] = "symmetric"
    if problem.near_null is not None:
        same["B"] = problem.near_null
    builders: dict[str, Callable[[Any], Any]] = {
        "SA": lambda A: pyamg.smoothed_aggregation_solver(A, **same),
    }
    if problem.kind == "complex":
        kaczmarz: Any = ("gauss_seidel_nr", {"sweep": "symmetric"})
        builders |= {
            "SA, 3 levels": lambda A: pyamg.smoothed_aggregation_solver(A, max_levels=3, **same),
            "SA, Kaczmarz": lambda A: pyamg.smoothed_aggregation_solver(
                A, presmoother=kaczmarz, postsmoother=kaczmarz, max_levels=4, **same
            ),
        }
    if problem.kind != "complex" and problem.near_null is None:
        builders["RS"] = lambda A: pyamg.ruge_stuben_solver(sp.csr_matrix(A))
    if symmetric and len(problem.shape) == 2:
        builders["SA, evolution, energy"] = lambda A: pyamg.smoothed_aggregation_solver(
            A, strength=EVOLUTION, smooth=ENERGY, **same
        )
        builders["rootnode"] = lambda A: pyamg.rootnode_solver(A, **same)
    if problem.kind == "general":
        builders["AIR"] = lambda A: pyamg.air_solver(sp.csr_matrix(A))
    accelerations = ["cg"] if symmetric else ["gmres", "bicgstab"]
    return {
        f"{name} + {accelerate}": accelerated(build, accelerate)
        for name, build in builders.items()
        for accelerate in accelerations
    }


def accelerated(build: Callable[[Any], Any], accelerate: str) -> Method:
    def prepare(problem: Problem) -> Setup:
        def setup() -> Solve:
            levels = build(problem.A)

            def solve(rtol: float, cap: int) -> tuple[np.ndarray, int]:
                norms: list[float] = []
                given: dict[str, Any] = {"tol": rtol, "maxiter": cap, "accel": accelerate}
                x = levels.solve(problem.f, residuals=norms, **given)
                return x, len(norms) - 1

            return solve

        return setup

    return prepare


def pyamg_stokes(problem: Problem) -> Setup:
    """MINRES with the block diagonal preconditioner of smoothed aggregation and the mass matrix."""

    def setup() -> Solve:
        velocities = problem.more["velocities"]
        cycle = pyamg.smoothed_aggregation_solver(problem.more["L"]).aspreconditioner()
        area = 1.0 / problem.shape[0] ** 2  # the matrix is the equation times this

        def apply(r: np.ndarray) -> np.ndarray:
            return np.concatenate([cycle @ r[:velocities], r[velocities:] / area])

        M = spla.LinearOperator(problem.A.shape, matvec=apply, dtype=float)  # type: ignore

        def solve(rtol: float, cap: int) -> tuple[np.ndarray, int]:
            seen: list[None] = []
            given: dict[str, Any] = {"rtol": rtol, "maxiter": cap, "M": M}
            x, _ = spla.minres(problem.A, problem.f, callback=lambda x: seen.append(None), **given)
            return x, len(seen)

        return solve

    return setup


GAMG = "-pc_type gamg"
HYPRE = "-pc_type hypre -pc_hypre_type boomeramg"
HMIS = " -pc_hypre_boomeramg_coarsen_type HMIS -pc_hypre_boomeramg_interp_type ext+i"


def petsc_methods(problem: Problem) -> dict[str, Method]:
    if problem.kind == "saddle":
        return {name: petsc_stokes(options) for name, options in STOKES.items()}
    options = {"gamg": GAMG, "hypre": HYPRE, "hypre, HMIS, ext+i": HYPRE + HMIS}
    if len(problem.shape) == 3:
        strong = " -pc_hypre_boomeramg_strong_threshold 0.5"
        options["hypre, HMIS, ext+i, 0.5"] = HYPRE + HMIS + strong
        options["gamg, threshold 0.01"] = GAMG + " -pc_gamg_threshold 0.01"
    if problem.kind == "spd" and len(problem.shape) == 2:
        options["gamg, threshold 0.05"] = GAMG + " -pc_gamg_threshold 0.05"
    if problem.near_null is not None:
        options["hypre, nodal"] = HYPRE + HMIS + " -pc_hypre_boomeramg_nodal_coarsen 1"
    if problem.kind == "general":
        options["gamg, not smoothed"] = GAMG + " -pc_gamg_agg_nsmooths 0"
        ilu = " -mg_levels_ksp_type richardson -mg_levels_pc_type ilu"
        options["gamg, ILU"] = GAMG + " -pc_gamg_agg_nsmooths 0" + ilu
    if problem.kind == "complex":
        limit = " -pc_mg_levels 3 -pc_gamg_coarse_eq_limit 10000 -mg_coarse_pc_type lu"
        options["gamg, 3 levels"] = GAMG + limit
        options["gamg, not smoothed, 3 levels"] = GAMG + limit + " -pc_gamg_agg_nsmooths 0"
        options["gamg, 3 levels, ILU"] = (
            GAMG + limit + " -mg_levels_ksp_type richardson -mg_levels_pc_type ilu"
        )
    symmetric = problem.kind in ("spd", "singular")
    krylov = ["cg"] if symmetric else ["gmres", "bcgs"]
    return {
        f"{name} + {method}": preconditioned(method, parts)
        for name, parts in options.items()
        for method in krylov
    }


def mat(matrix: Any, block: int = 1) -> Any:
    csr = sp.csr_matrix(matrix)
    parts = (csr.indptr.astype("i4"), csr.indices.astype("i4"), csr.data)
    made = PETSc.Mat().createAIJ(csr.shape, csr=parts, comm=PETSc.COMM_SELF)
    if block > 1:
        made.setBlockSize(block)
    return made


def real_blocks(A: Any) -> Any:
    """A complex matrix as a real one, real and imaginary part of an unknown side by side."""
    A = sp.coo_matrix(A)
    parts = [(0, 0, A.data.real), (0, 1, -A.data.imag), (1, 0, A.data.imag), (1, 1, A.data.real)]
    rows = np.concatenate([2 * A.row + i for i, _, _ in parts])
    columns = np.concatenate([2 * A.col + j for _, j, _ in parts])
    data = np.concatenate([values for _, _, values in parts])
    return sp.csr_matrix((data, (rows, columns)), shape=(2 * A.shape[0], 2 * A.shape[1]))


def ksp_of(method: str, options: str) -> Any:
    """A KSP with these options, and tolerances on the true residual."""
    norm = " -ksp_norm_type unpreconditioned" + " -ksp_pc_side right" * (method == "gmres")
    table = PETSc.Options()
    for name in list(table.getAll()):
        table.delValue(name)
    table.insertString(f"-ksp_type {method} -ksp_gmres_restart 50 {options}{norm}")
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setFromOptions()
    return ksp


def solving(ksp: Any, f: np.ndarray) -> Solve:
    b = PETSc.Vec().createWithArray(f.copy(), comm=PETSc.COMM_SELF)
    x = b.duplicate()

    def solve(rtol: float, cap: int) -> tuple[np.ndarray, int]:
        x.set(0.0)
        ksp.setTolerances(rtol=rtol, atol=1e-300, divtol=1e10, max_it=cap)
        ksp.solve(b, x)
        return x.array.copy(), ksp.its

    return solve


def preconditioned(method: str, options: str) -> Method:
    def prepare(problem: Problem) -> Setup:
        is_complex = problem.kind == "complex"
        block = 2 if is_complex or problem.near_null is not None else 1
        A = mat(real_blocks(problem.A) if is_complex else problem.A, block)
        if problem.near_null is not None:
            orthonormal = np.linalg.qr(problem.near_null)[0].T
            vectors = [PETSc.Vec().createWithArray(v.copy()) for v in orthonormal]
            A.setNearNullSpace(PETSc.NullSpace().create(vectors=vectors))
        if problem.kind == "singular":
            A.setNullSpace(PETSc.NullSpace().create(constant=True))
        if problem.kind in ("spd", "singular"):
            A.setOption(PETSc.Mat.Option.SYMMETRIC, True)

        def setup() -> Solve:
            ksp = ksp_of(method, options)
            ksp.setOperators(A)
            ksp.setUp()
            solve = solving(ksp, problem.f.view(float))
            return as_complex(solve) if is_complex else solve

        return setup

    return prepare


def as_complex(solve: Solve) -> Solve:
    def solve_complex(rtol: float, cap: int) -> tuple[np.ndarray, int]:
        x, iterations = solve(rtol, cap)
        return x.view(complex), iterations

    return solve_complex


def schur(factors: str, inner: str) -> str:
    """Options of a Schur complement preconditioner; the mass matrix stands for the complement."""
    split = (
        f"-pc_type fieldsplit -pc_fieldsplit_type schur -pc_fieldsplit_schur_fact_type {factors}"
    )
    outer = " -fieldsplit_1_ksp_type preonly -fieldsplit_1_pc_type jacobi"
    return split + outer + f" -fieldsplit_0_ksp_type preonly -fieldsplit_0_pc_type {inner}"


STOKES = {
    f"fieldsplit {factors}, {inner}": schur(factors, inner)
    for factors in ("upper", "full")
    for inner in ("gamg", "hypre")
}


def petsc_stokes(options: str) -> Method:
    def prepare(problem: Problem) -> Setup:
        A, first = mat(problem.A), problem.more["velocities"]
        rest = problem.A.shape[0] - first
        fields = [
            PETSc.IS().createStride(size, begin, 1, comm=PETSc.COMM_SELF)
            for size, begin in ((first, 0), (rest, first))
        ]
        constant = problem.more["constant"] / np.sqrt(rest)
        constant = PETSc.Vec().createWithArray(constant, comm=PETSc.COMM_SELF)
        A.setNullSpace(PETSc.NullSpace().create(vectors=[constant]))
        mass = mat(-sp.identity(rest) / problem.shape[0] ** 2)

        def setup() -> Solve:
            ksp = ksp_of("fgmres", options)
            ksp.setOperators(A)
            pc = ksp.getPC()
            pc.setFieldSplitIS(("0", fields[0]), ("1", fields[1]))
            pc.setFieldSplitSchurPreType(PETSc.PC.SchurPreType.USER, mass)
            ksp.setUp()
            return solving(ksp, problem.f)

        return setup

    return prepare
