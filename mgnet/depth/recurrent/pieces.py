"""Steps in pieces of a fixed size, so that results do not depend on their distribution."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor

from mgnet.depth.recurrent.propagation import TimeAdjoint, TimeSteps, check_jacobians

__all__ = ["PiecedSteps"]


@dataclass(frozen=True, eq=False)
class PiecedSteps:
    """Pieces of a sequence, one after another, as one propagator (`Propagator`).

    A batched call is divided into one call per piece. Rounding errors of a row depend on the other
    rows of a call (matrix products use different kernels for different shapes). Here these rows are
    always the same, for any distribution of pieces over processes.

    Parameters
    ----------
    pieces : sequence of TimeSteps or of TimeAdjoint
        The pieces of this process, possibly none; each starts with an interval of the coarsest
        level.
    lengths : tuple of int
        Number of steps of each piece.
    factors : tuple of int
        Coarsening factor of each level except the coarsest.
    steps : int
        Number of steps of all processes.

    Examples
    --------
    >>> from mgnet.depth.recurrent.gru_steps import GRUSteps
    >>> steps, inputs = GRUSteps(torch.zeros(3, 1), None), torch.zeros(5, 1, 3)
    >>> pieces = [TimeSteps(steps, part, (2,)) for part in inputs.split((4, 1))]
    >>> pieced = PiecedSteps(pieces, (4, 1), (2,), 5)
    >>> pieced.advance(0, slice(0, 5, 2), torch.ones(3, 1, 1)).ravel()
    tensor([0.5000, 0.5000, 0.5000])
    >>> pieced.advance(1, slice(0, 3), torch.ones(3, 1, 1)).ravel()
    tensor([0.2500, 0.2500, 0.5000])
    """

    pieces: Sequence[TimeSteps] | Sequence[TimeAdjoint]
    lengths: tuple[int, ...]
    factors: tuple[int, ...]
    steps: int

    @cached_property
    def begins(self) -> list[tuple[int, ...]]:
        """For every level, the first step of each piece, followed by the total number of steps."""
        strides = accumulate(self.factors, mul, initial=1)
        return [tuple(accumulate((-(-n // k) for n in self.lengths), initial=0)) for k in strides]

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Compute some steps of a level."""
        found = [
            self.pieces[number].advance(level, part, states[rows].clone())
            for number, part, rows in self._calls(level, which)
        ]
        return torch.cat(found) if found else states

    def linearize(
        self, level: int, which: slice, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """The result of `advance`, and its derivative; see `TimeSteps.linearize`."""
        check_jacobians(states, structure, self.steps)  # each process gets those of all
        found = [
            self.pieces[number].linearize(level, part, states[rows].clone(), structure)
            for number, part, rows in self._calls(level, which)
        ]
        if not found:
            dense = structure == "dense"
            return states, states.new_zeros(*states.shape, *states.shape[-1:] * dense)
        values, jacobians = zip(*found, strict=True)
        return torch.cat(values), torch.cat(jacobians)

    def _calls(self, level: int, which: slice) -> tuple[tuple[int, slice, slice], ...]:
        return _calls(self.begins[level], which.start, which.stop, which.step or 1)


@lru_cache(maxsize=4096)
def _calls(
    begins: tuple[int, ...], start: int, stop: int, step: int
) -> tuple[tuple[int, slice, slice], ...]:
    """For each piece that takes part in a call: its number, its steps, and the rows of its steps.

    A piece stores data for a slice of its steps, so the same call returns the same objects.
    """
    whole, found = range(start, stop, step), []
    row = 0
    while row < len(whole):
        number = bisect_right(begins, whole[row]) - 1
        begin, end = begins[number : number + 2]
        count = len(range(whole[row], min(end, stop), step))
        part = slice(whole[row] - begin, min(end, stop) - begin, step)
        found.append((number, part, slice(row, row + count)))
        row += count
    return tuple(found)
