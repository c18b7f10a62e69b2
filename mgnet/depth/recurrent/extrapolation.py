"""A coarse step for any cell: two of its own steps, extrapolated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mgnet.depth.recurrent.cell_steps import Cell, CellState, joined, parts_of

__all__ = ["extrapolated"]


def extrapolated(cell: Cell) -> Callable[[Tensor, CellState, Tensor], CellState]:
    """`h + (1 + q + ... + q^(k - 1)) (cell(x, h) - h)`, as if changes shrank by q at every step.

    q is the norm of the change in a second step over that of the first, at most 1, of each row, as
    in Aitken's extrapolation; it counts as a constant in derivatives. Euler's step, q = 1, is right
    for a state that changes slowly, and overshoots for one that soon forgets.

    Parameters
    ----------
    cell : callable
        `(x, h) -> h`.

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
            second = torch.linalg.vector_norm(joined(cell(x, new)) - after, dim=-1, keepdim=True)
            first = torch.linalg.vector_norm(change, dim=-1, keepdim=True)
            tiny = torch.finfo(first.dtype).tiny
            q = (second / first.clamp_min(tiny)).clamp(0.0, 1.0 - 1e-6)
            sums = (1.0 - q**k) / (1.0 - q)
        widths = [state.shape[-1]] if isinstance(state, Tensor) else [s.shape[-1] for s in state]
        return parts_of(before + sums * change, widths)

    return step
