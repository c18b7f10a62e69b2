"""A recurrence's initial state as given by the user, and its last state in the same form."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from mgnet import vector
from mgnet.depth.recurrent.cell_steps import Cell, CellState, joined, parts_of
from mgnet.depth.recurrent.sequences import TimeSequence

__all__ = ["InitialState", "state_widths"]


@dataclass(frozen=True, eq=False)
class InitialState:
    """States of all layers and directions before the first step.

    Parameters
    ----------
    states : Tensor of shape (layers * directions, batch, S)
        The states, with samples in the order of the sequence.
    widths : tuple of int
        Widths of the parts of a state, which are concatenated.
    sequence : TimeSequence
        The input sequence.

    Examples
    --------
    >>> import torch
    >>> sequence = TimeSequence.of(torch.zeros(7, 5, 2), batch_first=False)
    >>> start = InitialState.of(nn.LSTMCell(2, 3), sequence, None)
    >>> start.states.shape, [part.shape for part in start.given(start.states)]
    (torch.Size([1, 5, 6]), [torch.Size([1, 5, 3]), torch.Size([1, 5, 3])])
    """

    states: Tensor
    widths: tuple[int, ...]
    sequence: TimeSequence

    @classmethod
    def of(cls, cell: Cell, sequence: TimeSequence, h0: CellState | None) -> InitialState:
        """Convert the user's initial state; zeros for None.

        Parameters
        ----------
        cell : callable
            The user's cell.
        sequence : TimeSequence
            The input sequence.
        h0 : Tensor or tuple of Tensor, optional
            The user's state.

        Raises
        ------
        TypeError, ValueError
            If the state does not match the cell and the sequence.
        """
        _check_input(cell, sequence)
        widths = state_widths(cell)
        layers = 1
        if isinstance(cell, nn.RNNBase):
            layers = cell.num_layers * (1 + cell.bidirectional)
        ends = () if sequence.unbatched else (sequence.x.shape[1],)
        if h0 is None:
            if widths is None:
                raise ValueError(
                    f"TimeParallel got no h0, and its cell, {type(cell).__name__}, has no "
                    "hidden_size; give h0 of shape (1, batch, S), or a tuple of such"
                )
            zeros = sequence.x.new_zeros(layers, sequence.x.shape[1], sum(widths))
            return cls(zeros, widths, sequence)
        if isinstance(h0, list):
            h0 = tuple(h0)
        if not isinstance(cell, nn.RNNBase | nn.RNNCellBase):
            widths = None  # taken from the state, which may be a tuple
        parts = h0 if isinstance(h0, tuple) else (h0,)
        wanted = [(layers, *ends, w) for w in widths] if widths else None
        if wanted is None and all(isinstance(p, Tensor) and p.dim() for p in parts):
            wanted = [(layers, *ends, p.shape[-1]) for p in parts]
        fits = bool(wanted) and len(parts) == len(wanted)
        tuples = isinstance(h0, tuple) == (len(wanted or parts) > 1) or widths is None
        if not (fits and tuples) or not all(
            isinstance(p, Tensor) and tuple(p.shape) == w and p.dtype == sequence.x.dtype
            for p, w in zip(parts, wanted or (), strict=True)
        ):
            got = ", ".join(vector.describe(p) for p in parts)
            want = " and ".join(map(str, wanted)) if wanted else "(1, batch, S)"
            raise ValueError(
                f"TimeParallel got h0 as {type(h0).__name__}: {got}; it must have "
                f"{len(wanted or parts)} part(s) of shape {want}, of the input's {sequence.x.dtype}"
            )
        found = tuple(p.shape[-1] for p in parts)
        return cls(sequence.ordered(joined(h0)), found, sequence)

    def with_states(self, states: Tensor) -> InitialState:
        """A copy with other states."""
        return replace(self, states=states)

    def given(self, states: Tensor) -> CellState:
        """States (layers * directions, batch, S) in the form of h0."""
        return parts_of(self.sequence.given_order(states), self.widths)


def state_widths(cell: Cell) -> tuple[int, ...] | None:
    """The widths of the parts of a cell's state; None if the cell does not define them.

    Parameters
    ----------
    cell : callable
        The user's cell.

    Examples
    --------
    >>> state_widths(nn.LSTMCell(2, 3)), state_widths(lambda x, h: h)
    ((3, 3), None)
    """
    size = getattr(cell, "hidden_size", None)
    if not isinstance(size, int):
        return None
    return (size, size) if isinstance(cell, nn.LSTM | nn.LSTMCell) else (size,)


def _check_input(cell: Cell, sequence: TimeSequence) -> None:
    if not isinstance(cell, nn.RNNBase | nn.RNNCellBase):
        return
    weight, x = next(cell.parameters()), sequence.x
    if x.shape[-1] != cell.input_size or x.dtype != weight.dtype:
        raise ValueError(
            f"TimeParallel got an input with {x.shape[-1]} features of {x.dtype}; its "
            f"{type(cell).__name__} needs {cell.input_size} of {weight.dtype}"
        )
