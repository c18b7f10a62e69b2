"""All layers of a network, or all steps of a one-step method, as one equation on every level.

The unknown of a level with n layers is the trajectory u, one array with the points 0..n on axis 0:

    forward   u[0] = f[0],   u[i + 1] - Phi_i(u[i])  = f[i + 1]
    reverse   u[n] = f[n],   u[i] - Phi_i(u[i + 1])  = f[i]

The adjoint is the reverse equation, with `Phi_i(v) = v + s_i (d slope_i / du)^T v`. `f = None` on
the finest level stands for the initial value and zeros. Source: Falgout, Friedhoff, Kolev,
MacLachlan, Schroder, "Parallel time integration with multigrid", SIAM J. Sci. Comput. 36 (2014).
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
    """What carries states through layers: the only part that knows what a layer is.

    Layer i of the level l stands for the layers `i c^l .. (i + 1) c^l - 1` of level 0, of which it
    is one large step.

    A propagator with a method `march(level, layers, start, rows, reverse)` replaces
    `march_by_advance`, with the same arguments after the propagator, the same counts and results.
    One that is derived from `AtOnce` may march over all intervals in one call.

    Examples
    --------
    >>> class Decay:  # u' = -u by the implicit Euler method, 64 layers of step 1/64
    ...     def advance(self, level, which, states):
    ...         return states / (1.0 + 4**level / 64)
    """

    def advance(self, level: int, which: slice, states: State) -> State:
        """One step over the layers `which` of a level, all in one batched call.

        Parameters
        ----------
        level : int
            0 is the finest.
        which : slice
            Layers in ascending order, stride at least 1. All hierarchies of one depth share these
            objects.
        states : state
            At the left of the layers (at the right, for the reverse equation), on axis 0.

        Returns
        -------
        state
            At the other side; it is not edited, and `states` must not be.
        """
        ...


class _Results:
    """The last results of an equation, and for which states they are."""

    __slots__ = ("arrivals", "relaxed", "residual", "solved", "unrelaxed")

    def __init__(self) -> None:
        self.solved: tuple[State, State] = (None, None)  # u, A(u)
        self.unrelaxed: Any = lambda: None  # a reference to what became the next one
        self.relaxed: tuple[State, State] = (None, None)  # u, f
        self.arrivals: tuple[Any, State, State] = (self.unrelaxed, None, None)  # of u, f
        self.residual: State | None = None


class LayerEquation:
    """The layer equation of one level; called with a trajectory u, it gives A(u).

    Relaxations and residuals remember their last result, so that none is evaluated twice for the
    same state object. States must therefore not be edited, as everywhere in mgnet. An equation may
    be posed anew, with another propagator and another initial value, and then remembers nothing.

    Parameters
    ----------
    propagator : Propagator or None
        None until the equation is posed.
    level : int
    layers : int
        n.
    initial : state or None
        One point: the value at the left end (at the right end, for the reverse equation).
    transfer : CLayers or None
        To the next coarser level; its intervals are those of the relaxation.
    reverse : bool
    communicator : Communicator
        The processes that hold the layers before and after these n.
    gathered : Gathered, optional
        The place of these n where all processes hold all layers of this level, and each marches
        over them; for the propagator they are the next level.

    Attributes
    ----------
    tally : list of float
        Evaluations of all n layers so far, in one entry. What is remembered is not counted, which
        is why a `Level` leaves the counting to its equation.
    costs : array of shape (n,) or None
        What each layer costs, where they differ: the tally then counts shares of the whole cost.

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
        """Change what may differ from one solution to the next, and forget the last results."""
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
        """Raise unless layers that are taken together give what each gives alone.

        Their states are those of u, each scaled by another factor: where they are alike, as those
        of a first guess, a propagator that mixes them would go unseen.
        """
        n, reverse = self.layers, self.reverse
        if len(u) != n + 1:
            return  # the C-points alone
        factors = [1.0 + 0.5 * i / n for i in range(n)]
        states = vector.join([c * u[i + reverse : i + reverse + 1] for i, c in enumerate(factors)])
        together = self.propagator.advance(self.level, slice(0, n), states)
        for i in range(0, n, max(1, n // 8)):
            alone = self.propagator.advance(self.level, slice(i, i + 1), states[i : i + 1])
            change, apart = (vector.norm(alone - part[i : i + 1]) for part in (states, together))
            if apart > 0.01 * change + 1e-6 * vector.norm(alone):
                raise ValueError(
                    f"the layer equation of level {self.level} has a propagator that gives layer "
                    f"{i} another state beside others than alone, {apart:.2g} apart; it must take "
                    "each layer on its own: give sums, norms and rolls an axis"
                )

    def start_value(self, f: State | None) -> State:
        """The first point of the march, with axis 0: `f[0]` (`f[n]` in reverse), or `initial`."""
        if f is None:
            return self.initial[None]
        return f[self.layers :] if self.reverse else f[:1]

    def march(self, f: State | None) -> State:
        """The solution of `A(u) = f`, layer by layer."""
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
        """F-relaxation: march from every C-point to the next one, all intervals at once."""
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
        """`trajectory`, once for every state; put off where only C-points are stored."""
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
        """What arrives at the C-points after F-relaxation of u; at the first one, its value."""
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
        """What `relax` of the propagator gives, if it has one that knows this level."""
        if not isinstance(self.propagator, AtOnce):
            return None
        left = points[1:] if self.reverse else points[:-1]
        return self.propagator.relax(self.level, self._coarsened().intervals, left, f, inner)

    def share(self, *calls: slice) -> float:
        """What calls of some layers cost, relative to all n layers."""
        if self.costs is None:
            return sum(len(range(self.layers)[which]) for which in calls) / max(self.layers, 1)
        return sum(self.costs[which].sum() for which in calls) / (self.costs.sum() or 1.0)

    def _count(self, calls: Sequence[BatchedStep]) -> None:
        self.tally[0] += self.share(*[call.which for call in calls])

    def _first(self, u: State, f: State | None) -> State:
        """The first point of a trajectory that arrived; upstream gives it, if it is there."""
        if self.communicator.is_first(self.reverse):
            return self.start_value(f)
        return u[-1:] if self.reverse else u[:1]

    def _march_all(self, points: State, f: State | None) -> list[State]:
        """The states before the last layer of all intervals, from their C-points; not stored."""
        advance, level, own = self.propagator.advance, self.level, self._coarsened().intervals
        if not self.layers:  # other processes hold them all
            return []
        beside: State = None  # of the last interval: a short one takes part in some calls only
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
        """`f - A(u)` after F-relaxation of u: on the C-points, for it vanishes elsewhere.

        On the coarsest level, which has none, at all points.
        """
        if self.transfer is None:
            start = vector.zeros_like(u)
            start[self.layers * self.reverse] = self.start_value(f)[0]
            return (start if f is None else f) - self(u)
        found = self.arrivals(u, f) - self._coarsened().inject(self.relax(u, f))
        self._results.residual = found
        return found

    def begun(self, u: State, f: State | None) -> State:
        """The C-points of u, or all its points where there are none, with the first one given."""
        points = u if self.transfer is None else self.transfer.inject(u)
        if not self.communicator.is_first(self.reverse):
            return points
        start = self.start_value(f)
        return vector.join([points[:-1], start] if self.reverse else [start, points[1:]])

    def keep_residual(self, found: State) -> None:
        """Let `last_residual` be this one, of a smoother that computes its own."""
        self._results.residual = found

    @property
    def last_residual(self) -> State | None:
        """What `residual` gave last; None since the equation was posed."""
        return self._results.residual

    def relax_c(self, u: State, f: State | None, weight: float) -> State:
        """C-relaxation after F-relaxation of u; `weight` is that of the new value."""
        transfer, new = self._coarsened(), self.arrivals(u, f)
        if weight != 1.0:
            old = transfer.inject(self.relax(u, f))
            new = old + weight * (new - old)
        return transfer.interpolate(self.communicator.shift(new, self.reverse))

    def advise(self) -> list[str]:
        """How errors grow, for a solve that has not converged; marches over the layers anew."""
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
