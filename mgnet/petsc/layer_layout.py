"""Which layers of a network lie on which MPI rank: `LayerLayout`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LayerLayout"]


@dataclass(frozen=True)
class LayerLayout:
    """Contiguous blocks of whole coarsest intervals, in the order of the ranks.

    The blocks are those of PETSc's default layout: the first ranks have one interval more where
    they cannot be equal, and the last ones none where there are too few. Relaxation and residuals
    on every level then need the layers of one rank only.

    Parameters
    ----------
    layers : int
        N.
    interval : int
        Layers of the finest level per layer of the coarsest one; the last interval may be short.
    ranks : int
    together : int
        Layers of the coarsest level that no two ranks share.

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
        """Of the coarsest level."""
        return -(-self.layers // self.interval)

    @property
    def occupied(self) -> int:
        """Ranks that have layers: the first ones."""
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
        """The rank whose layers come before (step -1) or after (step 1) those of a rank."""
        found = rank + step
        return found if rank < self.occupied and 0 <= found < self.occupied else None
