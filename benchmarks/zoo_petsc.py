"""What users of PETSc take for the problems of `linear_zoo.py`, on one rank."""

from typing import Any

import numpy as np
import petsc4py
import scipy.sparse as sp
from zoo_mgnet import way
from zoo_problems import Method, Problem, Setup, Solve

petsc4py.init([])

from petsc4py import PETSc  # noqa: E402

__all__ = ["petsc_methods", "with_our_levels"]

ONE = " -mg_levels_ksp_type richardson -mg_levels_ksp_max_it 1 -mg_levels_pc_type "
ONE_SOR, ONE_ILU = ONE + "sor", ONE + "ilu"
PCMG = "-pc_type mg -mg_coarse_ksp_type preonly"
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
    return by_krylov(options, symmetric)


def with_our_levels(problem: Problem) -> dict[str, Method]:
    """PCMG on the matrices and prolongations of our hierarchy; a real PETSc has no complex ones."""
    if problem.kind in ("saddle", "complex"):
        return {}
    symmetric, options = problem.kind in ("spd", "singular"), {}
    smoothers = {"Chebyshev and SOR": "", "SOR": ONE_SOR} if symmetric else {"ILU": ONE_ILU}
    for name, sweeps in smoothers.items():
        options[f"PCMG, {name}"] = PCMG + sweeps
        if way(problem).cycle.startswith("W"):
            options[f"PCMG, {name}, W"] = PCMG + " -pc_mg_cycle_type w" + sweeps
    return by_krylov(options, symmetric)


def by_krylov(options: dict[str, str], symmetric: bool) -> dict[str, Method]:
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
            if options.startswith(PCMG):
                take_levels(ksp.getPC(), problem)
            ksp.setUp()
            solve = solving(ksp, problem.f.view(float))
            return as_complex(solve) if is_complex else solve

        return setup

    return prepare


def take_levels(pc: Any, problem: Problem) -> None:
    """Give PCMG the matrices and prolongations of our hierarchy."""
    hierarchy = way(problem).build(problem)
    last = len(hierarchy) - 1
    pc.setMGLevels(len(hierarchy))
    for number, level in enumerate(hierarchy):
        transfer: Any = level.transfer
        if transfer is not None:
            pc.setMGInterpolation(last - number, mat(transfer.P))
        if number:
            pc.getMGSmoother(last - number).setOperators(mat(level.matrix))


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
