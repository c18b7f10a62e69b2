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

    Weights are shared over time, so all requested steps are one call. A coarse step gets the mean
    of the inputs of the fine steps that it represents; in tests, this needed no more cycles than
    the input at the C-point.

    Parameters
    ----------
    steps : Steps
        The steps of the cell.
    inputs : Tensor of shape (T, batch, ...)
        Inputs of this process's steps.
    factors : tuple of int
        Coarsening factor of each level except the coarsest.
    running : Tensor of shape (T, batch, 1), optional
        Which sequences have not ended. After its end, a sequence keeps its state, which norms
        ignore.

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
        """For every level: inputs, number of fine steps per step, and sequences still running."""
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
        """Compute some steps of a level, all at once."""
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
        """The result of `advance`, and its derivative; see `StepTape.jacobian`."""
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
    """Derivatives of some steps in which sequences that have ended keep their states.

    Parameters
    ----------
    tape : StepTape
        The tape of the steps of all sequences.
    running : Tensor of shape (k, batch, 1)
        Which sequences have not ended.

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
        """The product of `v` with the derivative with respect to the states."""
        return torch.where(self.running, self.tape.vjp(v), v)

    def gradients(self, v: Tensor) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
        """The products of `v` with the derivatives with respect to inputs and weights."""
        return self.tape.gradients(torch.where(self.running, v, torch.zeros_like(v)))

    def jacobian(self, structure: str) -> Tensor:
        """The derivative with respect to the states; see `StepTape`."""
        return _held(self.running, self.tape.jacobian(structure), structure)


def _held(running: Tensor, jacobian: Tensor, structure: str) -> Tensor:
    """The Jacobians of the steps of running sequences, and the identity for others."""
    if structure == "diagonal":
        return torch.where(running, jacobian, torch.ones_like(jacobian))
    identity = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
    return torch.where(running[..., None], jacobian, identity)


class TimeAdjoint:
    """Steps of the adjoint from the end to the start, at the states of a solved recurrence.

    Coarse steps are linearized at the states at which they start.

    Parameters
    ----------
    forward : TimeSteps
        The forward steps.
    points : Tensor of shape (T + 1, batch, S)
        The states of the solution.

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
        """Compute some steps of a level, all at once."""
        return self._tape(level, which).vjp(states)

    def linearize(
        self, level: int, which: slice, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """The result of `advance` and its Jacobian, the transpose of the forward Jacobian."""
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
    """Raise an error unless the Jacobians of this number of steps fit into memory.

    Parameters
    ----------
    states : Tensor of shape (k, batch, S)
        The states.
    structure : {"dense", "diagonal"}
        Structure of the Jacobians.
    steps : int, optional
        Number of steps; k by default.

    Raises
    ------
    ValueError
        If the Jacobians would need more memory than the machine has.

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
