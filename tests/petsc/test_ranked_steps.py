"""Laws of one rank: it takes all steps, and has nobody to differ from; several: tests/mpi."""

import pytest
import torch

from mgnet.depth import odeint


@pytest.fixture
def alone(petsc):
    """The ranks of one process."""
    from petsc4py import PETSc

    from mgnet.petsc import steps_over_ranks

    return steps_over_ranks(PETSc.COMM_SELF)


def test_one_rank_takes_all_steps(alone):
    own, ranks = alone.place(13, 4)
    assert own == range(13) and ranks.ranks == 1
    alone.check_same([torch.ones(2)])


@pytest.mark.parametrize("mode", ["serial", "mgrit", "auto"])
def test_solutions_are_the_same(alone, mode):
    linear = torch.nn.Linear(2, 2, dtype=torch.float64)

    class Turn(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, t, y):
            return torch.sin(self.linear(y) + t)

    func, y0 = Turn(), torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0.0, 1.0, 18, dtype=torch.float64)
    found, right = odeint(func, y0, t, mode=mode, ranks=alone), odeint(func, y0, t)
    torch.testing.assert_close(found, right)
    inputs = [y0, *func.parameters()]
    for a, b in zip(*(torch.autograd.grad(y.sum(), inputs) for y in (found, right)), strict=True):
        torch.testing.assert_close(a, b)
