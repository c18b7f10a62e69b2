"""The adjoint of a network for one input, as a propagator for multigrid over its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from mgnet.depth.batched.tape import Tape
from mgnet.depth.mgrit.c_layers import Intervals
from mgnet.depth.parallel.coarse_layers import sums
from mgnet.depth.parallel.fused_layers import FusedTape
from mgnet.depth.parallel.layer_jacobians import backward_jacobians, work_of
from mgnet.depth.parallel.propagation_setup import PropagationSetup
from mgnet.depth.parallel.turns import in_turn, summed

__all__ = ["Adjoint"]


class Recorded(Protocol):
    """The attributes of a `Propagation` with a recorded closing sweep that the adjoint uses."""

    setup: PropagationSetup
    intervals: Intervals
    tapes: list[Tape]
    sources: Tensor | None
    loops: Any
    swept: Any

    def points_of(self, level: int) -> Tensor:
        """The recorded states at the left ends of this process's layers on a coarser level."""
        ...


class Adjoint:
    """Steps of the adjoint from right to left, computed with the tapes of the closing sweep.

    Coarse layers are recorded at the states of their C-points, once per level. This class is the
    reverse `Propagator`.

    Parameters
    ----------
    forward : Propagation
        The forward pass, with a recorded sweep.
    gathered : Tensor or None
        The states of all processes at the left ends of the layers of the gathered level.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.parallel.control import CycleLimit
    >>> from mgnet.depth.parallel.method import MGRITMethod
    >>> from mgnet.depth.parallel.propagation import Propagation
    >>> from mgnet.depth.parallel.propagation_setup import detached
    >>> net = ODENet(torch.nn.Linear(2, 2), 8)
    >>> method = MGRITMethod.from_texts((4,), "V", "V", ("F",))
    >>> forward = Propagation(PropagationSetup.of(net.kernel, detached(net.layers()), method))
    >>> _ = forward.forward(torch.ones(1, 2), CycleLimit(1), None, record=True)
    >>> Adjoint.of(forward).advance(1, slice(0, 2), torch.ones(2, 1, 2)).shape
    torch.Size([2, 1, 2])
    """

    reverse = True

    def __init__(self, forward: Recorded, gathered: Tensor | None):
        self.forward = forward
        self.gathered = gathered
        self._sources: dict[int, Tensor] = {}  # per level, the terms that its layers add
        self._whole: dict[int, Tape | FusedTape] = {}  # tapes of the coarser levels
        self._parts: dict[tuple[int, ...], tuple[Tape | FusedTape, Tensor]] = {}
        self._same = forward.setup.method.coarse == "identity"

    @classmethod
    def of(cls, forward: Recorded) -> Adjoint:
        """Gather the states of the gathered level if there is one; all processes must call this."""
        setup, gathered = forward.setup, None
        if setup.gathered and setup.method.coarse != "identity":  # all processes get here
            points = forward.points_of(len(setup.method.factors))
            gathered = torch.cat(setup.communicator.allgather(points))
        adjoint = cls(forward, gathered)
        if setup.gathered and forward.sources is not None:
            coarsest = len(setup.method.factors)
            own = adjoint._of_states(coarsest)
            adjoint._sources[coarsest + 1] = torch.cat(setup.communicator.allgather(own))
        return adjoint

    def record_coarse(self) -> None:
        """Record this process's coarse layers before the march, in which processes take turns."""
        setup = self.forward.setup
        if setup.count and not setup.gathered and not self._same:
            for level in range(1, len(setup.method.factors) + 1):
                self._of_level(level)

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Compute backward steps of some layers of a level, all at once (`Propagator`)."""
        if not states.shape[0]:  # this process has no layers
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
        if tape.linear:
            new = torch.addcmul(states, scale, tape.vjp(states))
        else:
            new = states + tape.vjp(scale * states)
        return new if sources is None else new.add_(sources[which])

    def linearize(
        self, level: int, which: slice, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """Compute backward steps and their Jacobians for each sample; see `NewtonSweep`."""
        setup = self.forward.setup
        scale, tape = setup.scale(level, which, states), None
        if len(states):  # otherwise other processes hold all layers
            tape = self._tape(level, which)
        found = backward_jacobians(setup.kernel, tape, scale, states, structure)
        return self.advance(level, which, states), found

    def linearization_work(self, structure: str, states: Tensor) -> float:
        """The work of `linearize`, in vector-Jacobian products of all layers."""
        return work_of(self.forward.setup.kernel, structure, states)

    def march(
        self, level: int, layers: int, start: Tensor, rows: Sequence[Tensor] | None, reverse: bool
    ) -> list[Tensor]:
        """Compute backward steps of a coarse level's layers one by one; see `march_by_advance`."""
        if not layers:  # other processes hold all layers
            return [start]
        order = slice(None, None, -1 if reverse else 1)
        sources = self._of_states(level)
        if sources is not None:
            added = [row[0] for row in sources.split(1)][order]
            given = [0.0] * layers if rows is None else rows
            rows = [row + more for row, more in zip(added, given, strict=True)]
        if level and self._same:
            return summed(layers, start, rows)
        scales, tape = self.forward.setup.scales(level, start), self._of_level(level)
        vjps = tape.vjp_each(start)
        if not tape.linear:
            vjps = [partial(_of_scaled, *each) for each in zip(vjps, scales, strict=True)]
            scales = [torch.ones_like(scale) for scale in scales]
        return in_turn(vjps[order], scales[order], start, rows)

    def _of_states(self, level: int) -> Tensor | None:
        """The gradients with respect to states, summed over the layers that a layer represents."""
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
            if setup.gathered and level == coarsest:  # this process's part of the gathered level
                first = setup.gathered.first
                tape = self._of_level(coarsest + 1)[first : first + len(setup.levels[coarsest])]
            else:
                points = self.gathered if level > coarsest else self.forward.points_of(level)
                tape = setup.record(level, points)  # type: ignore[arg-type]
            self._whole[level] = tape
        return self._whole[level]


def _of_scaled(vjp: Callable[[Tensor], Tensor], scale: Tensor, lam: Tensor) -> Tensor:
    """Apply a VJP to the scaled cotangent, which is what autograd would pass to it."""
    return vjp(scale * lam)
