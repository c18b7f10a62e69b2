"""Law: a recurrence solved in pieces has the states and gradients of a loop of PyTorch."""

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance
from mgnet.depth.recurrent.cycles import TimeCycles
from mgnet.depth.recurrent.recurrence import recurrence_of
from mgnet.depth.recurrent.shared_solve import shared_solve
from mgnet.depth.recurrent.solve import TimeCall
from mgnet.depth.recurrent.time_share import Alone, TimeShare

TIGHT = CyclesToTolerance(1e-12, max_cycles=60)


def call_of(recurrence, cycle="V", report=lambda *told: None):
    return TimeCall(recurrence.steps, TimeCycles(2, 4, cycle=cycle), TIGHT, report)


def looped(cell, x, h):
    states = [h]
    for row in x:
        states.append(cell(row, states[-1]))
    return torch.stack(states)


@pytest.mark.parametrize("cell", [nn.GRUCell(2, 3), nn.GRUCell(2, 3, bias=False), nn.RNNCell(2, 3)])
@pytest.mark.parametrize("cycle", ["V", "newton"])
def test_states_and_gradients_are_those_of_a_loop(cell, cycle):
    torch.manual_seed(0)
    cell = cell.double()
    recurrence = recurrence_of(cell, None, (3,))
    x = torch.randn(41, 2, 2).double().requires_grad_()
    start = torch.randn(2, 3).double().requires_grad_()
    share = Alone(5)(41, 4 if cycle == "V" else 1)
    assert len(share.pieces) > 3
    found = shared_solve(call_of(recurrence, cycle), share, start, x, recurrence)
    exact = looped(cell, x, start)
    torch.testing.assert_close(found, exact)
    weight = torch.randn(exact.shape).double()
    wanted = [x, start, *cell.parameters()]
    for one, other in zip(
        *(torch.autograd.grad((y * weight).sum(), wanted) for y in (found, exact)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_gradients_that_nobody_needs_are_not_made():
    recurrence = recurrence_of(nn.GRUCell(2, 3), None, (3,))
    for weight in recurrence.weights:
        weight.requires_grad_(False)
    x, start = torch.randn(41, 2, 2), torch.zeros(2, 3)
    y = shared_solve(call_of(recurrence), TimeShare(range(41), 8), start, x, recurrence)
    y.sum().backward()
    of_input = recurrence.of_input
    assert of_input[0].grad is not None and x.grad is None
    assert all(weight.grad is None for weight in recurrence.weights)


def test_a_derivative_of_the_gradient_is_refused():
    recurrence = recurrence_of(nn.GRUCell(2, 3), None, (3,))
    x = torch.randn(41, 2, 2).requires_grad_()
    share = TimeShare(range(41), 8)
    y = shared_solve(call_of(recurrence), share, torch.zeros(2, 3), x, recurrence)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative of its gradient"):
        gradient.sum().backward()
