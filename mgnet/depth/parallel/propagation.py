"""The state and the adjoint of a network for one input, solved by multigrid over its layers.

`Propagation` holds what one call of a `LayerParallel` module keeps between its forward and its
backward pass: the layers of every level, the tapes of the closing sweep, what the cycles did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from operator import mul

import torch
from torch import Tensor

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.tape import Tape
from mgnet.depth.mgrit.c_layers import Intervals, intervals
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR, Communicator
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy, mgrit
from mgnet.depth.parallel.coarse_layers import coarse_layers, layers_of_all, renew
from mgnet.depth.parallel.control import CycleLimit, PassReport
from mgnet.depth.parallel.history import History
from mgnet.hierarchy import Hierarchy
from mgnet.interpreter import StepData, run
from mgnet.schedule import Schedule, Step

__all__ = ["SERIAL_METHOD", "MGRITMethod", "PropagationSetup", "Propagation", "detached"]


@dataclass(frozen=True)
class MGRITMethod:
    """The multigrid method of a `LayerParallel` module: its levels, and the cycles each way."""

    factors: tuple[int, ...]  # from each level to the next: one fewer than there are levels
    forward: tuple[Schedule | None, Schedule]  # opening, cycle
    backward: tuple[Schedule | None, Schedule]
    relaxation: tuple[str, ...]

    @classmethod
    def from_texts(
        cls, factors: Sequence[int], forward: str, backward: str, relaxation: Sequence[str]
    ) -> MGRITMethod:
        """Of cycles as texts; see `mgrit`."""
        levels = len(factors) + 1
        return cls(
            tuple(factors), mgrit(levels, forward), mgrit(levels, backward), tuple(relaxation)
        )

    @property
    def strides(self) -> list[int]:
        """How many layers of the finest level one layer of each level stands for."""
        return list(accumulate(self.factors, mul, initial=1))


SERIAL_METHOD = MGRITMethod.from_texts((), "V", "V", ("F",))


class PropagationSetup:
    """The layers of every level for states of one shape; kept between calls.

    Its tensors are views of the network's own, so they follow what an optimizer does to them.

    Parameters
    ----------
    kernel : StackedBlock
    layers : Layers
        All N of them, outside of any graph.
    method : MGRITMethod
    communicator : Communicator
        The processes that hold other layers, if there are any.
    state_bytes : int
        Of one state: small coarsest levels are gathered from all processes. They are one more
        level, the last.
    """

    def __init__(
        self,
        kernel: StackedBlock,
        layers: Layers,
        method: MGRITMethod,
        communicator: Communicator = SERIAL_COMMUNICATOR,
        state_bytes: int = 0,
    ):
        self.kernel = kernel
        self.method = method
        self.communicator = communicator
        self.count = len(layers)
        self.levels = [coarse_layers(layers, stride, kernel.stages) for stride in method.strides]
        size = state_bytes + sum(prod(x.shape[1:]) * x.itemsize for x in layers.tensors())
        self.gathered = communicator.gathered(size) if method.factors else None
        if self.gathered:
            self.levels.append(layers_of_all(self.levels[-1], communicator))
        self.scales: dict[tuple[int, ...], Tensor] = {}
        self.slopes: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {}

    def refresh(self) -> None:
        """Make the coarse layers anew: what they are means of is trained."""
        strides = self.method.strides[1:]
        for layers, stride in zip(self.levels[1:], strides, strict=False):
            renew(layers, coarse_layers(self.levels[0], stride, self.kernel.stages))
        if self.gathered:
            renew(self.levels[-1], layers_of_all(self.levels[-2], self.communicator))

    def scale(self, level: int, which: slice, states: Tensor) -> Tensor:
        """The steps of some layers, shaped to multiply states."""
        key = level, which.start, which.stop, which.step
        found = self.scales.get(key)
        if found is None:
            steps = self.levels[level][which].steps
            found = self.scales[key] = steps.reshape(-1, *(1,) * (states.dim() - 1))
        return found

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Forward steps of some layers of a level, all at once (`Propagator`)."""
        key = level, which.start, which.stop, which.step
        slope = self.slopes.get(key)
        if slope is None:
            slope = self.slopes[key] = self.kernel.bound_slope(self.levels[level][which], states)
        return torch.addcmul(states, self.scale(level, which, states), slope(states))


class Propagation:
    """One forward pass and its adjoint.

    Parameters
    ----------
    setup : PropagationSetup
    communicator : Communicator
        The processes that hold the other layers, if there are any; all numbers and states here,
        but u_N and the gradient with respect to u_0, are then those of the own layers.
    """

    def __init__(self, setup: PropagationSetup, communicator: Communicator = SERIAL_COMMUNICATOR):
        self.setup = setup
        self.communicator = communicator
        self.intervals = intervals(setup.count, setup.method.factors[0])
        self.tapes: list[Tape] = []
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
        return points, history.summarize()

    def record(self, points: Tensor) -> Tensor:
        """Sweep over all layers from the C-points, and keep the tapes; what arrives there."""
        setup, now, ended = self.setup, points[:-1], []
        self.points = now
        for which, count in offsets(self.intervals):
            if count < len(now):  # the short last interval ends
                now, ended = now[:count], [now[count:]]
            tape = setup.kernel.record(setup.levels[0][which], now)
            self.tapes.append(tape)
            now = torch.addcmul(now, setup.scale(0, which, now), tape.value)
        return torch.cat([points[:1], now, *ended])

    @property
    def has_buffers(self) -> bool:
        """Whether a recorded sweep may change buffers: running statistics of batch norm."""
        return bool(self.setup.levels[0].buffers)

    def update_buffers(self) -> None:
        """Give the network's own buffers the values that the recorded sweep left."""
        for tape, (which, _) in zip(self.tapes, offsets(self.intervals), strict=True):
            self.setup.levels[0][which].update(tape.new_buffers)

    def backward(
        self, end: Tensor, limit: CycleLimit, guess: Tensor | None
    ) -> tuple[Tensor, PassReport]:
        """Solve for the adjoint at the C-points from lam_N = `end`; as `forward`."""
        adjoint = Adjoint(self)
        if limit.cycles or guess is None:
            adjoint.record_coarse()
        points, history = self._iterate(adjoint, end, guess, limit)
        return points, history.summarize()

    def _iterate(
        self,
        propagator: PropagationSetup | Adjoint,
        given: Tensor,
        guess: Tensor | None,
        limit: CycleLimit,
    ) -> tuple[Tensor, History]:
        """Opening and cycles: the states, and what the cycles did."""
        method, reverse = self.setup.method, propagator is not self.setup
        opening, cycle = method.backward if reverse else method.forward
        inlet = -1 if reverse else 0
        hierarchy = layer_hierarchy(
            propagator,
            self.setup.count,
            given,
            levels=len(method.factors) + 1,
            coarsening=method.factors,
            relaxation=method.relaxation,
            reverse=reverse,
            c_points_only=True,
            communicator=self.communicator,
            gathered=self.setup.gathered,
        )
        # Without the norm: one over all processes would be gathered after every step, and no number
        # is needed before a decision, for which `History` gathers. It has no other part to keep.
        hierarchy = Hierarchy(hierarchy.levels)
        if guess is not None:
            points = guess.clone()
            if self.communicator.is_first(reverse):
                points[inlet] = given
        else:
            points = given.expand(self.intervals.count + 1, *given.shape)
            if opening is not None:
                points, _ = run(opening, hierarchy, points, None)
        history = History(self.communicator, reverse, given.dtype)
        memory = None

        def keep(step: Step, data: StepData) -> None:
            if step.action == "down" and step.level == 0:
                history.add_residual(data.progress.rs[0])  # type: ignore[arg-type]

        for _ in range(limit.cycles):
            before = points
            points, memory = run(cycle, hierarchy, points, None, memory, record=keep)
            history.add_change(before, points)
            if limit.stop and history.summarize().estimate <= limit.stop:
                break
        return points, history

    def gradients(
        self, adjoint: Tensor, with_steps: bool
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Close the adjoint, given at the C-points, with a sweep that also meets the parameters.

        Returns
        -------
        (Tensor, tuple of Tensor, Tensor)
            The gradients with respect to u_0, to the stacked parameters (N, ...), and to the step
            sizes (N,).
        """
        setup, parts = self.setup, self.intervals
        fine = setup.levels[0]
        of_parameters = tuple(torch.empty_like(p) for p in fine.parameters)
        of_steps = torch.empty_like(fine.steps)
        now = adjoint[1:-1] if parts.layers % parts.factor else adjoint[1:]
        for which, count in reversed(offsets(parts)):
            if count > len(now):  # the short last interval begins
                now = torch.cat([now, adjoint[-1:]])
            tape = self.tapes[which.start]
            d_state, d_parameters, d_steps = tape.vjp_all(setup.scale(0, which, now) * now)
            for gradient, part in zip(of_parameters, d_parameters, strict=True):
                gradient[which] = part
            if with_steps:
                direct = (now * tape.value).flatten(1).sum(1)
                of_steps[which] = direct if d_steps is None else direct + d_steps
            now = now + d_state
        first = now[0] if len(now) else adjoint[0]  # other processes hold all layers
        return self.communicator.broadcast_from_last(first, True), of_parameters, of_steps


class Adjoint:
    """Steps of the adjoint, from right to left, by the tapes of the closing sweep.

    The coarse layers are recorded at the states of their C-points, once for each level.
    """

    def __init__(self, forward: Propagation):
        self.forward = forward
        self.whole: dict[int, tuple[Tape, Sequence[Tape]]] = {}  # of the coarser levels
        setup = forward.setup
        if setup.gathered:  # all processes are here, also those without layers
            parts = forward.communicator.allgather(self._points(len(setup.method.factors)))
            self.gathered = torch.cat(parts)
        self.parts: dict[tuple[int, ...], Tape] = {}

    def record_coarse(self) -> None:
        """Record the own coarse layers before the march, in which each process waits its turn."""
        setup = self.forward.setup
        if setup.count and not setup.gathered:
            for level in range(1, len(setup.method.factors) + 1):
                self._of_level(level)

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Backward steps of some layers of a level, all at once (`Propagator`)."""
        if not states.shape[0]:  # other processes hold all layers
            return states
        key = level, which.start, which.stop, which.step
        tape = self.parts.get(key)
        if tape is None:
            tape = self.parts[key] = self._tape(level, which)
        scale = self.forward.setup.scale(level, which, states)
        return torch.addcmul(states, scale, tape.vjp(states))

    def _tape(self, level: int, which: slice) -> Tape:
        if level:
            whole, singles = self._of_level(level)
            return singles[which.start] if which.stop - which.start == 1 else whole[which]
        first, offset = divmod(which.start, self.forward.intervals.factor)
        tape = self.forward.tapes[offset]
        count = len(range(*which.indices(self.forward.setup.count)))
        return tape if count == len(tape.value) else tape[first : first + count]

    def _of_level(self, level: int) -> tuple[Tape, Sequence[Tape]]:
        if level not in self.whole:
            setup, coarsest = self.forward.setup, len(self.forward.setup.method.factors)
            if setup.gathered and level == coarsest:  # the own part of what is gathered
                first = setup.gathered.first
                every, _ = self._of_level(coarsest + 1)
                tape = every[first : first + len(setup.levels[coarsest])]
            else:
                points = self.gathered if level > coarsest else self._points(level)
                tape = setup.kernel.record(setup.levels[level], points)
            self.whole[level] = tape, tape.split()
        return self.whole[level]

    def _points(self, level: int) -> Tensor:
        """Where the own layers of a coarser level begin."""
        method = self.forward.setup.method
        return self.forward.points[:: method.strides[level] // method.factors[0]]  # type: ignore[index]


def offsets(parts: Intervals) -> list[tuple[slice, int]]:
    """The layers at offset 0, 1, ... of every interval, and their number."""
    n, c = parts.layers, parts.factor
    return [(slice(j, n, c), len(range(j, n, c))) for j in range(min(c, n))]


def detached(layers: Layers) -> Layers:
    """The same tensors, outside of any graph."""
    return Layers(
        tuple(x.detach() for x in layers.parameters),
        tuple(x.detach() for x in layers.buffers),
        layers.times.detach(),
        layers.steps.detach(),
    )
