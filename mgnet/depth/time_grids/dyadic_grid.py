"""A grid of time intervals, each of which results from halving an interval of a first grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mgnet.limits import shown

__all__ = ["MOST_HALVINGS", "DyadicGrid"]

MOST_HALVINGS = 40


@dataclass(frozen=True, eq=False)
class DyadicGrid:
    """Cells that result from halving the cells of a first grid, whose points are in every grid.

    Positions are measured in cells of the first grid, so its k-th point has position k. All
    positions are exact numbers, which identify common points of two grids.

    Parameters
    ----------
    lengths : array of shape (R,)
        Lengths of the cells of the first grid, in units of time.
    starts : array of shape (n,)
        Position of the left end of each cell, ascending.
    halvings : array of int of shape (n,)
        How often a cell of the first grid was halved to obtain each cell.

    Examples
    --------
    >>> grid = DyadicGrid.first(np.array([1.0, 4.0])).changed(np.array([0, 2]))
    >>> grid.steps
    array([1., 1., 1., 1., 1.])
    >>> grid.changed(np.array([0, 0, 0, -1, -1])).steps
    array([1., 1., 1., 2.])
    """

    lengths: np.ndarray
    starts: np.ndarray
    halvings: np.ndarray

    @classmethod
    def first(cls, lengths: np.ndarray) -> DyadicGrid:
        """Create the grid with these cells."""
        count = len(lengths)
        return cls(
            np.asarray(lengths, dtype=float), np.arange(float(count)), np.zeros(count, dtype=int)
        )

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def steps(self) -> np.ndarray:
        """The length of every cell, in units of time."""
        return np.ldexp(self.lengths[self.starts.astype(int)], -self.halvings)

    @property
    def positions(self) -> np.ndarray:
        """Positions of the n + 1 points."""
        return np.append(self.starts, float(len(self.lengths)))

    def halved(self) -> DyadicGrid:
        """The grid with every cell halved."""
        return self.changed(np.ones(len(self), dtype=int))

    def changed(self, more: np.ndarray) -> DyadicGrid:
        """A grid in which each cell is halved this often; for negative numbers, cells are joined.

        Two halves of a cell are joined only if this is requested for both, never beyond the first
        grid.

        Parameters
        ----------
        more : array of int of shape (n,)
            Number of additional halvings of each cell.

        Raises
        ------
        ValueError
            If a cell would be halved too often for exact positions.
        """
        starts, halvings = self.starts, self.halvings
        wanted = np.maximum(halvings + np.asarray(more), 0)
        while True:  # join cells, starting with the smallest halves of the same cell
            left = _pairs(starts, halvings, wanted)
            if not len(left):
                break
            halvings, wanted = halvings.copy(), wanted.copy()
            halvings[left] -= 1
            wanted[left] = np.maximum(wanted[left], wanted[left + 1])
            starts, halvings, wanted = (np.delete(a, left + 1) for a in (starts, halvings, wanted))
        wanted = np.maximum(wanted, halvings)
        if wanted.max(initial=0) > MOST_HALVINGS:
            raise ValueError(
                f"DyadicGrid got cells of {shown(int(wanted.max()))} halvings; at most "
                f"{MOST_HALVINGS} keep positions exact"
            )
        parts = 1 << (wanted - halvings)
        inside = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
        new = np.repeat(wanted, parts)
        return DyadicGrid(
            self.lengths, np.repeat(starts, parts) + np.ldexp(1.0, -new) * inside, new
        )


def _pairs(starts: np.ndarray, halvings: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The left halves of those pairs of halves of one cell that are to be joined."""
    larger = wanted < halvings
    even = np.ldexp(starts, halvings) % 2.0 == 0.0
    same = (halvings[:-1] == halvings[1:]) & larger[:-1] & larger[1:] & even[:-1]
    return np.flatnonzero(same)
