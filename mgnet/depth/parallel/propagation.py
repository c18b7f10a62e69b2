"""The state and the adjoint of a network for one input, solved by multigrid over its layers.

`Propagation` and `Adjoint` belong to one call of a `LayerParallel` module. These objects hold the
tapes of the closing sweep, or the data that the compiled loops stored, and the states at which the
coarse layers are recorded.
"""

from __future__ import annotations

import math
from threading import RLock

import torch
from torch import Tensor

from mgnet.depth.batched import devices
from mgnet.depth.batched.tape import Tape
from mgnet.depth.compiled.runs import LayerRuns
from mgnet.depth.mgrit.c_layers import Intervals, intervals
from mgnet.depth.parallel.adjoint import Adjoint
from mgnet.depth.parallel.compiled_cycles import (
    CompiledAdjoint,
    CompiledForward,
    compiled_cycles,
)
from mgnet.depth.parallel.control import CycleLimit, PassReport
from mgnet.depth.parallel.history import History
from mgnet.depth.parallel.propagation_setup import PropagationSetup
from mgnet.interpreter import perform

__all__ = ["Propagation"]


class Propagation:
    """A forward pass and its adjoint.

    Parameters
    ----------
    setup : PropagationSetup
        The layers of every level. If other processes hold some of the layers, all numbers and
        states here are those of this process's layers, except u_N and the gradient with respect to
        u_0.
    every : bool
        Whether the states after all layers are needed; the closing sweep computes them.
    """

    def __init__(self, setup: PropagationSetup, every: bool = False):
        self.setup = setup
        self.every = every
        self.states: Tensor | None = None  # after each layer of this process
        self.communicator = setup.communicator
        self.intervals = intervals(setup.count, setup.method.factors[0])
        self.tapes: list[Tape] = []
        self.sources: Tensor | None = None  # gradients with respect to the states before layers
        self.points: Tensor | None = None  # the recorded states at the C-points
        self.loops: CompiledForward | None = None
        self.swept: LayerRuns | None = None  # the recorded sweep of the compiled loops
        self.adjoints = RLock()  # adjoints use its memory one after another
        self.captured = False  # whether a CUDA graph records this pass, so nothing can be read

    def forward(
        self,
        start: Tensor,
        limit: CycleLimit,
        guess: Tensor | None,
        record: bool,
        with_steps: bool = True,
    ) -> tuple[Tensor, PassReport | History]:
        """Solve for the states, starting from u_0.

        Parameters
        ----------
        start : Tensor of shape (batch, ...)
            The state u_0 before the first layer.
        limit : CycleLimit
            The number of cycles, and the error estimate at which to stop.
        guess : Tensor of shape (m + 1, batch, ...), optional
            States at the C-points that replace the opening.
        record : bool
            Whether to close with a sweep that records the tapes for the adjoint.
        with_steps : bool
            Whether gradients with respect to the steps are needed.

        Returns
        -------
        (Tensor, PassReport)
            The states at the m + 1 C-points, and the report; while a CUDA graph is captured, the
            `History` from which the report can be read.
        """
        self.captured = devices.captured(start)
        compiled = compiled_cycles(self.setup, start)
        if not isinstance(compiled, str):
            self.loops = CompiledForward(self.setup, compiled, with_steps, self.every)
        points, history = self._iterate(self.loops or self.setup, start, guess, limit)
        if record:
            history.add_residual(self.record(points) - points)
        elif self.every:
            self._sweep(points)
        return self._told(points, history, False)

    def points_of(self, level: int) -> Tensor:
        """The recorded states at the left ends of this process's layers on a coarser level."""
        method = self.setup.method
        return self.points[:: method.strides[level] // method.factors[0]]  # type: ignore[index]

    def record(self, points: Tensor) -> Tensor:
        """Sweep over all layers from the C-points and store the tapes; return the end states."""
        setup, now, ended = self.setup, points[:-1], []
        self.points = now
        if self.loops is not None:
            self.swept, ends = self.loops.record(0, now)
            self.states = self.swept.states() if self.every else None
            return torch.cat([points[:1], ends])
        self.states = self._room(points)
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
        """Storage for the states after all layers of this process, if they are needed."""
        size = self.setup.count, *points.shape[1:]
        return points.new_empty(size) if self.every else None

    def _sweep(self, points: Tensor) -> None:
        """Compute the states after all layers of this process from the states at the C-points."""
        if self.loops is not None:
            self.states = self.loops.record(0, points[:-1])[0].states()
            return
        now, self.states = points[:-1], self._room(points)
        for which, count in offsets(self.intervals):
            now = self.setup.advance(0, which, now[:count])
            self.states[which] = now  # type: ignore[index]

    def update_buffers(self) -> None:
        """Copy the buffers after the recorded sweep into the network's own buffers."""
        own = self.setup.kernel.own_buffers
        for which, tape in self.recorded():
            self.setup.fine[which].update(tape.new_buffers[:own])

    def recorded(self) -> list[tuple[slice, Tape]]:
        """The tapes of the recorded sweep, and the layers to which they belong."""
        pairs = zip(offsets(self.intervals), self.tapes, strict=True)
        return [(which, tape) for (which, _), tape in pairs]

    def backward(
        self, end: Tensor, limit: CycleLimit, guess: Tensor | None
    ) -> tuple[Tensor, PassReport | History]:
        """Solve for the adjoint at the C-points from lam_N = `end`, like `forward`.

        With `every`, `end` contains the gradients with respect to the states after each layer.
        """
        self.sources = None
        if self.every:
            end, self.sources = end[-1], self._sources(end)
        adjoint = (Adjoint if self.swept is None else CompiledAdjoint).of(self)
        if self.setup.method.uses_coarse(True, limit.cycles, guess is None):
            adjoint.record_coarse()
        points, history = self._iterate(adjoint, end, guess, limit)
        return self._told(points, history, True)

    def _sources(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to the state before each of this process's layers."""
        left = torch.cat([torch.zeros_like(gradient[:1]), gradient[:-1]])
        return self.communicator.scatter_layers(left)

    def _told(
        self, points: Tensor, history: History, reverse: bool
    ) -> tuple[Tensor, PassReport | History]:
        """The states and the report; all processes raise an error if a state is not finite.

        If the states are on a device, the host waits here, once. While a CUDA graph is captured,
        nothing can be read: its replays give NaN instead of an error, and the report is read on
        request.
        """
        if self.captured:
            return history.spoiled(points), history
        made, norms = history.summarize(), history.norms
        self.setup.kernel.fixed.settle()
        if self.setup.method.sweep(reverse) and norms and not math.isfinite(norms[-1]):
            raise FloatingPointError(
                f"the residual is not finite after {made.cycles} Newton sweeps"
            )
        return points, made

    def _iterate(
        self,
        propagator: PropagationSetup | CompiledForward | Adjoint,
        given: Tensor,
        guess: Tensor | None,
        limit: CycleLimit,
    ) -> tuple[Tensor, History]:
        """Run the opening and the cycles; return the states and the history."""
        method, reverse = self.setup.method, propagator.reverse
        opening, cycle = method.backward if reverse else method.forward
        history, memory = History(self.communicator, reverse, given.dtype), None
        late = devices.waits(given)  # no cycle waits for the device: `_told` looks
        with self.setup.hierarchy(propagator, given) as hierarchy:
            points = self._guess(given, guess, reverse)
            if guess is None and opening is not None:
                points = perform(opening, hierarchy, points, None, look=not late).state
                if late:
                    history.look(points)
            for _ in range(limit.cycles):
                before = points
                points, memory, _ = perform(cycle, hierarchy, points, None, memory, look=not late)
                if late:
                    history.look(points)
                history.add_residual(hierarchy[0].operator.last_residual)
                history.add_change(before, points)
                if limit.stop and history.summarize().estimate <= limit.stop:
                    break
            if reverse and limit.cycles and method.sweep(reverse):
                # A single sweep may suffice, which only the residual after it shows.
                history.add_residual(hierarchy[0].operator.residual(points, None))
        return points, history

    def _guess(self, given: Tensor, guess: Tensor | None, reverse: bool) -> Tensor:
        """The states at the C-points at the start of the cycles."""
        if guess is None:
            return given.expand(self.intervals.count + 1, *given.shape)
        points = guess.clone()
        if self.communicator.is_first(reverse):
            points[-1 if reverse else 0] = given
        return points

    def gradients(
        self, adjoint: Tensor, with_steps: bool
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """Complete the adjoint, given at the C-points, by a sweep that yields parameter gradients.

        Returns
        -------
        (Tensor, tuple of Tensor, Tensor or None)
            The gradients with respect to u_0, to the stacked parameters (N, ...), and, if
            requested, to the step sizes (N,).
        """
        setup, parts = self.setup, self.intervals
        fine = setup.fine
        if self.swept is not None:
            return self._of_loops(self.swept, adjoint)
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

    def _of_loops(
        self, swept: LayerRuns, adjoint: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """Implement `gradients` with the compiled loops."""
        kernel, parameters = self.setup.kernel, self.setup.fine.parameters
        now, found = swept.gradients(adjoint[1:], self.sources)
        kernel.vjps += kernel.stages * self.setup.count
        pairs = zip(parameters, found, strict=False)
        of_parameters = [x.new_zeros(x.shape) if g is None else g for x, g in pairs]
        return self.communicator.broadcast_from_last(now[0], True), tuple(of_parameters), found[-1]


def offsets(parts: Intervals) -> list[tuple[slice, int]]:
    """The layers at offset 0, 1, ... of every interval, and how many there are."""
    n, c = parts.layers, parts.factor
    return [(slice(j, n, c), len(range(j, n, c))) for j in range(min(c, n))]
