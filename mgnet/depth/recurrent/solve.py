"""The border between a recurrence solved in parallel and autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR, Communicator
from mgnet.depth.parallel.control import Control, PassReport
from mgnet.depth.recurrent.cycles import TimeCycles
from mgnet.depth.recurrent.propagation import TimeAdjoint, TimeSteps
from mgnet.depth.recurrent.step_tape import Steps

__all__ = ["TimeCall", "solve", "stepped"]


@dataclass(frozen=True, eq=False)
class TimeCall:
    """What a solution over time needs beside tensors, and where it reports to.

    Parameters
    ----------
    steps : callable
        `(weights) -> Steps`.
    cycles : TimeCycles
    control : FixedCycles or CyclesToTolerance
    report : callable
        `(direction, what the pass did, whether cycles solved it) -> None`.
    communicator : Communicator
        The processes that hold earlier and later steps.
    """

    steps: Callable[..., Steps]
    cycles: TimeCycles
    control: Control
    report: Callable[[str, PassReport, bool], None]
    communicator: Communicator = SERIAL_COMMUNICATOR


def solve(
    call: TimeCall, start: Tensor, inputs: Tensor, weights: Sequence[Tensor | None]
) -> Tensor:
    """All states of a recurrence, shape (T + 1, batch, S), with gradients by one adjoint solve.

    Parameters
    ----------
    call : TimeCall
    start : Tensor of shape (batch, S)
    inputs : Tensor of shape (T, batch, ...)
    weights : sequence of (Tensor or None)
        Of the steps; gradients go to them, to `start` and to `inputs`.

    Examples
    --------
    >>> from mgnet.depth import FixedCycles
    >>> from mgnet.depth.recurrent.gru_steps import GRUSteps
    >>> call = TimeCall(GRUSteps, TimeCycles(), FixedCycles(1), lambda *told: None)
    >>> solve(call, torch.ones(1, 1), torch.zeros(4, 1, 3), [torch.zeros(3, 1), None]).ravel()
    tensor([1.0000, 0.5000, 0.2500, 0.1250, 0.0625])
    """
    return _Solve.apply(call, start, inputs, *weights)


def stepped(
    call: TimeCall, start: Tensor, inputs: Tensor, weights: Sequence[Tensor | None]
) -> Tensor:
    """As `solve`, one step after another, exactly; backward, too.

    Parameters
    ----------
    call, start, inputs, weights : as in `solve`

    Examples
    --------
    >>> from mgnet.depth import FixedCycles
    >>> from mgnet.depth.recurrent.gru_steps import GRUSteps
    >>> call = TimeCall(GRUSteps, TimeCycles(), FixedCycles(1), lambda *told: None)
    >>> stepped(call, torch.ones(1, 1), torch.zeros(2, 1, 3), [torch.zeros(3, 1), None]).ravel()
    tensor([1.0000, 0.5000, 0.2500])
    """
    return solve(replace(call, cycles=TimeCycles(levels=1)), start, inputs, weights)


class _Solve(torch.autograd.Function):
    """(u_0, inputs, weights) -> u_0 .. u_T."""

    @staticmethod
    def forward(
        ctx: Any, call: TimeCall, start: Tensor, inputs: Tensor, *weights: Tensor | None
    ) -> Tensor:
        factors = call.cycles.factors(len(inputs))
        steps = TimeSteps(call.steps(*_detached(weights)), inputs.detach(), factors)
        limit = call.control.limit("forward")
        points, made, solved = call.cycles.solve(
            steps, len(inputs), start.detach(), None, limit, call.communicator
        )
        call.report("forward", made, solved)
        ctx.call, ctx.factors = call, factors
        ctx.save_for_backward(points, inputs, *weights)
        return points

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        call = ctx.call
        points, inputs, *weights = ctx.saved_tensors
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            points, f = points.detach(), gradient.detach()
            steps = TimeSteps(call.steps(*_detached(weights)), inputs.detach(), ctx.factors)
            adjoint, limit = TimeAdjoint(steps, points), call.control.limit("backward")
            adjoints, made, solved = call.cycles.solve(
                adjoint, len(inputs), f[-1], f, limit, call.communicator, reverse=True
            )
            call.report("backward", made, solved)
            of_inputs, of_weights = adjoint.tapes[0].gradients(adjoints[1:])
        found = adjoints[0], of_inputs, *of_weights
        if torch.is_grad_enabled():  # somebody asks for a graph of the gradient
            found = _Once.apply(len(found), *found, gradient, points, inputs, *weights)
        return None, *found


class _Once(torch.autograd.Function):
    """Gradients that have no derivatives: to ask for one is an error, and not a zero."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if x is None else x.clone() for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # type: ignore[override]
        raise RuntimeError(
            "TimeParallel was asked for a derivative of its gradient, which a solve in parallel "
            "over time does not have; use mode='serial'"
        )


def _detached(weights: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if x is None else x.detach() for x in weights]
