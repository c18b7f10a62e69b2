"""Which cells of a time grid are halved or joined by their error estimates, and when that ends."""

from __future__ import annotations

import numpy as np

from mgnet.depth.time_grids.adaptive_solution import Ending
from mgnet.depth.time_grids.dyadic_grid import MOST_HALVINGS, DyadicGrid

__all__ = ["MOST_AT_ONCE", "ending_of", "halvings"]

SAFETY = 0.9  # of the length of a step that an estimate proposes
MOST_AT_ONCE = 3  # halvings of a cell from one grid to the next
SETTLED = 10.0  # tolerances: below them cells are only refined, so that grids come to an end


def halvings(sizes: np.ndarray, known: np.ndarray, order: int) -> np.ndarray:
    """How often each cell is to be halved, or, where negative, joined with its like.

    Parameters
    ----------
    sizes : array of shape (n,)
        The error estimate of each cell, in units of the tolerance; inf where a step failed.
    known : array of bool of shape (n,)
        Whether the state at the left of each is finite: behind a step that failed nothing is known.
    order : int
        p, where the error of a step is of order dt^(p + 1).

    Examples
    --------
    >>> halvings(np.array([1000.0, 1.5, 0.5, 1e-4]), np.ones(4, dtype=bool), 1)
    array([ 3,  1,  0, -3])
    """
    with np.errstate(all="ignore"):
        wanted = np.ceil(np.log2(sizes) / (order + 1) - np.log2(SAFETY))
    more = np.clip(wanted, -MOST_AT_ONCE, MOST_AT_ONCE).astype(int)
    more[(sizes <= 1.0) & (more > 0)] = 0
    if sizes.max() <= SETTLED:
        more = np.maximum(more, 0)
    more[~known] = 0
    return more


def ending_of(
    sizes: np.ndarray,
    cells: DyadicGrid,
    more: np.ndarray,
    grids: int,
    max_grids: int,
    max_steps: int,
) -> Ending | None:
    """Why refinement ends, if it does.

    Parameters
    ----------
    sizes, more : arrays of shape (n,)
        As in `halvings`, and what that gave.
    cells : DyadicGrid
        Each has two steps.
    grids : int
        That were solved on so far.
    max_grids, max_steps : int

    Examples
    --------
    >>> cells = DyadicGrid.first(np.ones(1))
    >>> ending_of(np.array([0.5]), cells, np.array([0]), 1, 40, 100)
    <Ending.TOLERANCE: 'the error estimate of every interval is within the tolerance'>
    """
    if (sizes <= 1.0).all():
        return Ending.TOLERANCE
    if grids >= max_grids:
        return Ending.MAX_GRIDS
    if (cells.halvings + more).max() >= MOST_HALVINGS:  # a cell has two steps
        return Ending.TOO_SHORT
    return Ending.MAX_STEPS if 2 * len(cells.changed(more)) > max_steps else None
