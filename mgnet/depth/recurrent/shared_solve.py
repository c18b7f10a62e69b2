"""The interface between autograd and a recurrence whose steps several processes share.

Every process gets the whole input and returns the whole trajectory, and the same holds for
gradients; each process holds all other data, on all levels, only for its own steps. Contributions
of the steps to the gradients of weights are added piece by piece, in the order of the steps: each
process passes the sum to the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mgnet.depth.mgrit.communicator import Communicator
from mgnet.depth.recurrent.pieces import PiecedSteps
from mgnet.depth.recurrent.propagation import TimeAdjoint, TimeSteps
from mgnet.depth.recurrent.recurrence import Recurrence
from mgnet.depth.recurrent.solve import Once, TimeCall, detached, refuse_batches, solve
from mgnet.depth.recurrent.time_share import Shares, TimeShare

__all__ = ["shared_solve", "solve_shared"]


def shared_solve(
    call: TimeCall,
    share: TimeShare,
    start: Tensor,
    x: Tensor,
    recurrence: Recurrence,
    shares: Shares | None = None,
) -> Tensor:
    """Compute all states of a recurrence, shape (T + 1, batch, S), on every process.

    Parameters
    ----------
    call : TimeCall
        The data of the call.
    share : TimeShare
        The steps of this process among the T steps.
    start : Tensor of shape (batch, S)
        Initial states.
    x : Tensor of shape (T, batch, features)
        Inputs before multiplication by the input weights; every process has all of them.
    recurrence : Recurrence
        The recurrence. Gradients are computed with respect to all its weights, `start` and `x`.
    shares : Shares, optional
        Checks that all processes are in the same backward pass.

    Examples
    --------
    >>> from mgnet.depth import FixedCycles
    >>> from mgnet.depth.recurrent.cycles import TimeCycles
    >>> from mgnet.depth.recurrent.recurrence import recurrence_of
    >>> cell, x = torch.nn.GRUCell(2, 3), torch.randn(9, 1, 2)
    >>> recurrence = recurrence_of(cell, None, (3,))
    >>> call = TimeCall(recurrence.steps, TimeCycles(), FixedCycles(3), lambda *told: None)
    >>> states = shared_solve(call, TimeShare(range(9), 3), torch.zeros(1, 3), x, recurrence)
    >>> states.shape, torch.allclose(states[1], cell(x[0]), atol=1e-6)
    (torch.Size([10, 1, 3]), True)
    """
    of_input = recurrence.of_input or ()
    given = *of_input, *recurrence.weights
    return _SharedSolve.apply(call, (share, shares), len(of_input), start, x, *given)


def solve_shared(
    call: TimeCall, shares: Shares | None, recurrence: Recurrence, start: Tensor, x: Tensor
) -> Tensor:
    """Call `shared_solve` if several processes share the steps, else `solve`.

    Parameters
    ----------
    call, recurrence, start, x
        The arguments of `shared_solve`.
    shares : callable, optional
        The processes that share the steps.

    Examples
    --------
    >>> from mgnet.depth import FixedCycles
    >>> from mgnet.depth.recurrent.cycles import TimeCycles
    >>> from mgnet.depth.recurrent.recurrence import recurrence_of
    >>> recurrence = recurrence_of(torch.nn.GRUCell(2, 3), None, (3,))
    >>> call = TimeCall(recurrence.steps, TimeCycles(), FixedCycles(3), lambda *told: None)
    >>> solve_shared(call, None, recurrence, torch.zeros(1, 3), torch.randn(9, 1, 2)).shape
    torch.Size([10, 1, 3])
    """
    if shares is None:
        return solve(call, start, recurrence.inputs(x), recurrence.weights)
    share = shares(len(x), math.prod(call.cycles.factors(len(x))))
    return shared_solve(call, share, start, x, recurrence, shares)


class _Given(NamedTuple):
    """The tensors of a call, without graph; `of_input` is empty without input weights."""

    x: Tensor
    of_input: Sequence[Tensor | None]
    weights: Sequence[Tensor | None]

    def steps(self, call: TimeCall, share: TimeShare) -> tuple[PiecedSteps, list[TimeSteps]]:
        """The steps of this process: as one propagator, and in pieces."""
        total, made = len(self.x), list[TimeSteps]()
        factors, taken = call.cycles.factors(total), call.steps(*self.weights)
        for piece in share.pieces:
            inputs = self.x[piece.start : piece.stop]
            if self.of_input:
                inputs = F.linear(inputs, *self.of_input)  # type: ignore[arg-type]
            running = None if call.running is None else call.running[piece.start : piece.stop]
            made.append(TimeSteps(taken, inputs, factors, running))
        return PiecedSteps(made, tuple(map(len, share.pieces)), factors, total), made


class _SharedSolve(torch.autograd.Function):
    """Map (u_0, x, weights of the input, weights) to u_0 .. u_T."""

    @staticmethod
    def forward(
        ctx: Any,
        call: TimeCall,
        processes: tuple[TimeShare, Shares | None],
        of_input: int,
        start: Tensor,
        x: Tensor,
        *weights: Tensor | None,
    ) -> Tensor:
        share, ctx.shares = processes
        free, count, total = detached(weights), len(share.own), len(x)
        steps, _ = _Given(x.detach(), free[:of_input], free[of_input:]).steps(call, share)
        limit, guess = call.control.limit("forward"), call.guess("forward", start, count)
        ends, begin = share.communicator, start.detach()
        points, made, solved = call.cycles.solve(
            steps, count, begin, None, limit, ends, guess=guess, total=total
        )
        call.finish("forward", points, made, solved)
        ctx.call, ctx.share, ctx.of_input = call, share, of_input
        ctx.save_for_backward(points, x, *weights)
        return torch.cat([begin[None], ends.allgather_layers(points[1:])])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        refuse_batches(gradient)
        call, share = ctx.call, ctx.share
        if ctx.shares is not None:
            ctx.shares.check_same("backward", {"gradient": gradient.detach()})
        points, x, *weights = ctx.saved_tensors
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            free = detached(weights)
            given = _Given(x.detach(), free[: ctx.of_input], free[ctx.of_input :])
            found = _gradients(call, share, given, points, gradient.detach(), ctx.needs_input_grad)
        if torch.is_grad_enabled():  # the caller needs a graph of the gradient
            found = Once.apply(len(found), *found, gradient, points, x, *weights)
        return None, None, None, *found


def _gradients(
    call: TimeCall,
    share: TimeShare,
    given: _Given,
    points: Tensor,
    gradient: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients with respect to u_0, x and all weights, from the gradient of all states."""
    own, ends = share.own, share.communicator
    (pieced, steps), f = given.steps(call, share), gradient[own.start : own.stop + 1].contiguous()
    rows = [slice(piece.start - own.start, piece.stop - own.start) for piece in share.pieces]
    parts = [
        TimeAdjoint(each, points[row.start : row.stop + 1].clone())
        for each, row in zip(steps, rows, strict=True)
    ]
    adjoint = PiecedSteps(parts, pieced.lengths, pieced.factors, pieced.steps)
    limit, guess = call.control.limit("backward"), call.guess("backward", f[-1], len(own))
    adjoints, made, solved = call.cycles.solve(
        adjoint,
        len(own),
        f[-1],
        f,
        limit,
        ends,
        reverse=True,
        guess=guess,
        total=pieced.steps,
    )
    call.finish("backward", adjoints, made, solved)
    of_x, of_weights = list[Any](), list[list[Tensor | None]]()
    for part, piece, row in zip(parts, share.pieces, rows, strict=True):
        of_inputs, told = part.tapes[0].gradients(adjoints[row.start + 1 : row.stop + 1].clone())
        before, of_inputs = _through_input(given, piece, of_inputs)
        of_x.append(of_inputs)
        of_weights.append([*before, *told])
    whole: Tensor | None = None
    if needed[4]:
        mine = torch.cat(of_x) if of_x else given.x[:0]
        whole = ends.allgather_layers(mine)
    likes = *given.of_input, *given.weights
    if not likes:
        return [ends.broadcast_from_last(adjoints[0].clone(), True), whole]
    parts = [[each[number] for each in of_weights] for number in range(len(likes))]
    # Autograd returns None for a weight that no step uses; a process without steps cannot know.
    own_uses = [float(any(part is not None for part in each)) for each in parts]
    uses = ends.gather(torch.tensor(own_uses).view(-1, 1)).reshape(len(likes), -1).amax(1) > 0.0
    sums = [
        _summed(like, each, ends) if need and used else None
        for like, each, need, used in zip(likes, parts, needed[5:], uses.tolist(), strict=True)
    ]
    return [ends.broadcast_from_last(adjoints[0].clone(), True), whole, *sums]


def _through_input(
    given: _Given, piece: range, of_inputs: Any
) -> tuple[list[Tensor | None], Tensor]:
    """Gradients with respect to input weights and x for a piece, from those of its inputs."""
    if not given.of_input:
        return [], of_inputs
    weight, bias = given.of_input
    flat, x = of_inputs.flatten(0, 1), given.x[piece.start : piece.stop].flatten(0, 1)
    of_bias = None if bias is None else flat.sum(0)
    return [flat.T @ x, of_bias], of_inputs @ weight


def _summed(
    like: Tensor | None, own: Sequence[Tensor | None], communicator: Communicator
) -> Tensor | None:
    """The sum over the pieces of all processes, in their order; every process gets it."""
    if like is None:
        return None
    total = communicator.receive(torch.zeros_like(like), False).clone()
    for part in own:
        if part is not None:
            total += part
    communicator.send(total, False)
    return communicator.broadcast_from_last(total, False)
