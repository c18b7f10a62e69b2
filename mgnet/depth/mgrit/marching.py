"""A layer-by-layer march for propagators that have none, and propagators that march in one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from mgnet.depth.mgrit.c_layers import Intervals

__all__ = ["AtOnce", "filled", "march_by_advance"]

State = Any


class Advancing(Protocol):
    """The part of a propagator's interface that is used here."""

    def advance(self, level: int, which: slice, states: State) -> State:
        """Compute one step over some layers."""
        ...


class AtOnce(ABC):
    """A propagator that marches over a level, or over all its intervals, in one call.

    It is recognized by this class, not by the names of its methods, because a user's methods with
    these names may have a different meaning.

    Examples
    --------
    >>> from mgnet.depth.parallel.compiled_cycles import CompiledForward
    >>> issubclass(CompiledForward, AtOnce)
    True
    """

    @abstractmethod
    def trajectory(self, level: int, layers: int, start: State, f: State | None) -> State | None:
        """All points of a march from `start`; None if the level is not supported."""

    @abstractmethod
    def relax(
        self, level: int, parts: Intervals, points: State, f: State | None, inner: bool
    ) -> State | None:
        """March over all intervals from the C-points at which they start.

        Parameters
        ----------
        level : int
            Number of the level.
        parts : Intervals
            The intervals of the level.
        points : state
            The C-points.
        f : state or None
            The right-hand side at all points.
        inner : bool
            Whether to return the F-points, of shape (intervals, factor - 1, ...); otherwise the
            values at the ends of the intervals are returned.

        Returns
        -------
        state or None
            The points; None if the level is not supported.
        """


@lru_cache(maxsize=64)
def _one_by_one(layers: int) -> tuple[slice, ...]:
    return tuple(slice(i, i + 1) for i in range(layers))


def march_by_advance(
    propagator: Advancing,
    level: int,
    layers: int,
    start: State,
    rows: Sequence[State] | None,
    reverse: bool,
) -> list[State]:
    """March over the layers of a level one by one; return all points in the order of the march.

    Parameters
    ----------
    propagator : Propagator
        The steps over layers.
    level : int
        Number of the level.
    layers : int
        Number of layers, n.
    start : state
        The first point, with an axis 0 of length 1.
    rows : sequence of state, optional
        Terms to be added after each layer, in the order of the march; none by default.
    reverse : bool
        Whether to march from the last layer to the first.

    Returns
    -------
    list of state
        The n + 1 points, each with an axis 0 of length 1.

    Examples
    --------
    >>> import numpy as np
    >>> class Halve:
    ...     def advance(self, level, which, states):
    ...         return 0.5 * states
    >>> march_by_advance(Halve(), 0, 2, np.array([8.0]), [np.array([1.0])] * 2, False)
    [array([8.]), array([5.]), array([3.5])]
    """
    points, calls = [start], _one_by_one(layers)
    calls = calls[::-1] if reverse else calls
    for number, which in enumerate(calls):
        start = propagator.advance(level, which, start)
        if rows is not None:
            start = start + rows[number]
        points.append(start)
    return points


def filled(points: State, found: State, parts: Intervals) -> State:
    """Set the F-points of a trajectory in place; a short last interval has fewer F-points.

    Parameters
    ----------
    points : state
        All points of a level, with the C-points set.
    found : state
        The F-points, of shape (intervals, factor - 1, ...).
    parts : Intervals
        The intervals of the level.

    Examples
    --------
    >>> import numpy as np
    >>> filled(np.zeros(6), np.array([[1.0, 2.0], [3.0, 4.0]]), Intervals(5, 3))
    array([0., 1., 2., 0., 3., 0.])
    """
    n, c = parts.layers, parts.factor
    for j in range(1, min(c, n)):
        points[j:n:c] = found[: len(range(j, n, c)), j - 1]
    return points
