"""A recurrence step by step: PyTorch's own loops for its cells, a Python loop for other cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import _VF, Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from mgnet.depth.batched.lending import lending
from mgnet.depth.recurrent.cell_steps import Cell, CellState, joined, parts_of
from mgnet.depth.recurrent.initial_state import InitialState
from mgnet.depth.recurrent.recurrence import is_known
from mgnet.depth.recurrent.sequences import TimeSequence

__all__ = ["march_cell", "march_module"]

LOOPS = {nn.GRUCell: _VF.gru, nn.LSTMCell: _VF.lstm}


def march_module(
    cell: Cell, sequence: TimeSequence, start: InitialState
) -> tuple[Tensor | PackedSequence, CellState]:
    """Compute output and last state of a cell, or of a PyTorch module, in the user's format.

    Parameters
    ----------
    cell : callable
        The cell or module.
    sequence : TimeSequence
        The input.
    start : InitialState
        The initial states.

    Examples
    --------
    >>> sequence = TimeSequence.of(torch.zeros(7, 5, 2), batch_first=False)
    >>> start = InitialState.of(nn.GRUCell(2, 3), sequence, None)
    >>> march_module(nn.GRUCell(2, 3), sequence, start)[0].shape
    torch.Size([7, 5, 3])
    """
    if not isinstance(cell, nn.GRU | nn.LSTM):
        y, last = march_cell(cell, sequence, start.states[0], start.widths)
        return y, start.given(last[None])
    given: Any = start.given(start.states)
    if sequence.packed is not None:
        return cell(sequence.packed, given)
    return cell(sequence.output(sequence.x), given)


def march_cell(
    cell: Cell, sequence: TimeSequence, start: Tensor, widths: Sequence[int]
) -> tuple[Tensor | PackedSequence, Tensor]:
    """Compute the output in the user's format, and the last states (batch, S).

    Parameters
    ----------
    cell : callable
        The user's cell.
    sequence : TimeSequence
        The input.
    start : Tensor of shape (batch, S)
        The initial states.
    widths : sequence of int
        Widths of the parts of a state, which are concatenated.

    Examples
    --------
    >>> sequence = TimeSequence.of(torch.ones(3, 1, 1), batch_first=False)
    >>> march_cell(lambda x, h: h + x, sequence, torch.zeros(1, 1), (1,))
    (tensor([[[1.]],
    <BLANKLINE>
            [[2.]],
    <BLANKLINE>
            [[3.]]]), tensor([[3.]]))
    """
    if type(cell) in LOOPS and is_known(cell):
        return _march_known(cell, sequence, start, widths)  # type: ignore[arg-type]
    state, outputs, lengths = start, [], sequence.lengths
    for number, x in enumerate(sequence.x):
        with lending():
            new = joined(cell(x, parts_of(state, widths)))
        if lengths is not None:  # a sequence that has ended keeps its state
            new = torch.where((lengths > number)[:, None], new, state)
        state = new
        outputs.append(state[:, : widths[0]])
    return sequence.output(torch.stack(outputs)), state


def _march_known(
    cell: nn.RNNCellBase, sequence: TimeSequence, start: Tensor, widths: Sequence[int]
) -> tuple[Tensor | PackedSequence, Tensor]:
    weights = [cell.weight_ih, cell.weight_hh]
    if cell.bias:
        weights += [cell.bias_ih, cell.bias_hh]
    parts = parts_of(start[None], widths)
    parts = parts.contiguous() if isinstance(parts, Tensor) else [p.contiguous() for p in parts]
    options = weights, cell.bias, 1, 0.0, cell.training, False
    loop, packed = LOOPS[type(cell)], sequence.packed
    if packed is None:
        y, *last = loop(sequence.x, parts, *options, False)
        return sequence.output(y), torch.cat(last, -1)[0]
    y, *last = loop(packed.data, packed.batch_sizes, parts, *options)
    return packed._replace(data=y), torch.cat(last, -1)[0]
