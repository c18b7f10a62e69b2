"""The state and the adjoint of a network for one input, solved by multigrid over its layers.

`Propagation` holds what one call of a `LayerParallel` module keeps between its forward and its
backward pass: the layers of every level, the tapes of the closing sweep, what the cycles did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor

from mgnet import vector
from mgnet.depth.block import Layers, StackedBlock, Tape
from mgnet.depth.control import Budget, Pass, judged
from mgnet.depth.layer_hierarchy import layer_hierarchy, mgrit
from mgnet.hierarchy import Hierarchy
from mgnet.interpreter import StepData, run
from mgnet.schedule import Schedule, Step

__all__ = ["Method", "Propagation"]


@dataclass(frozen=True)
class Method:
    """The multigrid method of a `LayerParallel` module: its levels, and the cycles each way."""

    factors: tuple[int, ...]  # from each level to the next: one fewer than there are levels
    forward: tuple[Schedule | None, Schedule]  # opening, cycle
    backward: tuple[Schedule | None, Schedule]
    relaxation: tuple[str, ...]

    @classmethod
    def from_texts(
        cls, factors: Sequence[int], forward: str, backward: str, relaxation: Sequence[str]
    ) -> Method:
        levels = len(factors) + 1
        return cls(
            tuple(factors), mgrit(levels, forward), mgrit(levels, backward), tuple(relaxation)
        )

    @property
    def strides(self) -> list[int]:
        """How many layers of the finest level one layer of each level stands for."""
        return list(accumulate(self.factors, mul, initial=1))


class Propagation:
    """One forward pass and its adjoint.

    Parameters
    ----------
    kernel : StackedBlock
    layers : Layers
        All N of them, detached from any graph.
    method : Method
    """

    def __init__(self, kernel: StackedBlock, layers: Layers, method: Method):
        self.kernel = kernel
        self.method = method
        self.count = len(layers)
        self.levels = [_coarse(layers, stride) for stride in method.strides]
        self.tapes: list[Tape] = []
        self.points: Tensor | None = None  # the states at the C-points

    def forward(
        self, start: Tensor, budget: Budget, guess: Tensor | None, record: bool
    ) -> tuple[Tensor, Pass]:
        """Solve for the states from u_0.

        Parameters
        ----------
        start : Tensor of shape (batch, ...)
        budget : Budget
        guess : Tensor of shape (N + 1, batch, ...), optional
            A trajectory whose C-points replace the opening.
        record : bool
            Close with a sweep whose tapes the adjoint needs.

        Returns
        -------
        (Tensor, Pass)
            A trajectory of shape (N + 1, batch, ...) whose F-points are new only after a recorded
            sweep.
        """
        hierarchy = layer_hierarchy(
            Forward(self.kernel, self.levels),
            self.count,
            start,
            levels=len(self.levels),
            coarsening=self.method.factors,
            relaxation=self.method.relaxation,
        )
        states, changes, norms = _iterate(
            hierarchy, *self.method.forward, start, guess, budget, -1
        )
        if record:
            norms.append(self.close(states, record=True))
        return states, judged(changes, norms, _rounding(states))

    def close(self, states: Tensor, record: bool = False) -> float:
        """Fill in the F-points, all intervals at once; the norm of the residual at the C-points.

        With `record` the sweep leaves its tapes, and the C-points that the adjoint needs.
        """
        factor, fine = self.method.factors[0], self.levels[0]
        now, square = states[: self.count : factor], 0.0
        if record:
            self.points = now.clone()
        for offset in range(factor):
            layers = fine[offset::factor]
            now = now[: len(layers)]  # without the last interval, once it has ended
            if record:
                self.tapes.append(self.kernel.record(layers, now))
                slope = self.tapes[-1].value
            else:
                slope = self.kernel.slope(layers, now)
            now = _step(now, layers, slope)
            ends = states[offset + 1 :: factor]
            whole = len(now) if offset < factor - 1 else 0  # intervals that go on
            if whole and self.count % factor == offset + 1:
                whole -= 1
            square += vector.norm(now[whole:] - ends[whole : len(now)]) ** 2
            ends[:whole] = now[:whole]
        return math.sqrt(square)

    def backward(
        self, end: Tensor, budget: Budget, guess: Tensor | None
    ) -> tuple[Tensor, Pass]:
        """Solve for the adjoint from lam_N = `end`; as `forward`, F-points are stale."""
        hierarchy = layer_hierarchy(
            Adjoint(self),
            self.count,
            end,
            levels=len(self.levels),
            coarsening=self.method.factors,
            relaxation=self.method.relaxation,
            reverse=True,
        )
        adjoint, changes, norms = _iterate(
            hierarchy, *self.method.backward, end, guess, budget, 0
        )
        return adjoint, judged(changes, norms, _rounding(adjoint))

    def gradients(self, adjoint: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Close the adjoint with one sweep that also meets the parameters.

        Returns
        -------
        (Tensor, tuple of Tensor, Tensor)
            The gradients with respect to u_0, to the stacked parameters (N, ...), and to the step
            sizes (N,).
        """
        factor, fine = self.method.factors[0], self.levels[0]
        of_parameters = tuple(torch.empty_like(p) for p in fine.parameters)
        of_steps = torch.empty_like(fine.steps)
        now = adjoint[factor::factor]  # right ends of the whole intervals
        for offset in range(factor - 1, -1, -1):
            tape, layers = self.tapes[offset], fine[offset::factor]
            if len(layers) > len(now):  # the short last interval begins
                now = torch.cat([now, adjoint[-1:]])
            d_state, d_parameters, d_steps = tape.pull_all(_like(layers.steps, now) * now)
            for gradient, part in zip(of_parameters, d_parameters, strict=True):
                gradient[offset::factor] = part
            direct = (now * tape.value).flatten(1).sum(1)
            of_steps[offset::factor] = direct if d_steps is None else direct + d_steps
            now = now + d_state
        return now[0], of_parameters, of_steps


class Forward:
    """Steps of the layers on every level, from left to right."""

    def __init__(self, kernel: StackedBlock, levels: Sequence[Layers]):
        self.kernel = kernel
        self.levels = levels

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        layers = self.levels[level][which]
        return _step(states, layers, self.kernel.slope(layers, states))


class Adjoint:
    """Steps of the adjoint, from right to left, by the tapes of the closing sweep.

    The tape of an Euler step does not know its step size, so those of the C-layers serve all
    coarser levels; the other schemes are recorded anew there, with the coarse steps.
    """

    def __init__(self, forward: Propagation):
        self.forward = forward
        self.whole: dict[int, Tape] = {}  # of the coarser levels
        self.parts: dict[tuple[int, ...], Tape] = {}

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        layers = self.forward.levels[level][which]
        key = level, which.start, which.stop, which.step
        tape = self.parts.get(key)
        if tape is None:
            tape = self.parts[key] = self._tape(level, which)
        return states + tape.pull(_like(layers.steps, states) * states)

    def _tape(self, level: int, which: slice) -> Tape:
        if level:
            return self._of_level(level)[which]
        factor = self.forward.method.factors[0]
        first, offset = divmod(which.start, factor)
        tape = self.forward.tapes[offset]
        count = len(range(*which.indices(self.forward.count)))
        return tape if count == len(tape.value) else tape[first : first + count]

    def _of_level(self, level: int) -> Tape:
        if level not in self.whole:
            forward = self.forward
            among = forward.method.strides[level] // forward.method.factors[0]
            if forward.kernel.stages == 1:
                self.whole[level] = forward.tapes[0][::among]
            else:
                points = forward.points[::among]  # type: ignore[index]
                self.whole[level] = forward.kernel.record(forward.levels[level], points)
        return self.whole[level]


def detached(layers: Layers) -> Layers:
    """The same tensors, outside of any graph."""
    parts = (tuple(x.detach() for x in group) for group in (layers.parameters, layers.buffers))
    return Layers(*parts, layers.times.detach(), layers.steps.detach())


def _coarse(layers: Layers, stride: int) -> Layers:
    """Every `stride`-th layer, with the sum of the steps that it stands for."""
    if stride == 1:
        return layers
    steps = layers.steps
    padded = torch.cat([steps, steps.new_zeros(-len(steps) % stride)])
    return layers[::stride].with_steps(padded.reshape(-1, stride).sum(1))


def _iterate(
    hierarchy: Hierarchy,
    opening: Schedule | None,
    cycle: Schedule,
    given: Tensor,
    guess: Tensor | None,
    budget: Budget,
    output: int,
) -> tuple[Tensor, list[float], list[float]]:
    """Opening and cycles: the states, how much each cycle changed the output, the residuals met."""
    if guess is not None:
        states = guess.clone()
        states[-1 - output] = given
    else:
        states = given.expand(hierarchy[0].operator.layers + 1, *given.shape).clone()
        if opening is not None:
            states, _ = run(opening, hierarchy, states, None)
    changes: list[float] = []
    norms: list[float] = []
    memory = None

    def keep(step: Step, data: StepData) -> None:
        if step.action == "down" and step.level == 0 and data.residual_norm is not None:
            norms.append(data.residual_norm)

    for _ in range(budget.cycles):
        before = states[output]
        states, memory = run(cycle, hierarchy, states, None, memory, record=keep)
        scale = vector.norm(states[output])
        changes.append(vector.norm(states[output] - before) / scale if scale else math.inf)
        if judged(changes, norms, _rounding(states)).estimate <= budget.stop:
            break
    return states, changes, norms


def _rounding(states: Tensor) -> float:
    return 32.0 * torch.finfo(states.dtype).eps


def _step(states: Tensor, layers: Layers, slope: Tensor) -> Tensor:
    return torch.addcmul(states, _like(layers.steps, states), slope)


def _like(steps: Tensor, states: Tensor) -> Tensor:
    return steps.reshape(-1, *(1,) * (states.dim() - 1))
