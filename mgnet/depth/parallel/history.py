"""A record of the cycles of one propagation, in numbers that all processes share."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from mgnet.depth.mgrit.communicator import Communicator, own_points, squares
from mgnet.depth.parallel.control import PassReport, summarize

__all__ = ["History", "least_change"]

RESIDUAL, CHANGE, LOOK = "residual", "change", "look"


def least_change(dtype: torch.dtype) -> float:
    """The largest relative change of states that counts as rounding error.

    Examples
    --------
    >>> least_change(torch.float64) < 1e-14
    True
    """
    return 32.0 * torch.finfo(dtype).eps


class History:
    """Norms of residuals, and changes of the output.

    Squares are stored for every point and gathered on demand. All processes then add the same
    numbers in the same order, so every decision is the same on all processes and for any number of
    them. Nothing is read until then, so the host does not wait for a device.

    Parameters
    ----------
    communicator : Communicator
        The processes that share the layers.
    reverse : bool
        Whether layers are traversed from right to left.
    dtype : torch.dtype
        Precision of the states, which determines the changes that count as rounding errors.

    Examples
    --------
    >>> from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
    >>> history = History(SERIAL_COMMUNICATOR, False, torch.float64)
    >>> for number in range(2):
    ...     history.add_residual(torch.tensor([[0.0], [3.0], [4.0]]) / 10**number)
    ...     history.add_change(torch.zeros(3, 1), torch.tensor([[2.0], [1.0], [1.0]]))
    >>> history.summarize()
    PassReport(cycles=2, factor=0.1, estimate=0.111..., estimates=(0.111..., 0.111...))
    """

    def __init__(self, communicator: Communicator, reverse: bool, dtype: torch.dtype):
        self.communicator = communicator
        self.reverse = reverse
        self.rounding = least_change(dtype)
        self.changes: list[float] = []
        self.norms: list[float] = []
        self.looks: list[bool] = []  # whether states were finite
        self._waiting: list[tuple[str, Tensor]] = []  # kind; squares

    def add_residual(self, residual: Tensor) -> None:
        """Add the residual at the C-points."""
        self._waiting.append((RESIDUAL, squares(own_points(residual, self.reverse))[None]))

    def add_change(self, before: Tensor, after: Tensor) -> None:
        """Add a cycle to the record, given the states at the C-points before and after it."""
        ends = after.new_zeros((2, len(after) - 1), dtype=torch.float64)
        last = 0 if self.reverse else -1
        if len(after) > 1:  # this process has layers
            new = after[last]
            ends[:, last] = squares(torch.stack([new - before[last], new]))
        self._waiting.append((CHANGE, ends))

    def look(self, points: Tensor) -> None:
        """Look for NaN and Inf at the C-points, and leave the result on the device."""
        own = own_points(points, self.reverse)
        if own.numel():
            seen = own.detach().isfinite().flatten(1).all(1).logical_not_()
        else:
            seen = own.new_zeros(len(own))
        self._waiting.append((LOOK, seen.to(torch.float64)[None]))

    def spoiled(self, points: Tensor) -> Tensor:
        """The same points, made NaN if one was not finite: a CUDA graph cannot raise an error."""
        seen = [rows for kind, rows in self._waiting if kind == LOOK]
        return points.masked_fill(torch.cat(seen).any(), math.nan) if seen else points

    def summarize(self) -> PassReport:
        """The current estimates. All processes must call this together.

        Raises
        ------
        FloatingPointError
            If a state was not finite; all processes raise the error together.
        """
        self._gather()
        if not all(self.looks):
            raise FloatingPointError(
                f"the state is not finite after {len(self.changes)} cycles, as was found at their "
                "end"
            )
        return summarize(self.changes, self.norms, self.rounding)

    def read(self) -> PassReport:
        """The current estimates, read from the device, where a CUDA graph may have updated them."""
        now = copy.copy(self)
        now.changes, now.norms, now.looks = [*self.changes], [*self.norms], []
        now._waiting = [(kind, rows) for kind, rows in self._waiting if kind != LOOK]
        return now.summarize()

    def _gather(self) -> None:
        if not self._waiting:
            return
        rows = torch.cat([squares for _, squares in self._waiting])
        whole = self.communicator.gather(rows)
        sums, ends = whole.sum(1).tolist(), whole[:, 0 if self.reverse else -1].tolist()
        row = 0
        for kind, _ in self._waiting:
            if kind == RESIDUAL:
                self.norms.append(math.sqrt(sums[row]))
            elif kind == LOOK:
                self.looks.append(not sums[row])
            else:  # each process gave its own last point: the output is that of the last process
                change, value = ends[row : row + 2]
                unknown = math.inf if change else 0.0  # the output is 0
                self.changes.append(math.sqrt(change) / math.sqrt(value) if value else unknown)
            row += 2 if kind == CHANGE else 1
        self._waiting = []
