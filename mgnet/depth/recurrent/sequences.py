"""Sequences in the formats of `torch.nn.GRU`: batched or not, padded or packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

__all__ = ["TimeSequence", "rows_of", "size_of"]


@dataclass(frozen=True, eq=False)
class TimeSequence:
    """A batch of sequences with time on axis 0, and the format for results.

    Parameters
    ----------
    x : Tensor of shape (T, batch, features)
        Inputs. After the end of a sequence, its last input is repeated, because zeros may be
        invalid.
    batch_first : bool
        Whether results have the batch on axis 0.
    unbatched : bool
        Whether the user passed one sequence without a batch axis.
    packed : PackedSequence, optional
        The user's input, if it is packed; x has its order, longest sequence first.

    Examples
    --------
    >>> sequence = TimeSequence.of(torch.zeros(7, 2), batch_first=False)
    >>> sequence.x.shape, sequence.output(torch.zeros(7, 1, 3)).shape
    (torch.Size([7, 1, 2]), torch.Size([7, 3]))
    """

    x: Tensor
    batch_first: bool
    unbatched: bool = False
    packed: PackedSequence | None = None

    @classmethod
    def of(cls, given: Tensor | PackedSequence, batch_first: bool) -> TimeSequence:
        """Convert the user's input.

        Parameters
        ----------
        given : Tensor or PackedSequence
            The user's input.
        batch_first : bool
            Whether the batch is on axis 0.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            If the input is invalid; RuntimeError for a sequence without steps, as in PyTorch.
        """
        if isinstance(given, PackedSequence):
            return cls(_padded(given), batch_first, packed=given)
        if not isinstance(given, Tensor):
            raise TypeError(
                f"TimeParallel got an input of type {type(given).__name__}; give a tensor or a "
                "PackedSequence"
            )
        if given.dim() not in (2, 3):
            order = "(batch, T, features)" if batch_first else "(T, batch, features)"
            raise ValueError(
                f"TimeParallel got an input of shape {tuple(given.shape)}; give {order}, or "
                "(T, features) for one sequence"
            )
        unbatched = given.dim() == 2
        x = given[:, None] if unbatched else given.transpose(0, 1) if batch_first else given
        if not len(x):
            raise RuntimeError(
                f"TimeParallel got an input of shape {tuple(given.shape)}, a sequence without "
                "steps; give one of at least one step"
            )
        return cls(x, batch_first, unbatched)

    def with_data(self, data: Tensor) -> TimeSequence:
        """A copy with another x, or, if the input is packed, with other rows."""
        if self.packed is None:
            return replace(self, x=data)
        packed = self.packed._replace(data=data)
        return replace(self, x=_padded(packed), packed=packed)

    @property
    def lengths(self) -> Tensor | None:
        """Number of steps of every sequence, shape (batch,); None if all have T steps."""
        if self.packed is None:
            return None
        sizes = self.packed.batch_sizes.to(self.x.device)
        return (sizes[:, None] > torch.arange(self.x.shape[1], device=self.x.device)).sum(0)

    @property
    def running(self) -> Tensor | None:
        """Whether each sequence has not ended, shape (T, batch, 1); None if none ends early."""
        if self.packed is None or int(self.packed.batch_sizes[-1]) == self.x.shape[1]:
            return None
        rows = torch.arange(self.x.shape[1]) < self.packed.batch_sizes[:, None]
        return rows[..., None].to(self.x.device)

    def output(self, y: Tensor) -> Tensor | PackedSequence:
        """Outputs (T, batch, features) in the user's format."""
        if self.packed is not None:
            return self.packed._replace(data=y.flatten(0, 1)[_places(self.packed, y.shape[1])])
        if self.unbatched:
            return y[:, 0]
        return y.transpose(0, 1) if self.batch_first else y

    def last(self, points: Tensor) -> Tensor:
        """Of the points (T + 1, batch, ...), those after the last step of every sequence."""
        if self.lengths is None:
            return points[-1]
        return points[self.lengths, torch.arange(points.shape[1], device=points.device)]

    def reversed(self, x: Tensor) -> Tensor:
        """Every sequence of x (T, batch, features) from its last step to its first."""
        if self.lengths is None:
            return x.flip(0)
        steps = torch.arange(len(x), device=x.device)[:, None]
        back = self.lengths - 1 - steps
        return x[torch.where(back < 0, steps, back), torch.arange(x.shape[1], device=x.device)]

    def dropout(self, x: Tensor, p: float) -> Tensor:
        """Apply dropout to x (T, batch, features) like PyTorch: only to packed rows, if any."""
        if self.packed is None:
            return F.dropout(x, p)
        rows = x.flatten(0, 1)[_places(self.packed, x.shape[1])]
        return _padded(self.packed._replace(data=F.dropout(rows, p)))

    def ordered(self, state: Tensor) -> Tensor:
        """The user's states (layers, batch, S), in the order of x."""
        if self.unbatched:
            return state[:, None]
        order = None if self.packed is None else self.packed.sorted_indices
        return state if order is None else state.index_select(1, order)

    def given_order(self, state: Tensor) -> Tensor:
        """The inverse of `ordered`."""
        if self.unbatched:
            return state[:, 0]
        order = None if self.packed is None else self.packed.unsorted_indices
        return state if order is None else state.index_select(1, order)


def rows_of(given: Tensor | PackedSequence, batch_first: bool) -> int:
    """The number of sequences in an input.

    Parameters
    ----------
    given : Tensor or PackedSequence
        The user's input.
    batch_first : bool
        Whether the batch is on axis 0.

    Examples
    --------
    >>> rows_of(torch.zeros(100, 2, 3), False), rows_of(torch.zeros(100, 3), False)
    (2, 1)
    """
    if isinstance(given, PackedSequence):
        return int(given.batch_sizes[0])
    return given.shape[0 if batch_first else 1] if given.dim() > 2 else 1


def size_of(given: Tensor | PackedSequence, h0: Tensor | Sequence[Tensor] | None) -> tuple:
    """A key for similar calls: sizes up to a factor of two, type, and which gradients they need.

    Parameters
    ----------
    given : Tensor or PackedSequence
        The user's input.
    h0 : Tensor or sequence of Tensor, optional
        The user's initial state.

    Examples
    --------
    >>> size_of(torch.zeros(100, 2, 3), None) == size_of(torch.zeros(120, 3, 3), None)
    True
    """
    x = given.data if isinstance(given, PackedSequence) else given
    lengths = [n.bit_length() for n in x.shape[:-1]]
    if isinstance(given, PackedSequence):
        lengths.append(-len(given.batch_sizes).bit_length())
    states = h0 if isinstance(h0, tuple | list) else () if h0 is None else (h0,)
    gradients = x.requires_grad, *(getattr(s, "requires_grad", False) for s in states)
    return *lengths, x.shape[-1], x.dtype, x.device, *gradients


def _places(packed: PackedSequence, batch: int) -> Tensor:
    """The positions of the rows of a packed sequence in (T * batch) rows."""
    sizes = packed.batch_sizes
    valid = torch.arange(batch) < sizes[:, None]
    return valid.flatten().nonzero().flatten().to(packed.data.device)


def _padded(packed: PackedSequence) -> Tensor:
    sizes = packed.batch_sizes
    batch, begins = int(sizes[0]), sizes.cumsum(0) - sizes
    rows = torch.arange(batch)
    # The last step of each sequence, repeated after its end.
    lengths = (sizes[:, None] > rows).sum(0)
    steps = torch.minimum(torch.arange(len(sizes))[:, None], lengths - 1)
    return packed.data[(begins[steps] + rows).to(packed.data.device)]
