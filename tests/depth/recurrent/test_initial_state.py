"""Law: first states are read in the shapes of PyTorch, and all others are refused."""

import pytest
import torch
from torch import nn

from mgnet.depth.recurrent.initial_state import InitialState
from mgnet.depth.recurrent.sequences import TimeSequence

SEQUENCE = TimeSequence.of(torch.zeros(7, 5, 2), batch_first=False)
ONE = TimeSequence.of(torch.zeros(7, 2), batch_first=False)


@pytest.mark.parametrize("sequence", [SEQUENCE, ONE])
@pytest.mark.parametrize("module", [nn.GRU(2, 3, 2, bidirectional=True), nn.LSTM(2, 3)])
def test_states_there_and_back(sequence, module):
    _, last = module(sequence.output(sequence.x))
    start = InitialState.of(module, sequence, last)
    parts = last if isinstance(last, tuple) else (last,)
    again = start.given(start.states)
    again = again if isinstance(again, tuple) else (again,)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    zeros = InitialState.of(module, sequence, None)
    assert zeros.states.shape == start.states.shape and not zeros.states.any()
    assert zeros.widths == start.widths
    torch.testing.assert_close(start.with_states(zeros.states).states, zeros.states)


def test_any_cell_has_the_widths_of_its_state():
    parts = torch.ones(1, 5, 3), torch.zeros(1, 5, 1)
    assert InitialState.of(torch.add, SEQUENCE, parts).widths == (3, 1)
    assert InitialState.of(torch.add, SEQUENCE, list(parts)).widths == (3, 1)
    assert InitialState.of(torch.add, SEQUENCE, parts[0]).widths == (3,)


BAD = [
    (nn.GRUCell(2, 3), torch.zeros(5, 3)),
    (nn.GRUCell(2, 3), torch.zeros(1, 5, 4)),
    (nn.GRUCell(2, 3), torch.zeros(1, 5, 3).double()),
    (nn.GRUCell(2, 3), (torch.zeros(1, 5, 3),)),
    (nn.GRUCell(2, 3), "zeros"),
    (nn.GRU(2, 3, 2), torch.zeros(1, 5, 3)),
    (nn.LSTM(2, 3), torch.zeros(1, 5, 3)),
    (nn.LSTM(2, 3), (torch.zeros(1, 5, 3), torch.zeros(1, 5, 4))),
    (nn.LSTM(2, 3), (torch.zeros(1, 5, 3),) * 3),
    (torch.add, torch.zeros(2, 5, 3)),
    (torch.add, (torch.zeros(1, 5, 3), 1.0)),
    (torch.add, ()),
    (torch.add, torch.zeros(())),
]


@pytest.mark.parametrize(("cell", "h0"), BAD, ids=lambda x: type(x).__name__)
def test_other_states_are_refused(cell, h0):
    with pytest.raises(ValueError, match="TimeParallel got h0") as caught:
        InitialState.of(cell, SEQUENCE, h0)
    assert "\n" not in str(caught.value)


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match="2 features of torch.float32; its GRU needs 4"):
        InitialState.of(nn.GRU(4, 3), SEQUENCE, None)
    with pytest.raises(ValueError, match="no hidden_size"):
        InitialState.of(torch.add, SEQUENCE, None)
