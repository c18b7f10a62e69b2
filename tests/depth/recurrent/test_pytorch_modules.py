"""Law: what a cell becomes is PyTorch's own module, with the same numbers."""

import pytest
import torch
from torch import nn

from mgnet.depth import ImplicitGRUCell
from mgnet.depth.recurrent.pytorch_modules import module_of


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
        with pytest.raises(TypeError, match="have a module of PyTorch"):
            module_of(cell, batch_first=False, training=True)
