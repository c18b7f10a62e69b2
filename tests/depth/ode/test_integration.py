"""Laws: all ways to solve give the same states; levels that do not fit are left out."""

import pytest
import torch

from mgnet.depth import FixedCycles
from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.ode.integration import Integration
from mgnet.depth.ode.right_hand_side import RightHandSide
from mgnet.depth.ode.state_tree import StateTree


def made(levels, coarsening=2, control=None):
    torch.manual_seed(0)
    linear = torch.nn.Linear(2, 2, dtype=torch.float64)

    class Turn(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, t, y):
            return torch.tanh(self.linear(y)) * torch.cos(t)

    y0 = torch.randn(3, 2, dtype=torch.float64)
    block = StackedBlock(RightHandSide(Turn(), StateTree.of(y0)), "heun")
    return Integration.of(block, levels, coarsening, control), y0


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_all_ways_agree(steps, levels):
    solver, y0 = made(levels)
    points = torch.rand(steps, dtype=torch.float64).cumsum(0) + 1.0
    points = torch.cat([points.new_zeros(1), points])
    states = solver.states(y0, points)
    assert states.shape == (steps + 1, 3, 2)
    torch.testing.assert_close(states, solver.by_autograd(y0, points))
    with torch.no_grad():
        torch.testing.assert_close(solver.states(y0, points), states)


def test_levels_that_do_not_fit():
    solver, _ = made(4, 3)
    assert [len(solver._fitting(steps)) for steps in (1, 3, 4, 9, 10, 27, 28, 1000)] == [
        0, 0, 1, 1, 2, 2, 3, 3,
    ]  # fmt: skip


def test_serial_has_no_levels():
    solver, y0 = made(3, 2, FixedCycles(0))
    points = torch.linspace(0.0, 3.0, 17, dtype=torch.float64)
    assert not torch.allclose(solver.states(y0, points), solver.by_autograd(y0, points), atol=1e-9)
    found = solver.serial().states(y0, points)
    torch.testing.assert_close(found, solver.by_autograd(y0, points))


def test_autocast_is_that_of_pytorch():
    solver, y0 = made(2)
    side = solver.kernel.template.float()
    solver = Integration(StackedBlock(side, "heun"), (2,))
    points = torch.linspace(0.0, 1.0, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = solver.states(y0.float(), points)
        assert torch.equal(found, solver.by_autograd(y0.float(), points))
    assert not torch.equal(found, solver.states(y0.float(), points))
