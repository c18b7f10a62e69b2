"""The state and the adjoint of a network for one input, solved by multigrid over its layers.

`Propagation` and `Adjoint` are of one call of a `LayerParallel` module: they hold the tapes of the
closing sweep, and the states at which the coarse layers are recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mgnet.depth.batched.tape import Tape
from mgnet.depth.mgrit.c_layers import Intervals, intervals
from mgnet.depth.parallel.coarse_layers import sums
from mgnet.depth.parallel.control import CycleLimit, PassReport
from mgnet.depth.parallel.fused_layers import FusedTape
from mgnet.depth.parallel.history import History
from mgnet.depth.parallel.layer_jacobians import backward_jacobians, work_of
from mgnet.depth.parallel.propagation_setup import PropagationSetup
from mgnet.depth.parallel.turns import in_turn, summed
from mgnet.interpreter import run

__all__ = ["Adjoint", "Propagation"]


class Propagation:
    """One forward pass and its adjoint.

    Parameters
    ----------
    setup : PropagationSetup
        Where other processes hold other layers, all numbers and states here, but u_N and the
        gradient with respect to u_0, are those of the own layers.
    every : bool
        Whether the states after all layers are wanted, which the closing sweep makes.
    """

    def __init__(self, setup: PropagationSetup, every: bool = False):
        self.setup = setup
        self.every = every
        self.states: Tensor | None = None  # after each own layer
        self.communicator = setup.communicator
        self.intervals = intervals(setup.count, setup.method.factors[0])
        self.tapes: list[Tape] = []
        self.sources: Tensor | None = None  # gradients by the states before the own layers
        self.points: Tensor | None = None  # the recorded states, at the C-points

    def forward(
        self, start: Tensor, limit: CycleLimit, guess: Tensor | None, record: bool
    ) -> tuple[Tensor, PassReport]:
        """Solve for the states from u_0.

        Parameters
        ----------
        start : Tensor of shape (batch, ...)
        limit : CycleLimit
        guess : Tensor of shape (m + 1, batch, ...), optional
            States of the C-points, in place of the opening.
        record : bool
            Close with a sweep whose tapes the adjoint needs.

        Returns
        -------
        (Tensor, PassReport)
            The states at the m + 1 C-points.
        """
        points, history = self._iterate(self.setup, start, guess, limit)
        if record:
            history.add_residual(self.record(points) - points)
        elif self.every:
            self._sweep(points)
        return points, self._told(history, False)

    def points_of(self, level: int) -> Tensor:
        """The recorded states where the own layers of a coarser level begin."""
        method = self.setup.method
        return self.points[:: method.strides[level] // method.factors[0]]  # type: ignore[index]

    def record(self, points: Tensor) -> Tensor:
        """Sweep over all layers from the C-points, and keep the tapes; what arrives there."""
        setup, now, ended = self.setup, points[:-1], []
        self.points, self.states = now, self._room(points)
        for which, count in offsets(self.intervals):
            if count < len(now):  # the short last interval ends
                now, ended = now[:count], [now[count:]]
            tape = setup.kernel.record(setup.fine[which], now)
            self.tapes.append(tape)
            now = torch.addcmul(now, setup.scale(0, which, now), tape.value)
            if self.states is not None:
                self.states[which] = now
        return torch.cat([points[:1], now, *ended])

    def _room(self, points: Tensor) -> Tensor | None:
        """For the states after all own layers, if they are wanted."""
        size = self.setup.count, *points.shape[1:]
        return points.new_empty(size) if self.every else None

    def _sweep(self, points: Tensor) -> None:
        """The states after all own layers, from those at the C-points."""
        now, self.states = points[:-1], self._room(points)
        for which, count in offsets(self.intervals):
            now = self.setup.advance(0, which, now[:count])
            self.states[which] = now  # type: ignore[index]

    def update_buffers(self) -> None:
        """Give the network's own buffers the values that the recorded sweep left."""
        own = self.setup.kernel.own_buffers
        for which, tape in self.recorded():
            self.setup.fine[which].update(tape.new_buffers[:own])

    def recorded(self) -> list[tuple[slice, Tape]]:
        """The tapes of the recorded sweep, and the layers that they are of."""
        pairs = zip(offsets(self.intervals), self.tapes, strict=True)
        return [(which, tape) for (which, _), tape in pairs]

    def backward(
        self, end: Tensor, limit: CycleLimit, guess: Tensor | None
    ) -> tuple[Tensor, PassReport]:
        """Solve for the adjoint at the C-points from lam_N = `end`; as `forward`.

        With `every`, `end` has the gradients by the states after each of all layers.
        """
        self.sources = None
        if self.every:
            end, self.sources = end[-1], self._sources(end)
        adjoint = Adjoint.of(self)
        if self.setup.method.uses_coarse(True, limit.cycles, guess is None):
            adjoint.record_coarse()
        points, history = self._iterate(adjoint, end, guess, limit)
        return points, self._told(history, True)

    def _sources(self, gradient: Tensor) -> Tensor:
        """What each own layer adds to the adjoint at its left end: the gradient by that state."""
        left = torch.cat([torch.zeros_like(gradient[:1]), gradient[:-1]])
        return self.communicator.scatter_layers(left)

    def _told(self, history: History, reverse: bool) -> PassReport:
        """The report; all processes raise together where Newton's states are good for nothing."""
        made, norms = history.summarize(), history.norms
        if self.setup.method.sweep(reverse) and norms and not math.isfinite(norms[-1]):
            raise FloatingPointError(
                f"the residual is not finite after {made.cycles} Newton sweeps"
            )
        return made

    def _iterate(
        self,
        propagator: PropagationSetup | Adjoint,
        given: Tensor,
        guess: Tensor | None,
        limit: CycleLimit,
    ) -> tuple[Tensor, History]:
        """Opening and cycles: the states, and what the cycles did."""
        method, reverse = self.setup.method, propagator.reverse
        opening, cycle = method.backward if reverse else method.forward
        history, memory = History(self.communicator, reverse, given.dtype), None
        with self.setup.hierarchy(propagator, given) as hierarchy:
            points = self._guess(given, guess, reverse)
            if guess is None and opening is not None:
                points, _ = run(opening, hierarchy, points, None)
            for _ in range(limit.cycles):
                before = points
                points, memory = run(cycle, hierarchy, points, None, memory)
                history.add_residual(hierarchy[0].operator.last_residual)
                history.add_change(before, points)
                if limit.stop and history.summarize().estimate <= limit.stop:
                    break
            if reverse and limit.cycles and method.sweep(reverse):
                # One sweep may be all: only the residual after it tells that it was enough.
                history.add_residual(hierarchy[0].operator.residual(points, None))
        return points, history

    def _guess(self, given: Tensor, guess: Tensor | None, reverse: bool) -> Tensor:
        """The states at the C-points with which the cycles begin."""
        if guess is None:
            return given.expand(self.intervals.count + 1, *given.shape)
        points = guess.clone()
        if self.communicator.is_first(reverse):
            points[-1 if reverse else 0] = given
        return points

    def gradients(
        self, adjoint: Tensor, with_steps: bool
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """Close the adjoint, given at the C-points, with a sweep that also meets the parameters.

        Returns
        -------
        (Tensor, tuple of Tensor, Tensor or None)
            The gradients with respect to u_0, to the stacked parameters (N, ...), and, if asked
            for, to the step sizes (N,).
        """
        setup, parts = self.setup, self.intervals
        fine = setup.fine
        of_parameters = tuple(torch.empty_like(p) for p in fine.parameters)
        of_steps = torch.empty_like(fine.steps) if with_steps else None
        now = adjoint[1:-1] if parts.layers % parts.factor else adjoint[1:]
        for which, count in reversed(offsets(parts)):
            if count > len(now):  # the short last interval begins
                now = torch.cat([now, adjoint[-1:]])
            tape = self.tapes[which.start]
            d_state, d_parameters, d_steps = tape.vjp_all(setup.scale(0, which, now) * now)
            for gradient, part in zip(of_parameters, d_parameters, strict=True):
                gradient[which] = part
            if of_steps is not None:
                direct = (now * tape.value).flatten(1).sum(1)
                of_steps[which] = direct if d_steps is None else direct + d_steps
            now = now + d_state
            if self.sources is not None:
                now = now + self.sources[which]
        first = now[0] if len(now) else adjoint[0]  # other processes hold all layers
        return self.communicator.broadcast_from_last(first, True), of_parameters, of_steps


class Adjoint:
    """Steps of the adjoint, from right to left, by the tapes of the closing sweep.

    The coarse layers are recorded at the states of their C-points, once for each level. It is the
    reverse `Propagator`.

    Parameters
    ----------
    forward : Propagation
        With a recorded sweep.
    gathered : Tensor or None
        The states at which the layers of the gathered level begin, of all processes.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.parallel.method import MGRITMethod
    >>> from mgnet.depth.parallel.propagation_setup import detached
    >>> net = ODENet(torch.nn.Linear(2, 2), 8)
    >>> method = MGRITMethod.from_texts((4,), "V", "V", ("F",))
    >>> forward = Propagation(PropagationSetup.of(net.kernel, detached(net.layers()), method))
    >>> _ = forward.forward(torch.ones(1, 2), CycleLimit(1), None, record=True)
    >>> Adjoint.of(forward).advance(0, slice(0, 8, 4), torch.ones(2, 1, 2)).shape
    torch.Size([2, 1, 2])
    """

    reverse = True

    def __init__(self, forward: Propagation, gathered: Tensor | None):
        self.forward = forward
        self.gathered = gathered
        self._sources: dict[int, Tensor] = {}  # of every level, what its layers add
        self._whole: dict[int, Tape | FusedTape] = {}  # of the coarser levels
        self._parts: dict[tuple[int, ...], tuple[Tape | FusedTape, Tensor]] = {}
        self._same = forward.setup.method.coarse == "identity"

    @classmethod
    def of(cls, forward: Propagation) -> Adjoint:
        """Gather the states of the gathered level, where there is one; all processes call it."""
        setup, gathered = forward.setup, None
        if setup.gathered and setup.method.coarse != "identity":  # all processes are here
            points = forward.points_of(len(setup.method.factors))
            gathered = torch.cat(setup.communicator.allgather(points))
        adjoint = cls(forward, gathered)
        if setup.gathered and forward.sources is not None:
            coarsest = len(setup.method.factors)
            own = adjoint._of_states(coarsest)
            adjoint._sources[coarsest + 1] = torch.cat(setup.communicator.allgather(own))
        return adjoint

    def record_coarse(self) -> None:
        """Record the own coarse layers before the march, in which each process waits its turn."""
        setup = self.forward.setup
        if setup.count and not setup.gathered and not self._same:
            for level in range(1, len(setup.method.factors) + 1):
                self._of_level(level)

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Backward steps of some layers of a level, all at once (`Propagator`)."""
        if not states.shape[0]:  # no layers here
            return states
        sources = self._of_states(level)
        if level and self._same:
            return states if sources is None else states + sources[which]
        key = level, which.start, which.stop, which.step
        step = self._parts.get(key)
        if step is None:
            scale = self.forward.setup.scale(level, which, states)
            step = self._parts[key] = self._tape(level, which), scale
        tape, scale = step
        new = torch.addcmul(states, scale, tape.vjp(states))
        return new if sources is None else new.add_(sources[which])

    def linearize(
        self, level: int, which: slice, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """Backward steps with their matrices, for each sample; see `NewtonSweep`."""
        setup = self.forward.setup
        scale, tape = setup.scale(level, which, states), None
        if len(states):  # else other processes hold all layers
            tape = self._tape(level, which)
        found = backward_jacobians(setup.kernel, tape, scale, states, structure)
        return self.advance(level, which, states), found

    def linearization_work(self, structure: str, states: Tensor) -> float:
        """Of `linearize`, in vector-Jacobian products of all layers."""
        return work_of(self.forward.setup.kernel, structure, states)

    def march(
        self, level: int, layers: int, start: Tensor, rows: Sequence[Tensor] | None, reverse: bool
    ) -> list[Tensor]:
        """Backward steps of the layers of a coarse level, one by one: see `march_by_advance`."""
        if not layers:  # other processes hold them all
            return [start]
        order = slice(None, None, -1 if reverse else 1)
        sources = self._of_states(level)
        if sources is not None:
            added = [row[0] for row in sources.split(1)][order]
            given = [0.0] * layers if rows is None else rows
            rows = [row + more for row, more in zip(added, given, strict=True)]
        if level and self._same:
            return summed(layers, start, rows)
        scales = self.forward.setup.scales(level, start)
        vjps = self._of_level(level).vjp_each(start)
        return in_turn(vjps[order], scales[order], start, rows)

    def _of_states(self, level: int) -> Tensor | None:
        """What the layers of a level add to the adjoint: a coarse one, all that its layers do."""
        if self.forward.sources is None:
            return None
        if level not in self._sources:
            stride = self.forward.setup.method.strides[level]
            self._sources[level] = sums(self.forward.sources, stride)
        return self._sources[level]

    def _tape(self, level: int, which: slice) -> Tape | FusedTape:
        if level:
            return self._of_level(level)[which]
        first, offset = divmod(which.start, self.forward.intervals.factor)
        tape = self.forward.tapes[offset]
        count = len(range(*which.indices(self.forward.setup.count)))
        return tape if count == len(tape.value) else tape[first : first + count]

    def _of_level(self, level: int) -> Tape | FusedTape:
        if level not in self._whole:
            setup, coarsest = self.forward.setup, len(self.forward.setup.method.factors)
            if setup.gathered and level == coarsest:  # the own part of what is gathered
                first = setup.gathered.first
                tape = self._of_level(coarsest + 1)[first : first + len(setup.levels[coarsest])]
            else:
                points = self.gathered if level > coarsest else self.forward.points_of(level)
                tape = setup.record(level, points)  # type: ignore[arg-type]
            self._whole[level] = tape
        return self._whole[level]


def offsets(parts: Intervals) -> list[tuple[slice, int]]:
    """The layers at offset 0, 1, ... of every interval, and their number."""
    n, c = parts.layers, parts.factor
    return [(slice(j, n, c), len(range(j, n, c))) for j in range(min(c, n))]
