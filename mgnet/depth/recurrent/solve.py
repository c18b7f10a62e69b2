"""The border between a recurrence solved in parallel and autograd."""

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
    """What a solution over time needs beside tensors, and where it reports to.

    Parameters
    ----------
    steps : callable
        `(weights) -> Steps`.
    cycles : TimeCycles
    control : FixedCycles or CyclesToTolerance
    report : callable
        `(direction, what the pass did, whether cycles solved it) -> None`.
    number : int
        Of the layer and direction, among those of the module.
    starts : WarmStarts, optional
        Where a pass finds its first guess, and leaves its states.
    running : Tensor of shape (T, batch, 1), optional
        Which sequences still run.
    """

    steps: Callable[..., Steps]
    cycles: TimeCycles
    control: Control
    report: Callable[[str, PassReport, bool], None]
    number: int = 0
    starts: WarmStarts | None = None
    running: Tensor | None = None

    def guess(self, direction: str, like: Tensor, steps: int) -> Tensor | None:
        """States of so many steps and a point such as this one, if a pass has left such."""
        if self.starts is None:
            return None
        states = self.starts.guess(f"{direction} {self.number}", like)
        if states is None or len(states) != steps + 1 or states.device != like.device:
            return None
        return states

    def finish(self, direction: str, states: Tensor, made: PassReport, solved: bool) -> None:
        """Leave the states of a pass, and report."""
        if self.starts is not None and math.isfinite(made.estimate):
            self.starts.kept[f"{direction} {self.number}"] = states.detach()
        self.report(direction, made, solved)

    def in_steps(self) -> TimeCall:
        """The same call with exact steps, one after another; backward, too."""
        return replace(self, cycles=TimeCycles(levels=1))


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


class _Solve(torch.autograd.Function):
    """(u_0, inputs, weights) -> u_0 .. u_T."""

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
        if torch.is_grad_enabled():  # somebody asks for a graph of the gradient
            found = Once.apply(len(found), *found, gradient, points, inputs, *weights)
        return None, *found


class Once(torch.autograd.Function):
    """Gradients that have no derivatives: to ask for one is an error, and not a zero.

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
    """Raise a RuntimeError if this is a whole batch of gradients, which `vmap` makes.

    Examples
    --------
    >>> refuse_batches(torch.ones(1))
    """
    batched = torch._C._functorch.is_legacy_batchedtensor(gradient)  # type: ignore[attr-defined]
    if batched or torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "TimeParallel got many gradients at once, by is_grads_batched, vectorize=True or vmap "
            "over a backward pass; ask for one after another, call the module inside of "
            "torch.func, or use mode='serial'"
        )


def detached(weights: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The same tensors outside of any graph.

    Examples
    --------
    >>> detached([None, torch.ones(1, requires_grad=True)])
    [None, tensor([1.])]
    """
    return [None if x is None else x.detach() for x in weights]
