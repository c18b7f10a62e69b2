"""A march over layers one by one, for propagators that have none; F-points filled in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from mgnet.depth.mgrit.c_layers import Intervals

__all__ = ["filled", "march_by_advance"]

State = Any


class Advancing(Protocol):
    """What is asked of a propagator."""

    def advance(self, level: int, which: slice, states: State) -> State:
        """One step over some layers."""
        ...


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
    """All points of a march over the layers of a level one by one, in the order of the march.

    Parameters
    ----------
    propagator : Propagator
    level : int
    layers : int
        n.
    start : state
        The first point, with axis 0.
    rows : sequence of state, optional
        What is added after each layer, in the order of the march; nothing by default.
    reverse : bool
        From the last layer to the first.

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
    """A trajectory whose F-points are set, in place; those of a short last interval are fewer.

    Parameters
    ----------
    points : state
        All of a level, the C-points set.
    found : state
        The F-points, of shape (intervals, factor - 1, ...).
    parts : Intervals

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
