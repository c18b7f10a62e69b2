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

__all__ = ["TimeAdjoint", "TimeSteps", "check_jacobians"]


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

    @cached_property
    def levels(self) -> list[tuple[Tensor, Tensor | None]]:
        """The inputs of every level and, of coarse ones, how many steps each stands for."""
        found: list[tuple[Tensor, Tensor | None]] = [(self.inputs, None)]
        for stride in accumulate(self.factors, mul):
            full = len(self.inputs) // stride
            whole, rest = self.inputs[: full * stride], self.inputs[full * stride :]
            means = whole.unflatten(0, (full, stride)).mean(1)
            lengths = [float(stride)] * full
            if len(rest):
                means = torch.cat([means, rest.mean(0, keepdim=True)])
                lengths.append(float(len(rest)))
            found.append((means, means.new_tensor(lengths).view(-1, 1, 1)))
        return found

    def advance(self, level: int, which: slice, states: Tensor) -> Tensor:
        """Some steps of a level, all at once."""
        return self.steps.advance(*self._given(level, which), states)

    def record(self, level: int, which: slice, states: Tensor) -> StepTape:
        """The derivatives of `advance`."""
        return self.steps.record(*self._given(level, which), states)

    def linearize(
        self, level: int, which: slice, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """What `advance` gives, and its derivative, as in `StepTape.jacobian`."""
        check_jacobians(states, structure)
        return self.steps.linearize(*self._given(level, which), states, structure)

    def _given(self, level: int, which: slice) -> tuple[Tensor, Tensor | None]:
        inputs, lengths = self.levels[level]
        return inputs[which], None if lengths is None else lengths[which]


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
