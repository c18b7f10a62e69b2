"""What users of PyAMG take for the problems of `linear_zoo.py`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyamg
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from zoo_problems import Method, Problem, Setup, Solve

__all__ = ["pyamg_methods"]

EVOLUTION: Any = ("evolution", {"k": 2, "epsilon": 4.0})
ENERGY: Any = ("energy", {"krylov": "cg", "maxiter": 4, "degree": 2})


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
            d: Any = cycle @ r[:velocities]
            return np.concatenate([d, r[velocities:] / area])

        M = spla.LinearOperator(problem.A.shape, matvec=apply, dtype=float)  # type: ignore

        def solve(rtol: float, cap: int) -> tuple[np.ndarray, int]:
            seen: list[None] = []
            given: dict[str, Any] = {"rtol": rtol, "maxiter": cap, "M": M}
            x, _ = spla.minres(problem.A, problem.f, callback=lambda x: seen.append(None), **given)
            return x, len(seen)

        return solve

    return setup
