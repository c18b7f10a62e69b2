"""The steps of a recurrence, forward and adjoint, as propagators of the layer equation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor

from mgnet.depth.recurrent.step_tape import Steps, StepTape
from mgnet.limits import check_memory

__all__ = ["RunningTape", "TimeAdjoint", "TimeSteps", "check_jacobians"]


@dataclass(frozen=True, eq=False)
class TimeSteps:
    """The recurrence `u[t + 1] = step(inputs[t], u[t])` on every level (`Propagator`).

    Weights are shared over time, so all steps that are asked for are one call. A coarse step gets
    the mean of the inputs that it stands for: that took as few cycles as the input at the C-point,
    or fewer.

    Parameters
    ----------
    steps : Steps
    inputs : Tensor of shape (T, batch, ...)
        Of the own steps.
    factors : tuple of int
        From each level to the next.
    running : Tensor of shape (T, batch, 1), optional
        Which sequences still run: one that has ended keeps its state, of which norms know nothing.

    Examples
    --------
    >>> from mgnet.depth.recurrent.gru_steps import GRUSteps
    >>> inputs, states = torch.zeros(5, 1, 3), torch.ones(2, 1, 1)
    >>> half_open = TimeSteps(GRUSteps(torch.zeros(3, 1), None), inputs, (4,))
    >>> half_open.advance(0, slice(0, 2), states).ravel()
    tensor([0.5000, 0.5000])
    >>> half_open.advance(1, slice(0, 2), states).ravel()  # over four steps, and the last one
    tensor([0.0625, 0.5000])
    """

    steps: Steps
    inputs: Tensor
    factors: tuple[int, ...]
    running: Tensor | None = None

    @cached_property
    def levels(self) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
        """Inputs of every level; of coarse ones, how many steps each stands for; what runs."""
        found: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
        found.append((self.inputs, None, self.running))
        for stride in accumulate(self.factors, mul):
            full = len(self.inputs) // stride
            whole, rest = self.inputs[: full * stride], self.inputs[full * stride :]
            means = whole.unflatten(0, (full, stride)).mean(1)
            lengths = [float(stride)] * full
            if len(rest):
                means = torch.cat([means, rest.mean(0, keepdim=True)])
                lengths.append(float(len(rest)))
            if self.running is None:
                found.append((means, means.new_tensor(lengths).view(-1, 1, 1), None))
                continue
            missing = self.running.new_zeros(-len(self.running) % stride, *self.running.shape[1:])
            counts = torch.cat([self.running, missing]).unflatten(0, (-1, stride)).sum(1)
            found.append((means, counts.clamp_min(1).to(means.dtype), counts > 0))
        return found

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Some steps of a level, all at once."""
        inputs, lengths, running = self._given(level, which)
        new = self.steps.advance(inputs, lengths, states)
        return new if running is None else torch.where(running, new, states)

    def record(self, level: int, which: slice, states: Tensor) -> StepTape:
        """The derivatives of `advance`."""
        inputs, lengths, running = self._given(level, which)
        tape = self.steps.record(inputs, lengths, states)
        return tape if running is None else RunningTape(tape, running)

    def linearize(
        self, level: int, which: slice, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """What `advance` gives, and its derivative, as in `StepTape.jacobian`."""
        check_jacobians(states, structure)
        inputs, lengths, running = self._given(level, which)
        new, jacobian = self.steps.linearize(inputs, lengths, states, structure)
        if running is None:
            return new, jacobian
        return torch.where(running, new, states), _held(running, jacobian, structure)

    def _given(self, level: int, which: slice) -> tuple[Tensor, Tensor | None, Tensor | None]:
        inputs, *rest = self.levels[level]
        lengths, running = [None if each is None else each[which] for each in rest]
        return inputs[which], lengths, running


@dataclass(frozen=True, eq=False)
class RunningTape:
    """Derivatives of some steps, in which sequences that have ended keep their states.

    Parameters
    ----------
    tape : StepTape
        Of the steps of all sequences.
    running : Tensor of shape (k, batch, 1)

    Examples
    --------
    >>> from mgnet.depth.recurrent.gru_steps import GRUSteps
    >>> steps = GRUSteps(torch.zeros(3, 1), None)
    >>> tape = steps.record(torch.zeros(2, 1, 3), None, torch.ones(2, 1, 1))
    >>> RunningTape(tape, torch.tensor([[[True]], [[False]]])).vjp(torch.ones(2, 1, 1)).ravel()
    tensor([0.5000, 1.0000])
    """

    tape: StepTape
    running: Tensor

    def __getitem__(self, which: slice) -> RunningTape:
        return RunningTape(self.tape[which], self.running[which])

    def vjp(self, v: Tensor) -> Tensor:
        """`v` times the derivative by the states."""
        return torch.where(self.running, self.tape.vjp(v), v)

    def gradients(self, v: Tensor) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
        """`v` times the derivatives by the inputs and by the weights."""
        return self.tape.gradients(torch.where(self.running, v, torch.zeros_like(v)))

    def jacobian(self, structure: str) -> Tensor:
        """The derivative by the states, as in `StepTape`."""
        return _held(self.running, self.tape.jacobian(structure), structure)


def _held(running: Tensor, jacobian: Tensor, structure: str) -> Tensor:
    """The Jacobians of the steps of what runs, and the identity."""
    if structure == "diagonal":
        return torch.where(running, jacobian, torch.ones_like(jacobian))
    identity = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
    return torch.where(running[..., None], jacobian, identity)


class TimeAdjoint:
    """Steps of the adjoint from the end to the beginning, at the states of a solved recurrence.

    Coarse steps are linearised at the states with which they begin.

    Parameters
    ----------
    forward : TimeSteps
    points : Tensor of shape (T + 1, batch, S)
        The states.

    Examples
    --------
    >>> from mgnet.depth.recurrent.gru_steps import GRUSteps
    >>> steps = TimeSteps(GRUSteps(torch.zeros(3, 1), None), torch.zeros(5, 1, 3), (4,))
    >>> adjoint = TimeAdjoint(steps, torch.zeros(6, 1, 1))
    >>> adjoint.advance(0, slice(0, 2), torch.ones(2, 1, 1)).ravel()
    tensor([0.5000, 0.5000])
    """

    def __init__(self, forward: TimeSteps, points: Tensor):
        strides = accumulate(forward.factors, mul, initial=1)
        self.tapes = [
            forward.record(level, slice(None), points[:-1:stride])
            for level, stride in enumerate(strides)
        ]
        self._parts: dict[tuple[int, int, int, int], StepTape] = {}

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Some steps of a level, all at once."""
        return self._tape(level, which).vjp(states)

    def linearize(
        self, level: int, which: slice, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """What `advance` gives, and its derivative: the transpose of that of the forward steps."""
        check_jacobians(states, structure)
        tape = self._tape(level, which)
        found = tape.jacobian(structure)
        return tape.vjp(states), found.mT if structure == "dense" else found

    def _tape(self, level: int, which: slice) -> StepTape:
        key = level, which.start, which.stop, which.step
        if key not in self._parts:
            self._parts[key] = self.tapes[level][which]
        return self._parts[key]


def check_jacobians(states: Tensor, structure: str, steps: int | None = None) -> None:
    """Raise a ValueError unless memory holds the Jacobians of so many steps.

    Parameters
    ----------
    states : Tensor of shape (k, batch, S)
    structure : {"dense", "diagonal"}
    steps : int, optional
        k by default.

    Examples
    --------
    >>> check_jacobians(torch.zeros(5, 2, 3), "dense")
    """
    if structure == "dense":
        count = len(states) if steps is None else steps
        check_memory(
            3 * count * states.shape[1:].numel() * states.shape[-1] * states.itemsize,
            f"Newton's method got dense Jacobians of {count} steps, of states of "
            f"{tuple(states.shape[1:])}",
            "take newton(diagonal), newton(identity) or cycles",
        )
