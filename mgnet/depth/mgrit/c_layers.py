"""C-layers: the points of a trajectory that the next coarser level keeps.

A level with n layers has the points 0..n; its C-points are 0, c, 2c, ... and n, so the last
interval may be short, and the coarser level has ceil(n / c) layers. All other points are F-points.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from mgnet import vector
from mgnet.limits import is_whole, shown
from mgnet.transfer import Transfer

__all__ = ["CLayers", "Intervals", "intervals", "level_factors", "level_sizes"]

State = Any
MOST_LEVELS = 64  # each level has at most half as many layers as the next finer one


class BatchedStep(NamedTuple):
    """One batched call of the propagator: its layers, and the points that it reads and writes.

    `read = None` stands for the points that the previous call wrote. In a C-relaxation, the numbers
    in `write` count only the C-points.
    """

    which: slice
    read: slice | None
    write: slice
    count: int  # number of layers


@dataclass(frozen=True)
class Intervals:
    """The intervals of a level between C-points, and the batched calls that relax all of them.

    Parameters
    ----------
    layers : int
        Number of layers, n; 0 if other processes hold all layers.
    factor : int
        Coarsening factor c, at least 2.
    reverse : bool
        Whether the equation runs from point n to point 0, like the adjoint.

    Raises
    ------
    ValueError
        If `layers` is negative, or `factor` is less than 2.

    Examples
    --------
    >>> five = Intervals(layers=5, factor=3)
    >>> five.count
    2
    >>> [list(range(5)[call.which]) for call in five.f_steps + five.c_steps]
    [[0, 3], [1], [2], [4]]
    """

    layers: int
    factor: int
    reverse: bool = False

    def __post_init__(self) -> None:
        if not is_whole(self.layers) or not is_whole(self.factor, 2):
            raise ValueError(
                f"Intervals got {shown(self.layers)} layers and factor {shown(self.factor)}; "
                "the layers must not be fewer than 0, and the factor must be at least 2"
            )

    @property
    def count(self) -> int:
        """Number of intervals, which is the number of layers of the next coarser level."""
        return -(-self.layers // self.factor)

    @cached_property
    def f_steps(self) -> tuple[BatchedStep, ...]:
        """The calls of F-relaxation: one call per offset, in the order of the sweep."""
        n, c = self.layers, self.factor
        # Layer n - 1 ends at the C-point n, even if the last interval is short.
        offsets = range(min(c, n + 1))  # larger offsets have no layers
        which = [slice(j, n, c) if self.reverse else slice(j, n - 1, c) for j in offsets]
        which = which[:0:-1] if self.reverse else which[:-1]
        calls, before = [], -1
        for layers in which:
            length = len(range(n)[layers])
            right = slice(layers.start + 1, layers.stop + 1, c)
            read, write = (right, layers) if self.reverse else (layers, right)
            if length:
                calls.append(BatchedStep(layers, None if length == before else read, write, length))
            before = length
        return tuple(calls)

    @cached_property
    def c_steps(self) -> tuple[BatchedStep, ...]:
        """The calls for the layers that end at C-points: two if the last interval is short."""
        n, c = self.layers, self.factor
        if not n:
            return ()
        if self.reverse:
            return (
                BatchedStep(slice(0, n, c), slice(1, n + 1, c), slice(0, self.count), self.count),
            )
        full, calls = n // c, []
        if full:
            calls = [BatchedStep(slice(c - 1, n, c), slice(c - 1, n, c), slice(1, full + 1), full)]
        if n % c:
            last = slice(n - 1, n, c)
            calls += [BatchedStep(last, last, slice(full + 1, full + 2), 1)]
        return tuple(calls)


# Propagators may store data for a slice object, so hierarchies of one depth share the intervals.
intervals = lru_cache(maxsize=256)(Intervals)


def level_factors(levels: int, coarsening: int | Sequence[int]) -> tuple[int, ...]:
    """The coarsening factor of every level except the coarsest.

    Raises
    ------
    ValueError
        If the number of levels or a factor is invalid, or the number of factors does not match the
        levels.

    Examples
    --------
    >>> level_factors(3, 4), level_factors(3, (8, 2))
    ((4, 4), (8, 2))
    """
    if not is_whole(levels, 1, MOST_LEVELS):
        raise ValueError(
            f"layer hierarchy got levels = {shown(levels)}; give an integer of at least 1 and at "
            f"most {MOST_LEVELS}"
        )
    many = isinstance(coarsening, Sequence)
    given = tuple(coarsening) if many else (coarsening,) * (levels - 1)  # type: ignore[arg-type]
    if len(given) != levels - 1 or not all(is_whole(c, 2) for c in given):
        raise ValueError(
            f"layer hierarchy got the coarsening {shown(coarsening)} for {levels} levels; "
            f"give one integer of at least 2, or a sequence of {levels - 1} of them"
        )
    return tuple(int(c) for c in given)


def level_sizes(layers: int, factors: Sequence[int], part: bool = False) -> tuple[int, ...]:
    """The number of layers of every level, finest first: after n layers come ceil(n / c).

    Parameters
    ----------
    layers : int
        Number of layers of the finest level.
    factors : sequence of int
        Coarsening factor of every level except the coarsest, from `level_factors`.
    part : bool
        Whether these are only some of the layers, or none, and other processes hold the rest.

    Returns
    -------
    tuple of int
        The number of layers per level.

    Raises
    ------
    ValueError
        If there are too many levels; the message contains the largest possible number.

    Examples
    --------
    >>> level_sizes(130, (4, 4))
    (130, 33, 9)
    """
    if not is_whole(layers, 0 if part else 1):
        raise ValueError(
            f"layer hierarchy got layers = {shown(layers)}; give an integer of at least 1"
        )
    sizes = [int(layers)]
    for number, factor in enumerate(factors, 1):
        if sizes[-1] == 1 and not part:
            raise ValueError(
                f"layer hierarchy got {len(factors) + 1} levels for {shown(layers)} layers and "
                f"the coarsening {shown(tuple(factors))}; the largest possible number of levels is "
                f"{number}"
            )
        sizes.append(-(-sizes[-1] // factor))
    return tuple(sizes)


@dataclass(frozen=True, eq=False)
class CLayers(Transfer):
    """Injection at the C-layers, in both directions.

    `inject` and `restrict` select the C-points; `prolong` and `interpolate` put coarse values there
    and zeros between them, which F-relaxation replaces. Source: Falgout et al., SIAM J. Sci.
    Comput. 36 (2014), section 2.

    A transfer remembers the coarse state from which it set the C-points of its latest fine state,
    and `inject` returns that same object, so a coarse solver can recognize a state that it has
    already solved for.

    Parameters
    ----------
    intervals : Intervals
        The intervals between the C-points.
    c_points_only : bool
        Whether only the C-points of a fine state are stored, in the same array as the coarse state.

    Examples
    --------
    >>> import numpy as np
    >>> transfer = CLayers(Intervals(layers=5, factor=2))
    >>> transfer.inject(np.arange(6.0))
    array([0., 2., 4., 5.])
    >>> transfer.prolong(np.array([1.0, 2.0, 3.0, 4.0]))
    array([1., 0., 2., 0., 3., 4.])
    """

    intervals: Intervals
    c_points_only: bool = False
    # A reference to the last fine state made from a coarse state, and that coarse state.
    _last: list[Any] = field(default_factory=lambda: [lambda: None, None], init=False, repr=False)

    def inject(self, state: State) -> State:  # type: ignore[override]
        if state is self._last[0]():
            return self._last[1]
        if self.c_points_only and len(state) == self.intervals.count + 1:
            return state
        n, c = self.intervals.layers, self.intervals.factor
        self._check(state, n + 1)
        if n % c == 0:
            return state[::c]
        points = vector.empty_like(state, (self.intervals.count + 1, *state.shape[1:]))
        points[:-1], points[-1:] = state[:n:c], state[n:]
        return points

    def restrict(self, residual: State) -> State:
        # After F-relaxation, a residual is zero except at C-points and contains only those.
        if len(residual) == self.intervals.count + 1:
            return residual
        return self.inject(residual)

    def prolong(self, correction: State) -> State:
        self._check(correction, self.intervals.count + 1)
        if self.c_points_only:
            return correction
        fine = vector.zeros_like(correction, self._fine_shape(correction))
        return self._put(correction, fine)

    def interpolate(self, state: State) -> State:
        return state if self.c_points_only else self._remember(self.prolong(state), state)

    def replace(self, state: State, coarse: State) -> State:  # type: ignore[override]
        if self.c_points_only:
            return coarse
        fine = vector.empty_like(state)
        fine[:] = state
        return self._remember(self._put(coarse, fine), coarse)

    def spread(self, coarse: State) -> State:
        """A fine state with the C-points of `coarse`; its F-points are not set."""
        fine = vector.empty_like(coarse, self._fine_shape(coarse))
        return self._remember(self._put(coarse, fine), coarse)

    def _put(self, coarse: State, fine: State) -> State:
        n, c = self.intervals.layers, self.intervals.factor
        fine[:n:c], fine[n:] = coarse[:-1], coarse[-1:]
        return fine

    def _remember(self, fine: State, coarse: State) -> State:
        self._last[:] = weakref.ref(fine), coarse
        return fine

    def forget(self) -> None:
        """Forget the coarse state that `inject` would return."""
        self._last[:] = lambda: None, None

    def _fine_shape(self, coarse: State) -> tuple[int, ...]:
        return (self.intervals.layers + 1, *coarse.shape[1:])

    def _check(self, state: State, length: int) -> None:
        if len(state) != length:
            raise ValueError(
                f"CLayers got a state of {len(state)} points on axis 0; between "
                f"{self.intervals.layers} layers and {self.intervals.count} it must have {length}"
            )

    def __str__(self) -> str:
        return f"CLayers({self.intervals.factor})"
