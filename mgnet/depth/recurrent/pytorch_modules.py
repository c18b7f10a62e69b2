"""From a cell back to a module of PyTorch."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from mgnet.depth.recurrent.cell_steps import Cell
from mgnet.depth.recurrent.recurrence import is_known

__all__ = ["module_of"]

KINDS = {nn.GRUCell: nn.GRU, nn.LSTMCell: nn.LSTM}


def module_of(cell: Cell, batch_first: bool, training: bool) -> nn.GRU | nn.LSTM:
    """A GRU or LSTM with a copy of the weights, under the names that PyTorch gives them.

    Parameters
    ----------
    cell : callable
    batch_first, training : bool
        For what is made of a cell.

    Raises
    ------
    TypeError
        If PyTorch has no module of such cells.

    Examples
    --------
    >>> module_of(nn.GRUCell(2, 3), batch_first=True, training=True)
    GRU(2, 3, batch_first=True)
    """
    if isinstance(cell, nn.GRU | nn.LSTM):
        return copy.deepcopy(cell)
    if type(cell) not in KINDS or not is_known(cell):
        raise TypeError(
            f"TimeParallel.to_module got a {type(cell).__name__}; only GRUCell, LSTMCell, GRU "
            "and LSTM have a module of PyTorch"
        )
    known: Any = cell
    made = KINDS[type(cell)](
        known.input_size,
        known.hidden_size,
        bias=known.bias,
        batch_first=batch_first,
        device=known.weight_ih.device,
        dtype=known.weight_ih.dtype,
    )
    made.load_state_dict({f"{name}_l0": value for name, value in known.state_dict().items()})
    return made.train(training)
