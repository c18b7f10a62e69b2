"""Selection of the cells of a time grid to be halved or joined, and of the end of refinement."""

from __future__ import annotations

import numpy as np

from mgnet.depth.time_grids.adaptive_solution import Ending
from mgnet.depth.time_grids.dyadic_grid import MOST_HALVINGS, DyadicGrid

__all__ = ["MOST_AT_ONCE", "ending_of", "halvings"]

SAFETY = 0.9  # factor for the step size that an estimate suggests
MOST_AT_ONCE = 3  # largest number of halvings of a cell from one grid to the next
SETTLED = 10.0  # tolerances: below them, cells are only refined, so that grids converge


def halvings(sizes: np.ndarray, known: np.ndarray, order: int) -> np.ndarray:
    """How often each cell is to be halved; negative numbers mean that cells are to be joined.

    Parameters
    ----------
    sizes : array of shape (n,)
        Error estimate of each cell, in units of the tolerance; inf if a step failed.
    known : array of bool of shape (n,)
        Whether the state at the left end of each cell is finite; after a failed step, it is
        unknown.
    order : int
        Order p of the method: the error of a step is of order dt^(p + 1).

    Returns
    -------
    array of int of shape (n,)
        Number of halvings of each cell, negative if it is to be joined with others.

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
    """The reason to end the refinement; None if it is to continue.

    Parameters
    ----------
    sizes, more : arrays of shape (n,)
        The error estimates that `halvings` gets, and its result.
    cells : DyadicGrid
        The current cells, with two steps each.
    grids : int
        Number of grids so far.
    max_grids, max_steps : int
        Largest number of grids, and largest number of steps of a grid.

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
