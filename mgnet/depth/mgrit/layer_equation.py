"""All layers of a network, or all steps of a one-step method, as one equation on every level.

The unknown of a level with n layers is the trajectory u, one array with the points 0..n on axis 0:

    forward   u[0] = f[0],   u[i + 1] - Phi_i(u[i])  = f[i + 1]
    reverse   u[n] = f[n],   u[i] - Phi_i(u[i + 1])  = f[i]

The adjoint is the reverse equation, with `Phi_i(v) = v + s_i (d slope_i / du)^T v`. On the finest
level, `f = None` stands for a right-hand side of the initial value and zeros. Source: Falgout,
Friedhoff, Kolev, MacLachlan, Schroder, "Parallel time integration with multigrid", SIAM J. Sci.
Comput. 36 (2014).
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from mgnet import vector
from mgnet.depth.mgrit.c_layers import BatchedStep, CLayers
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR, Communicator, Gathered
from mgnet.depth.mgrit.lyapunov_exponent import MOST_LAYERS, Lyapunov, exponents_along
from mgnet.depth.mgrit.marching import AtOnce, filled, march_by_advance

__all__ = ["LayerEquation", "Propagator"]

State = Any


class Propagator(Protocol):
    """Computes the states after layers. No other object depends on the kind of layers.

    Layer i of level l represents the layers `i c^l .. (i + 1) c^l - 1` of level 0 by one large
    step.

    If a propagator has a method `march(level, layers, start, rows, reverse)`, it replaces
    `march_by_advance`. It must take the same arguments except for the propagator, and give the same
    counts and results. A propagator derived from `AtOnce` may march over all intervals in one call.

    Examples
    --------
    >>> class Decay:  # u' = -u by the implicit Euler method, 64 layers of step 1/64
    ...     def advance(self, level, which, states):
    ...         return states / (1.0 + 4**level / 64)
    """

    def advance(self, level: int, which: slice, states: State) -> State:
        """Compute one step over the layers `which` of a level, all in one batched call.

        Parameters
        ----------
        level : int
            Number of the level; 0 is the finest.
        which : slice
            Layers in ascending order, with a stride of at least 1. All hierarchies with the same
            numbers of layers share these slice objects.
        states : state
            States at the left ends of the layers (right ends for the reverse equation), on axis 0.

        Returns
        -------
        state
            States at the other ends. Callers do not edit them; the method must not edit `states`.
        """
        ...


class _Results:
    """The latest results of an equation, with the states for which they were computed."""

    __slots__ = ("arrivals", "relaxed", "residual", "solved", "unrelaxed")

    def __init__(self) -> None:
        self.solved: tuple[State, State] = (None, None)  # u, A(u)
        self.unrelaxed: Any = lambda: None  # a reference to the state before relaxation
        self.relaxed: tuple[State, State] = (None, None)  # u, f
        self.arrivals: tuple[Any, State, State] = (self.unrelaxed, None, None)  # for u, f
        self.residual: State | None = None


class LayerEquation:
    """The layer equation of one level; a call with a trajectory u returns A(u).

    Relaxations and residuals are remembered, so neither is evaluated twice in a row for the same
    state object. As everywhere in mgnet, states must therefore not be edited. An equation can be
    posed again with a different propagator and initial value, which clears the stored results.

    Parameters
    ----------
    propagator : Propagator or None
        The steps over layers; None until the equation is posed.
    level : int
        Number of the level; 0 is the finest.
    layers : int
        Number of layers, n.
    initial : state or None
        The value at one point, the left end (for the reverse equation, the right end).
    transfer : CLayers or None
        The transfer to the next coarser level; the relaxation uses its intervals.
    reverse : bool
        Whether the equation runs from right to left.
    communicator : Communicator
        The processes that hold the layers before and after those of this equation.
    gathered : Gathered, optional
        The position of these layers if every process holds all layers of this level and marches
        over them; to the propagator, these gathered layers are the next level.

    Attributes
    ----------
    tally : list of float
        A single entry: the work so far, in evaluations of all n layers. Remembered results are not
        counted, so a `Level` leaves the counting to its equation.
    costs : array of shape (n,) or None
        The cost of each layer if costs differ; the tally then counts fractions of the total cost.

    Examples
    --------
    >>> import numpy as np
    >>> class Halve:
    ...     def advance(self, level, which, states):
    ...         return 0.5 * states
    >>> equation = LayerEquation(Halve(), 0, 3, np.array([8.0]), None)
    >>> u = equation.march(None)
    >>> u.ravel()
    array([8., 4., 2., 1.])
    >>> equation(u).ravel()
    array([8., 0., 0., 0.])
    """

    def __init__(
        self,
        propagator: Propagator | None,
        level: int,
        layers: int,
        initial: State | None,
        transfer: CLayers | None,
        reverse: bool = False,
        communicator: Communicator = SERIAL_COMMUNICATOR,
        gathered: Gathered | None = None,
    ):
        self.communicator = communicator
        self.gathered = gathered
        self.level = level
        self.layers = layers
        self.transfer = transfer
        self.reverse = reverse
        self.tally = [0.0]
        self.costs: Any = None
        self.propagator: Any = propagator
        self.initial: Any = initial
        self._results = _Results()

    def pose(self, propagator: Propagator | None, initial: State | None) -> None:
        """Set the data that change from one solution to the next, and clear the stored results."""
        self.propagator, self.initial = propagator, initial
        self._results = _Results()
        if self.transfer is not None:
            self.transfer.forget()

    def __call__(self, u: State) -> State:
        solved, image = self._results.solved
        if u is solved:
            return image
        self.tally[0] += 1.0
        n = self.layers
        states, points = (u[1:], slice(0, n)) if self.reverse else (u[:n], slice(1, n + 1))
        image = vector.empty_like(u)
        image[:] = u
        image[points] -= self.propagator.advance(self.level, slice(0, n), states)
        return image

    def check_layers(self, u: State) -> None:
        """Check that layers give the same results in one call as in separate calls.

        The states of u are first scaled by different factors, because a propagator that mixes
        layers would not be detected if all states were equal, as in an initial guess.

        Raises
        ------
        ValueError
            If the results differ.
        """
        n, reverse = self.layers, self.reverse
        if len(u) != n + 1:
            return  # only the C-points
        factors = [1.0 + 0.5 * i / n for i in range(n)]
        states = vector.join([c * u[i + reverse : i + reverse + 1] for i, c in enumerate(factors)])
        together = self.propagator.advance(self.level, slice(0, n), states)
        for i in range(0, n, max(1, n // 8)):
            alone = self.propagator.advance(self.level, slice(i, i + 1), states[i : i + 1])
            change, apart = (vector.norm(alone - part[i : i + 1]) for part in (states, together))
            if apart > 0.01 * change + 1e-6 * vector.norm(alone):
                raise ValueError(
                    f"the layer equation of level {self.level} has a propagator whose state for "
                    f"layer {i} differs with and without other layers by {apart:.2g}; it must take "
                    "each layer on its own: give sums, norms and rolls an axis"
                )

    def start_value(self, f: State | None) -> State:
        """The first point of the march, with axis 0: `f[0]` (in reverse, `f[n]`), or `initial`."""
        if f is None:
            return self.initial[None]
        return f[self.layers :] if self.reverse else f[:1]

    def march(self, f: State | None) -> State:
        """The solution of `A(u) = f`, computed layer by layer."""
        place = self.gathered
        u = self._march_in_turn(f) if place is None else self._march_everywhere(place, f)
        self.tally[0] += 1.0
        self._results.solved = u, self._zero_but_start(u) if f is None else f
        return u

    def _march_everywhere(self, place: Gathered, f: State | None) -> State:
        every = None
        if f is not None:
            parts = self.communicator.allgather(f)
            own = [part[:-1] if self.reverse else part[1:] for part in parts]
            start = parts[-1][-1:] if self.reverse else parts[0][:1]
            every = vector.join([*own, start] if self.reverse else [start, *own])
        if not self.layers:
            return self.start_value(f)
        whole = LayerEquation(
            self.propagator, self.level + 1, place.layers, self.initial, None, self.reverse
        )
        return whole.march(every)[place.first : place.first + self.layers + 1]

    def _march_in_turn(self, f: State | None) -> State:
        value, rows = self.communicator.receive(self.start_value(f), self.reverse), None
        u, own = None, self.propagator
        if isinstance(own, AtOnce):
            u = own.trajectory(self.level, self.layers, value, f)
        if u is not None:
            self.communicator.send(u[:1] if self.reverse else u[-1:], self.reverse)
            return u
        if f is not None:
            rows = list(f)[-2::-1] if self.reverse else list(f)[1:]
        given = self.level, self.layers, value, rows, self.reverse
        march = getattr(self.propagator, "march", None)
        points = march(*given) if march else march_by_advance(self.propagator, *given)
        self.communicator.send(points[-1], self.reverse)
        return vector.join(points[::-1] if self.reverse else points)

    def _zero_but_start(self, u: State) -> State:
        f = vector.zeros_like(u)
        start = self.layers if self.reverse else 0
        f[start] = u[start]
        return f

    def trajectory(self, u: State, f: State | None = None) -> State:
        """F-relaxation: march from every C-point to the next one, for all intervals at once."""
        transfer, advance, level = self._coarsened(), self.propagator.advance, self.level
        new = transfer.spread(transfer.inject(u))
        found = self._at_once(transfer.inject(u), f, inner=True)
        if found is not None:
            self._count(transfer.intervals.f_steps)
            return filled(new, found, transfer.intervals)
        value: State = None
        for which, read, write, _ in transfer.intervals.f_steps:
            value = advance(level, which, value if read is None else new[read])
            if f is not None:
                value = value + f[write]
            new[write] = value
        self._count(transfer.intervals.f_steps)
        return new

    def relax(self, u: State, f: State | None) -> State:
        """Compute `trajectory` once per state; return u itself if only C-points are stored."""
        if self._coarsened().c_points_only:
            return u
        results = self._results
        relaxed, rhs = results.relaxed
        if f is rhs and relaxed is not None and (u is relaxed or u is results.unrelaxed()):
            return relaxed
        new = self.trajectory(u, f)
        results.relaxed, results.unrelaxed = (new, f), weakref.ref(u)
        return new

    def arrivals(self, u: State, f: State | None) -> State:
        """The values at the C-points after F-relaxation of u, the first of which is given."""
        transfer, u = self._coarsened(), self.relax(u, f)
        of, rhs, ends = self._results.arrivals
        if of() is u and rhs is f:
            return ends
        start, found, own = self._first(u, f), None, transfer.intervals
        if transfer.c_points_only:
            found = self._at_once(transfer.inject(u), None, inner=False) if f is None else None
            parts = self._march_all(transfer.inject(u), f) if found is None else [found]
        else:
            parts = [u[call.read] for call in own.c_steps]
        if found is None:
            calls = zip(own.c_steps, parts, strict=True)
            parts = [self.propagator.advance(self.level, call.which, part) for call, part in calls]
        else:
            self._count(own.f_steps)
        ends = vector.join([*parts, start] if self.reverse else [start, *parts])
        if f is not None:
            inner = slice(0, -1) if self.reverse else slice(1, None)
            ends[inner] += transfer.inject(f)[inner]
        self._count(own.c_steps)
        self._results.arrivals = weakref.ref(u), f, ends
        return ends

    def _at_once(self, points: State, f: State | None, inner: bool) -> State | None:
        """The result of the propagator's `relax` if it has one that supports this level."""
        if not isinstance(self.propagator, AtOnce):
            return None
        left = points[1:] if self.reverse else points[:-1]
        return self.propagator.relax(self.level, self._coarsened().intervals, left, f, inner)

    def share(self, *calls: slice) -> float:
        """The cost of calls of some layers, relative to all n layers."""
        if self.costs is None:
            return sum(len(range(self.layers)[which]) for which in calls) / max(self.layers, 1)
        return sum(self.costs[which].sum() for which in calls) / (self.costs.sum() or 1.0)

    def _count(self, calls: Sequence[BatchedStep]) -> None:
        self.tally[0] += self.share(*[call.which for call in calls])

    def _first(self, u: State, f: State | None) -> State:
        """The first point of a computed trajectory: the given value, or u's copy from upstream."""
        if self.communicator.is_first(self.reverse):
            return self.start_value(f)
        return u[-1:] if self.reverse else u[:1]

    def _march_all(self, points: State, f: State | None) -> list[State]:
        """The states before the last layer of every interval; earlier states are not stored."""
        advance, level, own = self.propagator.advance, self.level, self._coarsened().intervals
        if not self.layers:  # other processes hold all layers
            return []
        beside: State = None  # of the last interval: a short one has fewer layers
        value = points[1:] if self.reverse else points[:-1]
        for which, _, write, count in own.f_steps:
            if count < value.shape[0]:
                value, beside = value[:count], value[count:]
            elif count > value.shape[0]:
                value = vector.join([value, points[-1:]])
            value = advance(level, which, value)
            if f is not None:
                value = value + f[write]
        self._count(own.f_steps)
        if self.reverse:
            return [value if len(value) == own.count else vector.join([value, points[-1:]])]
        return [value] if beside is None else [value, beside]

    def residual(self, u: State, f: State | None) -> State:
        """`f - A(u)` after F-relaxation of u, at the C-points, because it vanishes elsewhere.

        The coarsest level has no C-points, so there the residual is computed at all points.
        """
        if self.transfer is None:
            start = vector.zeros_like(u)
            start[self.layers * self.reverse] = self.start_value(f)[0]
            return (start if f is None else f) - self(u)
        found = self.arrivals(u, f) - self._coarsened().inject(self.relax(u, f))
        self._results.residual = found
        return found

    def begun(self, u: State, f: State | None) -> State:
        """The C-points of u (on the coarsest level, all points) with the given first point."""
        points = u if self.transfer is None else self.transfer.inject(u)
        if not self.communicator.is_first(self.reverse):
            return points
        start = self.start_value(f)
        return vector.join([points[:-1], start] if self.reverse else [start, points[1:]])

    def keep_residual(self, found: State) -> None:
        """Store a residual that a smoother has computed, for `last_residual`."""
        self._results.residual = found

    @property
    def last_residual(self) -> State | None:
        """The latest residual; None if none has been computed since the equation was posed."""
        return self._results.residual

    def relax_c(self, u: State, f: State | None, weight: float) -> State:
        """C-relaxation after F-relaxation of u, with the given weight of the new value."""
        transfer, new = self._coarsened(), self.arrivals(u, f)
        if weight != 1.0:
            old = transfer.inject(self.relax(u, f))
            new = old + weight * (new - old)
        return transfer.interpolate(self.communicator.shift(new, self.reverse))

    def advise(self) -> list[str]:
        """After a failed solve, describe how errors grow, which a march over the layers shows."""
        if self.reverse or self.communicator is not SERIAL_COMMUNICATOR:
            return []
        count = min(self.layers, MOST_LAYERS)
        start = self.start_value(None)
        points = march_by_advance(self.propagator, self.level, count, start, None, False)
        found = exponents_along(self.propagator, vector.join(points), samples=False)
        return [Lyapunov(tuple(found), count).verdict]

    def _coarsened(self) -> CLayers:
        if self.transfer is None:
            raise ValueError(
                f"the layer equation of level {self.level} is the coarsest and has no C-layers; "
                "solve it by SerialSweep"
            )
        return self.transfer
