"""The interface between autograd and a recurrence solved in parallel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
from mgnet.depth.parallel.control import Control, PassReport
from mgnet.depth.parallel.solve import WarmStarts
from mgnet.depth.recurrent.cycles import TimeCycles
from mgnet.depth.recurrent.propagation import TimeAdjoint, TimeSteps
from mgnet.depth.recurrent.step_tape import Steps

__all__ = ["Once", "TimeCall", "detached", "refuse_batches", "solve"]


@dataclass(frozen=True, eq=False)
class TimeCall:
    """The data of a solution over time besides tensors, and the destination of its reports.

    Parameters
    ----------
    steps : callable
        A function from the weights to `Steps`.
    cycles : TimeCycles
        Levels and cycles.
    control : FixedCycles or CyclesToTolerance
        The control of the cycles.
    report : callable
        A function that gets the direction, the report on the pass, and whether cycles solved it.
    number : int
        Number of the layer and direction within the module.
    starts : WarmStarts, optional
        Storage in which a pass finds its initial guess, and stores its states.
    running : Tensor of shape (T, batch, 1), optional
        Which sequences have not ended.
    """

    steps: Callable[..., Steps]
    cycles: TimeCycles
    control: Control
    report: Callable[[str, PassReport, bool], None]
    number: int = 0
    starts: WarmStarts | None = None
    running: Tensor | None = None

    def guess(self, direction: str, like: Tensor, steps: int) -> Tensor | None:
        """Stored states for this number of steps with points of this shape, or None."""
        if self.starts is None:
            return None
        states = self.starts.guess(f"{direction} {self.number}", like)
        if states is None or len(states) != steps + 1 or states.device != like.device:
            return None
        return states

    def finish(self, direction: str, states: Tensor, made: PassReport, solved: bool) -> None:
        """Store the states of a pass, and call `report` with its report."""
        if self.starts is not None and math.isfinite(made.estimate):
            self.starts.kept[f"{direction} {self.number}"] = states.detach()
        self.report(direction, made, solved)

    def in_steps(self) -> TimeCall:
        """The same call with exact steps, one after another, forward and backward."""
        return replace(self, cycles=TimeCycles(levels=1))


def solve(
    call: TimeCall, start: Tensor, inputs: Tensor, weights: Sequence[Tensor | None]
) -> Tensor:
    """Compute all states of a recurrence, shape (T + 1, batch, S); gradients by an adjoint solve.

    Parameters
    ----------
    call : TimeCall
        The data of the call.
    start : Tensor of shape (batch, S)
        Initial states.
    inputs : Tensor of shape (T, batch, ...)
        Inputs of all steps.
    weights : sequence of (Tensor or None)
        Weights of the steps. Gradients are computed with respect to `weights`, `start` and
        `inputs`.

    Returns
    -------
    Tensor
        The states.

    Examples
    --------
    >>> from mgnet.depth import FixedCycles
    >>> from mgnet.depth.recurrent.gru_steps import GRUSteps
    >>> call = TimeCall(GRUSteps, TimeCycles(), FixedCycles(1), lambda *told: None)
    >>> solve(call, torch.ones(1, 1), torch.zeros(4, 1, 3), [torch.zeros(3, 1), None]).ravel()
    tensor([1.0000, 0.5000, 0.2500, 0.1250, 0.0625])
    """
    return _Solve.apply(call, start, inputs, *weights)


class _Solve(torch.autograd.Function):
    """Map (u_0, inputs, weights) to u_0 .. u_T."""

    @staticmethod
    def forward(
        ctx: Any, call: TimeCall, start: Tensor, inputs: Tensor, *weights: Tensor | None
    ) -> Tensor:
        factors, count = call.cycles.factors(len(inputs)), len(inputs)
        steps = TimeSteps(call.steps(*detached(weights)), inputs.detach(), factors, call.running)
        limit, guess = call.control.limit("forward"), call.guess("forward", start, count)
        points, made, solved = call.cycles.solve(
            steps, count, start.detach(), None, limit, SERIAL_COMMUNICATOR, guess=guess
        )
        call.finish("forward", points, made, solved)
        ctx.call, ctx.factors = call, factors
        ctx.save_for_backward(points, inputs, *weights)
        return points

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        refuse_batches(gradient)
        call = ctx.call
        points, inputs, *weights = ctx.saved_tensors
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            points, f = points.detach(), gradient.detach()
            steps = TimeSteps(
                call.steps(*detached(weights)), inputs.detach(), ctx.factors, call.running
            )
            adjoint, limit = TimeAdjoint(steps, points), call.control.limit("backward")
            guess, ends = call.guess("backward", f[-1], len(inputs)), SERIAL_COMMUNICATOR
            adjoints, made, solved = call.cycles.solve(
                adjoint, len(inputs), f[-1], f, limit, ends, reverse=True, guess=guess
            )
            call.finish("backward", adjoints, made, solved)
            of_inputs, of_weights = adjoint.tapes[0].gradients(adjoints[1:])
        found = adjoints[0], of_inputs, *of_weights
        if torch.is_grad_enabled():  # the caller needs a graph of the gradient
            found = Once.apply(len(found), *found, gradient, points, inputs, *weights)
        return None, *found


class Once(torch.autograd.Function):
    """Gradients without derivatives: requesting a derivative raises an error.

    Examples
    --------
    >>> x = torch.ones(1, requires_grad=True)
    >>> once, _ = Once.apply(2, x, None)
    >>> once.backward()
    Traceback (most recent call last):
    RuntimeError: TimeParallel was asked for a derivative of its gradient, which a solve in \
parallel over time does not have; use mode='serial'
    """

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if x is None else x.clone() for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # type: ignore[override]
        raise RuntimeError(
            "TimeParallel was asked for a derivative of its gradient, which a solve in parallel "
            "over time does not have; use mode='serial'"
        )


def refuse_batches(gradient: Tensor) -> None:
    """Raise a RuntimeError if this is a whole batch of gradients, as made by `vmap`.

    Raises
    ------
    RuntimeError
        If the gradient is a batch of gradients.

    Examples
    --------
    >>> refuse_batches(torch.ones(1))
    """
    batched = torch._C._functorch.is_legacy_batchedtensor(gradient)  # type: ignore[attr-defined]
    if batched or torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "TimeParallel got many gradients at once, from is_grads_batched, vectorize=True or "
            "vmap over a backward pass; ask for one after another, call the module inside "
            "torch.func, or use mode='serial'"
        )


def detached(weights: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The same tensors without graph.

    Examples
    --------
    >>> detached([None, torch.ones(1, requires_grad=True)])
    [None, tensor([1.])]
    """
    return [None if x is None else x.detach() for x in weights]
