"""The steps of a layer of a recurrent network: weights, inputs, widths of its state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mgnet.depth.batched.lending import lending
from mgnet.depth.recurrent.cell_call import KeptCell
from mgnet.depth.recurrent.cell_steps import Cell, CellSteps, CoarseStep
from mgnet.depth.recurrent.extrapolation import extrapolated
from mgnet.depth.recurrent.gru_steps import GRUSteps
from mgnet.depth.recurrent.implicit_gru import ImplicitGRUCell
from mgnet.depth.recurrent.lstm_steps import LSTMSteps
from mgnet.depth.recurrent.step_tape import Steps

__all__ = [
    "Recurrence",
    "check_module",
    "coarse_of",
    "is_known",
    "module_of",
    "recurrence_of",
    "recurrences_of",
]

# Classes with known derivatives; derived classes may compute something else.
KNOWN = {
    nn.GRUCell: GRUSteps,
    nn.GRU: GRUSteps,
    nn.LSTMCell: LSTMSteps,
    nn.LSTM: LSTMSteps,
    ImplicitGRUCell: partial(GRUSteps, implicit=True),
}


@dataclass(frozen=True, eq=False)
class Recurrence:
    """One layer in one direction.

    Parameters
    ----------
    steps : callable
        A function from the weights to `Steps`.
    weights : sequence of (Tensor or None)
        The weights of the steps.
    widths : tuple of int
        Widths of the parts of a state, which are concatenated.
    of_input : tuple of (Tensor or None), optional
        weight_ih and bias_ih, if these are applied to the inputs first.
    """

    steps: Callable[..., Steps]
    weights: Sequence[Tensor | None]
    widths: tuple[int, ...]
    of_input: tuple[Tensor, Tensor | None] | None = None

    def inputs(self, x: Tensor) -> Tensor:
        """The data for all steps, computed at once from x (T, batch, features)."""
        return x if self.of_input is None else F.linear(x, *self.of_input)


def is_known(cell: Cell) -> bool:
    """Whether the derivatives of a cell are those of its class, without hooks.

    Parameters
    ----------
    cell : callable
        The user's cell.

    Examples
    --------
    >>> is_known(nn.GRUCell(2, 3)), is_known(nn.RNNCell(2, 3))
    (True, False)
    """
    if type(cell) not in KNOWN or "forward" in vars(cell):
        return False
    hooks = cell._forward_hooks, cell._forward_pre_hooks, cell._backward_hooks  # type: ignore
    return not any(hooks) and not cell._backward_pre_hooks  # type: ignore


def check_module(module: nn.RNNBase) -> None:
    """Refuse a module of layers whose steps differ from those of `recurrences_of`.

    Parameters
    ----------
    module : RNNBase
        The module to check.

    Raises
    ------
    TypeError
        If it is not a plain GRU or LSTM.
    ValueError
        If the module is an LSTM with a projection.

    Examples
    --------
    >>> check_module(nn.RNN(2, 3))
    Traceback (most recent call last):
    TypeError: TimeParallel got a RNN, or a module with hooks; give a plain nn.GRU or nn.LSTM, or \
a cell such as nn.RNNCell
    """
    if not is_known(module):
        raise TypeError(
            f"TimeParallel got a {type(module).__name__}, or a module with hooks; give a plain "
            "nn.GRU or nn.LSTM, or a cell such as nn.RNNCell"
        )
    if module.proj_size:
        raise ValueError(
            f"TimeParallel got an LSTM with proj_size = {module.proj_size}; give one without "
            "projection"
        )


def coarse_of(cell: Cell) -> CoarseStep | None:
    """The method `coarse` of a cell, if it has one; a submodule of that name does not count.

    Parameters
    ----------
    cell : callable
        The user's cell.

    Examples
    --------
    >>> cell = nn.RNNCell(2, 3)
    >>> cell.coarse = nn.Linear(2, 3)
    >>> print(coarse_of(cell))
    None
    """
    found: Any = getattr(cell, "coarse", None)
    fits = callable(found) and not isinstance(found, nn.Module)
    return found if fits else None  # type: ignore[return-value]


def recurrence_of(
    cell: Cell, coarse: CoarseStep | None, widths: tuple[int, ...], kept: KeptCell | None = None
) -> Recurrence:
    """The recurrence of a cell.

    Parameters
    ----------
    cell : callable
        The user's cell.
    coarse : callable, optional
        A coarse step `(x, h, k) -> h`; by default the cell's own method `coarse`, or
        `extrapolated`.
    widths : tuple of int
        Widths of the parts of a state.
    kept : KeptCell, optional
        What the cell depends on besides its weights.

    Examples
    --------
    >>> import torch
    >>> recurrence_of(nn.LSTMCell(2, 3), None, (3, 3)).inputs(torch.zeros(5, 1, 2)).shape
    torch.Size([5, 1, 12])
    """
    if coarse is None and is_known(cell):
        return _of_weights(KNOWN[type(cell)], cell, "", widths)  # type: ignore[index, arg-type]
    if coarse is None:
        coarse = coarse_of(cell) or extrapolated(cell)
    with lending():
        weights = [*cell.parameters()] if isinstance(cell, nn.Module) else []
    return Recurrence(partial(CellSteps, cell, coarse, widths, kept=kept), weights, widths)


def recurrences_of(module: nn.GRU | nn.LSTM) -> list[list[Recurrence]]:
    """The recurrences of every layer of a module, for one or two directions.

    Parameters
    ----------
    module : GRU or LSTM
        The module.

    Examples
    --------
    >>> [len(layer) for layer in recurrences_of(nn.GRU(2, 3, num_layers=2, bidirectional=True))]
    [2, 2]
    """
    widths = (module.hidden_size,) * (2 if isinstance(module, nn.LSTM) else 1)
    ends = ("", "_reverse")[: 1 + module.bidirectional]
    return [
        [_of_weights(KNOWN[type(module)], module, f"_l{layer}{end}", widths) for end in ends]
        for layer in range(module.num_layers)
    ]


def module_of(cell: Cell, batch_first: bool, training: bool) -> nn.GRU | nn.LSTM:
    """Create a PyTorch module with a copy of the weights of a cell or module.

    Parameters
    ----------
    cell : callable
        The cell or module.
    batch_first, training : bool
        Attributes of a module that is created from a cell.

    Raises
    ------
    TypeError
        If there is no such module for the cell.

    Examples
    --------
    >>> module_of(nn.GRUCell(2, 3), batch_first=True, training=True)
    GRU(2, 3, batch_first=True)
    """
    if isinstance(cell, nn.GRU | nn.LSTM):
        return copy.deepcopy(cell)
    kinds = {nn.GRUCell: nn.GRU, nn.LSTMCell: nn.LSTM}
    if type(cell) not in kinds or not is_known(cell):
        raise TypeError(
            f"TimeParallel.to_module got a {type(cell).__name__}; only GRUCell, LSTMCell, GRU "
            "and LSTM have a corresponding module of PyTorch"
        )
    made = kinds[type(cell)](
        cell.input_size,
        cell.hidden_size,
        bias=cell.bias,
        batch_first=batch_first,
        device=cell.weight_ih.device,
        dtype=cell.weight_ih.dtype,
    )
    made.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    return made.train(training)


def _of_weights(
    steps: Callable[..., Steps], module: nn.Module, end: str, widths: tuple[int, ...]
) -> Recurrence:
    weights = [getattr(module, f"weight_{name}{end}") for name in ("ih", "hh")]
    biases = [getattr(module, f"bias_{name}{end}", None) for name in ("ih", "hh")]
    return Recurrence(steps, (weights[1], biases[1]), widths, (weights[0], biases[0]))
