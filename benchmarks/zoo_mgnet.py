"""What users of mgnet take for the problems of `linear_zoo.py`: a rule for each class of problem.

Gauss-Seidel sweeps forward before the coarse correction and backward after it, once each, if
nothing else is said.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from zoo_problems import Method, Problem, Setup, Solve

from mgnet import (
    CG,
    GMRES,
    ILU,
    GaussSeidel,
    Hierarchy,
    Level,
    Smoother,
    Solver,
    interpolation_matrix,
)
from mgnet.smoother import residual_at

__all__ = ["mgnet_methods", "way"]

Build = Callable[[Problem], Hierarchy]


@dataclass(frozen=True)
class Way:
    """A hierarchy, a cycle, and the Krylov method around it."""

    name: str
    build: Build
    acceleration: Any
    cycle: str = "V(1,1)"


SWEEPS: dict[str, Any] = {"smoother": GaussSeidel(), "post_smoother": GaussSeidel("backward")}


def way(problem: Problem) -> Way:
    """By class: what the matrix is, and what its user knows of the mesh."""
    if problem.kind == "saddle":
        return Way("V(1,1) on each velocity", by_velocities, GMRES(50))
    if problem.kind in ("general", "complex"):
        return Way("geometric, linear, ILU", with_ilu, GMRES(50))
    if problem.near_null is not None:
        return Way("galerkin, bilinear, symmetric sweeps", bilinear, CG())
    if "prolongations" in problem.more:
        return Way("galerkin, refined mesh", refined, CG())
    if problem.more.get("degrees", 0.0) % 90.0:  # no axis is that of the strong couplings
        return Way("geometric", geometric, CG(), "W(1,1)")
    if problem.more.get("constant"):
        return Way("geometric, symmetric sweeps", symmetric, CG())
    return Way("geometric", geometric, CG())


def mgnet_methods(problem: Problem) -> dict[str, Method]:
    chosen = way(problem)
    krylov = type(chosen.acceleration).__name__.lower()
    cycle = ", W" if chosen.cycle.startswith("W") else ""
    return {f"{chosen.name}{cycle} + {krylov}": method_of(chosen)}


def geometric(problem: Problem) -> Hierarchy:
    return Hierarchy.geometric(problem.shape, problem.A)


def symmetric(problem: Problem) -> Hierarchy:
    smoother = GaussSeidel("symmetric")
    return Hierarchy.geometric(problem.shape, problem.A, smoother=smoother)


def with_ilu(problem: Problem) -> Hierarchy:
    return Hierarchy.geometric(problem.shape, problem.A, interpolation="linear", smoother=ILU())


def refined(problem: Problem) -> Hierarchy:
    return Hierarchy.galerkin(problem.A, problem.more["prolongations"], **SWEEPS)


def bilinear(problem: Problem) -> Hierarchy:
    """Of both displacements alike, between every second point."""
    both_ways = GaussSeidel("symmetric")
    both, up = sp.identity(problem.A.shape[0] // math.prod(problem.shape)), []
    points = problem.shape[0] // 2
    while points >= 7:
        line = interpolation_matrix(points)
        up.append(sp.kron(sp.kron(line, line), both, format="csr"))
        points //= 2
    return Hierarchy.galerkin(
        sp.csr_matrix(problem.A), up, smoother=both_ways, post_smoother=both_ways
    )


@dataclass(frozen=True, eq=False)
class ByVelocities(Smoother):
    """Block elimination: the mass matrix for the Schur complement, a cycle for each velocity."""

    cycles: tuple[Any, ...]
    gradient: Any
    area: float

    def smooth(self, level: Level, u: Any, f: Any, sweeps: int, memory: Any) -> tuple[Any, Any]:
        for _ in range(sweeps):
            r = residual_at(level, u, f)
            first = self.gradient.shape[0]
            p = r[first:] / -self.area
            momentum = r[:first] + self.gradient @ p
            parts = np.split(momentum, len(self.cycles))
            d = [cycle @ part for cycle, part in zip(self.cycles, parts, strict=True)]
            u = u + np.concatenate([*d, p])
        return u, memory


def by_velocities(problem: Problem) -> Hierarchy:
    n, first = problem.shape[0], problem.more["velocities"]
    L, cycles = problem.more["L"], []
    for shape, at in (((n - 1, n), 0), ((n, n - 1), first // 2)):
        own = slice(at, at + first // 2)
        velocity = Hierarchy.geometric(shape, L[own, own])
        cycles.append(Solver(velocity).as_preconditioner())
    smoother = ByVelocities(tuple(cycles), problem.more["B"].T.tocsr(), 1.0 / n**2)
    return Hierarchy([Level(problem.A, smoother)], nullspace=problem.more["constant"])


def method_of(chosen: Way) -> Method:
    def prepare(problem: Problem) -> Setup:
        def setup() -> Solve:
            hierarchy = chosen.build(problem)

            def solve(rtol: float, cap: int) -> tuple[np.ndarray, int]:
                limits: dict[str, Any] = {"rtol": rtol, "max_cycles": cap}
                around: dict[str, Any] = {"acceleration": chosen.acceleration}
                solution = Solver(hierarchy, chosen.cycle, **limits, **around).solve(problem.f)
                return solution.value, solution.cycles

            return solve

        return setup

    return prepare
