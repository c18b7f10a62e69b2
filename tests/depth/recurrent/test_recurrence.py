"""Law: formulas serve the cells that they are of, and autograd all others."""

import pytest
import torch
from torch import nn

from mgnet.depth import ImplicitGRUCell
from mgnet.depth.recurrent.cell_steps import CellSteps
from mgnet.depth.recurrent.gru_steps import GRUSteps
from mgnet.depth.recurrent.lstm_steps import LSTMSteps
from mgnet.depth.recurrent.recurrence import (
    is_known,
    module_of,
    recurrence_of,
    recurrences_of,
)


def steps_of(recurrence):
    return recurrence.steps(*recurrence.weights)


def test_kinds():
    made = steps_of(recurrence_of(nn.GRUCell(2, 3), None, (3,)))
    assert isinstance(made, GRUSteps) and not made.implicit
    made = steps_of(recurrence_of(ImplicitGRUCell(2, 3), None, (3,)))
    assert isinstance(made, GRUSteps) and made.implicit
    assert isinstance(steps_of(recurrence_of(nn.LSTMCell(2, 3), None, (3, 3))), LSTMSteps)
    for cell in (nn.RNNCell(2, 3), type("Own", (nn.GRUCell,), {})(2, 3)):
        assert isinstance(steps_of(recurrence_of(cell, None, (3,))), CellSteps)
    given = recurrence_of(nn.GRUCell(2, 3), lambda x, h, k: h, (3,))
    assert isinstance(steps_of(given), CellSteps)


def test_what_changes_a_cell_makes_it_unknown():
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        cell = nn.GRUCell(2, 3)
        assert is_known(cell)
        getattr(cell, register)(lambda *given: None)
        assert not is_known(cell)
    cell = nn.utils.parametrizations.weight_norm(nn.GRUCell(2, 3), "weight_hh")
    assert not is_known(cell) and not is_known(torch.add)
    cell = nn.GRUCell(2, 3)
    cell.forward = lambda x, h: h
    assert not is_known(cell)


@pytest.mark.parametrize("module", [nn.GRU, nn.LSTM])
def test_layers_have_the_weights_of_the_module(module):
    made = module(2, 3, num_layers=2, bidirectional=True)
    layers = recurrences_of(made)
    found = [
        tensor
        for layer in layers
        for recurrence in layer
        for pair in zip(recurrence.of_input, recurrence.weights, strict=True)
        for tensor in pair
    ]
    assert [id(x) for x in found] == [id(x) for x in made.parameters()]
    assert layers[1][0].inputs(torch.zeros(5, 1, 6)).shape == (5, 1, len(made.weight_hh_l0))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell])
def test_a_module_has_the_weights_and_kind_of_its_cell(kind, bias):
    cell = kind(2, 3, bias=bias, dtype=torch.float64)
    made = module_of(cell, batch_first=True, training=False)
    x = torch.randn(4, 1, 2).double()
    new = cell(x[:, 0])
    torch.testing.assert_close(made(x)[0][:, 0], new[0] if kind is nn.LSTMCell else new)
    assert made.batch_first and not made.training
    assert made.weight_hh_l0.data_ptr() != cell.weight_hh.data_ptr()


def test_what_pytorch_does_not_have_is_refused():
    for cell in (ImplicitGRUCell(2, 3), nn.RNNCell(2, 3), lambda x, h: h):
        with pytest.raises(TypeError, match="have a corresponding module"):
            module_of(cell, batch_first=False, training=True)
