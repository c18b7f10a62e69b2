"""A grid of time intervals, each some halvings of an interval of a first grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mgnet.limits import shown

__all__ = ["MOST_HALVINGS", "DyadicGrid"]

MOST_HALVINGS = 40


@dataclass(frozen=True, eq=False)
class DyadicGrid:
    """Cells that are halvings of the cells of a first grid, whose points stay in every grid.

    A position is counted in cells of the first grid, so the k-th point of it has position k; all
    positions are exact numbers, and grids find one another's points by them.

    Parameters
    ----------
    lengths : array of shape (R,)
        Of the cells of the first grid, in units of time.
    starts : array of shape (n,)
        The position at the left of each cell, ascending.
    halvings : array of int of shape (n,)
        How often a cell of the first grid was halved to make each.

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
        """The grid of these cells."""
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
        """Of the n + 1 points."""
        return np.append(self.starts, float(len(self.lengths)))

    def halved(self) -> DyadicGrid:
        """Every cell in two."""
        return self.changed(np.ones(len(self), dtype=int))

    def changed(self, more: np.ndarray) -> DyadicGrid:
        """A grid with so many more halvings of each cell; where negative, cells are joined.

        Two halves of a cell are joined only where both may be, and never past the first grid.

        Parameters
        ----------
        more : array of int of shape (n,)
        """
        starts, halvings = self.starts, self.halvings
        wanted = np.maximum(halvings + np.asarray(more), 0)
        while True:  # join, the smallest first to be halves of the same cell
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
    """The left ones of neighbouring halves of one cell that both want to be larger."""
    larger = wanted < halvings
    even = np.ldexp(starts, halvings) % 2.0 == 0.0
    same = (halvings[:-1] == halvings[1:]) & larger[:-1] & larger[1:] & even[:-1]
    return np.flatnonzero(same)
