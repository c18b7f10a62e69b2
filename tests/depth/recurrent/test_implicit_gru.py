"""Law: a step of an implicit GRU solves its equation, and its parameters are those of a GRU."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgnet.depth import ImplicitGRUCell, TimeParallel


@pytest.mark.parametrize("bias", [True, False])
def test_a_step_solves_the_implicit_equation(bias):
    torch.manual_seed(0)
    cell = ImplicitGRUCell(3, 5, bias=bias, dtype=torch.float64)
    x, h = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    new = cell(x, h)
    of_x = F.linear(x, cell.weight_ih, cell.bias_ih).chunk(3, -1)
    of_h = F.linear(h, cell.weight_hh, cell.bias_hh).chunk(3, -1)
    r, z = (torch.sigmoid(of_x[i] + of_h[i]) for i in range(2))
    n = torch.tanh(of_x[2] + r * of_h[2])
    torch.testing.assert_close(new - h, (1 - z) * (n - new))
    torch.testing.assert_close(cell(x[0], h[0]), new[0])
    torch.testing.assert_close(cell(x), cell(x, torch.zeros_like(h)))


def test_parameters_have_the_names_of_a_gru_cell():
    cell, gru = ImplicitGRUCell(3, 5), nn.GRUCell(3, 5)
    cell.load_state_dict(gru.state_dict())
    assert not torch.allclose(cell(torch.ones(1, 3)), gru(torch.ones(1, 3)))


def test_long_steps_stay_bounded():
    torch.manual_seed(1)
    cell = ImplicitGRUCell(2, 4, dtype=torch.float64)
    x = torch.randn(400, 2, 2, dtype=torch.float64)
    parallel = TimeParallel(cell, coarsening=100)
    y, _ = parallel(x)
    h = x.new_zeros(2, 4)
    for t in range(400):
        h = cell(x[t], h)
        torch.testing.assert_close(y[t], h, atol=1e-5, rtol=1e-5)
    assert 0 < parallel.last_forward.cycles < 20


def test_a_wrong_input_is_refused():
    with pytest.raises(ValueError, match="ImplicitGRUCell got an input of shape"):
        ImplicitGRUCell(3, 5)(torch.zeros(1, 2, 3))
