"""Law: many steps of any cell are the cell row by row, and their derivatives those of autograd."""

import pytest
import torch
from torch import nn

from mgnet.depth.recurrent.cell_steps import CellSteps, joined, parts_of
from mgnet.depth.recurrent.gru_steps import GRUSteps


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(5, 3)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x, state):
        a, b = state
        new = self.mix(torch.cat([x, a, b], -1)).sin()
        return new[:, :2], b + new[:, 2:]


def drawn():
    torch.manual_seed(0)
    cell = Pair().double()
    return cell, *(torch.randn(4, 6, n, dtype=torch.float64) for n in (2, 3))


def test_steps_gradients_and_parts():
    cell, x, state = drawn()
    steps = CellSteps(cell, None, (2, 1), *[p.detach() for p in cell.parameters()])
    for t, new in enumerate(steps.advance(x, None, state)):
        torch.testing.assert_close(new, joined(cell(x[t], parts_of(state[t], (2, 1)))))
    v, tape = torch.randn_like(state), steps.record(x, None, state)
    given = [x.clone().requires_grad_(), state.clone().requires_grad_()]
    new = torch.stack([joined(cell(a, parts_of(s, (2, 1)))) for a, s in zip(*given, strict=True)])
    wanted = torch.autograd.grad(new, [*given, *cell.parameters()], v, allow_unused=True)
    of_x, of_weights = tape.gradients(v)
    for one, other in zip(wanted, [of_x, tape.vjp(v), *of_weights], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
    torch.testing.assert_close(tape[1:4:2].vjp(v[1:4:2]), tape.vjp(v)[1:4:2])


def test_weights_are_those_that_were_given():
    cell, x, state = drawn()
    weights = [p.detach().clone() for p in cell.parameters()]
    tape = CellSteps(cell, None, (2, 1), *weights).record(x, None, state)
    before = CellSteps(cell, None, (2, 1), *weights).record(x, None, state).vjp(state)
    with torch.no_grad():
        cell.mix.weight.mul_(2.0)
    torch.testing.assert_close(tape.vjp(state), before)


@pytest.mark.parametrize("structure", ["dense", "diagonal"])
def test_jacobians_are_those_of_the_formulas(structure):
    torch.manual_seed(1)
    cell = nn.GRUCell(2, 3, dtype=torch.float64)
    x, h = (torch.randn(4, 5, n, dtype=torch.float64) for n in (2, 3))
    gates = nn.functional.linear(x, cell.weight_ih, cell.bias_ih).detach()
    known = GRUSteps(cell.weight_hh.detach(), cell.bias_hh.detach())
    any_cell = CellSteps(cell, None, (3,), *[p.detach() for p in cell.parameters()])
    found = any_cell.linearize(x, None, h, structure)
    for one, other in zip(known.linearize(gates, None, h, structure), found, strict=True):
        torch.testing.assert_close(one, other)


def test_coarse_steps_get_lengths_and_a_constant_cell_has_no_gradient():
    steps = CellSteps(lambda x, h: x, lambda x, h, k: k * x, (1,))
    x, lengths = torch.ones(2, 3, 1), torch.tensor([2.0, 5.0]).view(2, 1, 1)
    assert steps.advance(x, lengths, x)[:, 0, 0].tolist() == [2.0, 5.0]
    assert not steps.record(x, None, x).vjp(x).any()
