"""The distribution of the layers of a network over MPI ranks: `LayerLayout`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LayerLayout"]


@dataclass(frozen=True)
class LayerLayout:
    """Contiguous blocks of whole coarsest-level intervals, in the order of the ranks.

    The blocks follow PETSc's default layout: if they cannot be equal, the first ranks have one more
    interval, and if there are too few intervals, the last ranks have none. Relaxation and residuals
    on every level then need only the layers of one rank.

    Parameters
    ----------
    layers : int
        Number of layers, N.
    interval : int
        Number of finest layers per layer of the coarsest level; the last interval may be shorter.
    ranks : int
        Number of ranks.
    together : int
        Number of consecutive coarsest-level layers that must stay on one rank.

    Raises
    ------
    ValueError
        If one of the numbers is less than 1.

    Examples
    --------
    >>> layout = LayerLayout(layers=130, interval=16, ranks=4)
    >>> [layout.of(rank) for rank in range(4)]
    [range(0, 48), range(48, 80), range(80, 112), range(112, 130)]
    >>> LayerLayout(layers=130, interval=16, ranks=4, together=2).of(0)
    range(0, 64)
    >>> LayerLayout(layers=5, interval=2, ranks=4).occupied
    3
    """

    layers: int
    interval: int
    ranks: int
    together: int = 1

    def __post_init__(self) -> None:
        if min(self.layers, self.interval, self.ranks, self.together) < 1:
            raise ValueError(f"{self} needs numbers of at least 1")

    @property
    def intervals(self) -> int:
        """Number of intervals of the coarsest level."""
        return -(-self.layers // self.interval)

    @property
    def occupied(self) -> int:
        """Number of ranks that have layers; these are the first ranks."""
        return min(-(-self.intervals // self.together), self.ranks)

    def of(self, rank: int) -> range:
        """The layers of a rank."""
        own = self.intervals_of(rank)
        begin, end = (min(number * self.interval, self.layers) for number in (own.start, own.stop))
        return range(begin, end)

    def intervals_of(self, rank: int) -> range:
        """The layers of a rank on the coarsest level."""
        each, more = divmod(-(-self.intervals // self.together), self.ranks)
        begin, end = (number * each + min(number, more) for number in (rank, rank + 1))
        return range(*(min(n * self.together, self.intervals) for n in (begin, end)))

    def neighbour(self, rank: int, step: int) -> int | None:
        """The rank whose layers come before (step -1) or after (step 1) those of the given rank."""
        found = rank + step
        return found if rank < self.occupied and 0 <= found < self.occupied else None
