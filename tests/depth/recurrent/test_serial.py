"""Law: one step after another is what PyTorch's modules do, for cells of its own and of others."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from mgnet.depth.recurrent.sequences import TimeSequence
from mgnet.depth.recurrent.serial import march_cell


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_cells_as_modules(kind, bias, packed):
    torch.manual_seed(0)
    module, cell = getattr(nn, kind)(2, 3, bias=bias), getattr(nn, f"{kind}Cell")(2, 3, bias=bias)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in module.state_dict().items()})
    rows = [torch.randn(n, 2) for n in (4, 6, 1)]
    x = pack_sequence(rows, enforce_sorted=False) if packed else torch.randn(6, 3, 2)
    sequence = TimeSequence.of(x, batch_first=False)
    widths = (3, 3) if kind == "LSTM" else (3,)
    start = torch.randn(3, sum(widths))
    h0 = tuple(p.contiguous() for p in sequence.given_order(start[None]).split(3, -1))
    wanted, last = module(x, h0 if kind == "LSTM" else h0[0])
    y, found = march_cell(cell, sequence, start, widths)
    last = torch.cat(last, -1) if kind == "LSTM" else last
    torch.testing.assert_close(sequence.given_order(found[None]), last)
    torch.testing.assert_close(y.data if packed else y, wanted.data if packed else wanted)
