"""Laws: pieces give what the step gives, in pieces of one size; several ranks: tests/mpi."""

import numpy as np
import pytest

from mgnet.depth import OneStep, adaptive, heat


@pytest.fixture
def alone(petsc):
    """The communicator of one rank."""
    from petsc4py import PETSc

    return PETSc.COMM_SELF


@pytest.mark.parametrize("count", [1, 4, 5, 12])
def test_pieces_are_of_one_size(alone, count):
    from mgnet.petsc.shared_steps import SharedStep

    sizes = []

    def step(t, dt, u):
        sizes.append(len(u))
        return u * dt[:, None] + t[:, None]

    rng = np.random.default_rng(0)
    t, dt, u = rng.random(count), rng.random(count), rng.random((count, 3))
    shared = SharedStep(step, 4, alone)(t, dt, u)
    assert (shared == u * dt[:, None] + t[:, None]).all()
    assert sizes == [4] * (count // 4) + [count % 4] * (count % 4 > 0)


def test_problem_is_the_same(alone):
    from mgnet.petsc import distribute_steps

    problem = heat(15, 64)
    shared = distribute_steps(problem, comm=alone)
    assert (shared.serial() == problem.serial()).all()
    assert (shared.steps == problem.steps).all() and shared.start == problem.start


def test_a_step_of_the_user_is_still_checked(alone):
    from mgnet.petsc import distribute_steps

    def first(t, dt, u):
        return u / (1.0 + dt[0] * np.exp(-t[:, None]))

    problem = OneStep(first, np.ones(1), np.full(8, 1.0))
    with pytest.raises(ValueError, match="take each row on its own"):
        adaptive(distribute_steps(problem, comm=alone), rtol=1e-6, order=1)


def test_refusals(alone):
    from mgnet.petsc import distribute_steps

    with pytest.raises(TypeError, match="got a int; give a OneStep"):
        distribute_steps(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows = 0"):
        distribute_steps(heat(3, 4), rows=0)
