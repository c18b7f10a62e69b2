"""A coarse step for any cell, extrapolated from two of its own steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mgnet.depth.recurrent.cell_steps import Cell, CellState, joined, parts_of

__all__ = ["extrapolated"]


def extrapolated(cell: Cell) -> Callable[[Tensor, CellState, Tensor], CellState]:
    """A step `h + (1 + q + ... + q^(k - 1)) (cell(x, h) - h)`, as if changes decayed with factor q.

    For each row, q is the change in a second step projected on that in the first, relative to the
    first, limited to [0, 1) (Aitken's extrapolation for vectors); in derivatives it is constant.
    Euler's step, q = 1, is suitable for states that change slowly, but overshoots for states with a
    short memory. For the latter, one step of the cell (q = 0) is suitable.

    Parameters
    ----------
    cell : callable
        The user's cell `(x, h) -> h`.

    Examples
    --------
    >>> step = extrapolated(lambda x, h: 0.5 * h)
    >>> step(torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[3.0]]))
    tensor([[0.1250]])
    """

    def step(x: Tensor, state: CellState, k: Tensor) -> CellState:
        new = cell(x, state)
        before, after = joined(state), joined(new)
        change = after - before
        with torch.no_grad():
            second = joined(cell(x, new)) - after
            squares = (change * change).sum(-1, keepdim=True)
            tiny = torch.finfo(squares.dtype).tiny
            q = (change * second).sum(-1, keepdim=True) / squares.clamp_min(tiny)
            q = q.clamp(0.0, 1.0 - 1e-6)
            sums = (1.0 - q**k) / (1.0 - q)
        widths = [state.shape[-1]] if isinstance(state, Tensor) else [s.shape[-1] for s in state]
        return parts_of(before + sums * change, widths)

    return step
