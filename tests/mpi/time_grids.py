"""Started on several ranks by test_time_grids.py: time grids whose steps the ranks share."""

import hashlib
import json
import sys
from typing import Any

from mgnet.petsc import init

arguments = init(sys.argv)

import numpy as np  # noqa: E402
from petsc4py import PETSc  # noqa: E402

from mgnet import Solver  # noqa: E402
from mgnet.depth import (  # noqa: E402
    OneStep,
    adaptive,
    heat,
    parallel_in_time,
    periodic_hierarchy,
    richardson,
    van_der_pol,
)
from mgnet.petsc import distribute_steps  # noqa: E402

WORLD = PETSc.COMM_WORLD
RANK, RANKS = WORLD.getRank(), WORLD.getSize()


def digest(*arrays: Any) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def counted(problem: OneStep, counts: list[int]) -> OneStep:
    def step(t: np.ndarray, dt: np.ndarray, u: np.ndarray) -> np.ndarray:
        counts[0] += len(u)
        return problem.step(t, dt, u)

    return OneStep(step, problem.initial, problem.steps)


def matrix_step(t: np.ndarray, dt: np.ndarray, u: np.ndarray) -> np.ndarray:
    """A BLAS product: its bits depend on how many rows are taken together."""
    A = np.sin(np.arange(49.0)).reshape(7, 7) - 3.0 * np.eye(7)
    return u + dt[:, None] * (u @ A.T) + 0.5 * dt[:, None] ** 2 * (u @ A.T @ A.T)


told: dict[str, Any] = {}
oscillator, counts = van_der_pol(20.0, 32, 40.0), [0]
found = adaptive(distribute_steps(counted(oscillator, counts)), order=2, levels=3).require()
told["adaptive"] = digest(found.states, found.times, found.errors), str(found)
told["taken"] = counts[0], found.stepped
problem = OneStep(matrix_step, np.ones(7), np.full(256, 0.01))
better = richardson(distribute_steps(problem), order=2)
told["richardson"] = digest(better.states, better.errors)
wave = distribute_steps(heat(15, 128, final_time=1.0), rows=5)
told["heat"] = digest(parallel_in_time(wave, levels=3).value)
solver = Solver(periodic_hierarchy(wave, levels=2), rtol=1e-9)
told["periodic"] = digest(solver.solve(u=wave.guess()[:-1]).value)


def fails(t: np.ndarray, dt: np.ndarray, u: np.ndarray) -> np.ndarray:
    if (t > 2.3).any() and len(u) > 1:
        raise ArithmeticError(f"no step beyond 2.3, {len(u)} rows")
    return u / (1.0 + dt[:, None])


try:
    broken = OneStep(fails, np.ones(1), np.full(256, 0.01))
    parallel_in_time(distribute_steps(broken))
    told["failed"] = ""
except ArithmeticError as error:
    told["failed"] = str(error)
same = WORLD.tompi4py().allgather(told["failed"])
told["all failed"] = len(set(same)) == 1 and len(same) == RANKS
every = WORLD.tompi4py().allgather({name: told[name] for name in told if name != "taken"})
told["alike"] = all(each == every[0] for each in every)
if RANK == 0:
    print(json.dumps(told))
