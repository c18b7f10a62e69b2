"""Serial propagation: layer by layer, forward and backward, without autograd's graph.

It is exact. If possible, one compiled loop is used (see `compiled_serial.py`); otherwise, each
layer takes a few calls of its traced programs, and the gradients of all parameters take one batched
call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.batched.autocast import same_cast
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.tape import Tape, TracedTape, joined
from mgnet.depth.compiled.checkpoints import segment_ends
from mgnet.depth.parallel.compiled_serial import compiled_march, march_compiled, takes_joint
from mgnet.depth.parallel.propagation_setup import PropagationSetup
from mgnet.depth.parallel.second_order import Buffers, FirstOrder, Gradients, gradients
from mgnet.depth.parallel.turns import of_all_layers

__all__ = ["march"]

# Size of a state up to which a call costs more than its arithmetic. Then it is faster to compute
# products with the Jacobian for states alone, and those for parameters for all layers at once.
SMALL = 2**14
KEPT = 6.0  # size of a tape in states, for the choice of segments between checkpoints


def march(
    setup: PropagationSetup,
    u: Tensor,
    steps: Tensor,
    parameters: Sequence[Tensor],
    update: bool = True,
    otherwise: Callable[[], Tensor] | None = None,
    spread: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None,
    checkpoints: bool = False,
    every: bool = False,
) -> Tensor:
    """Compute the state after all layers; all processes call this together, and each gets it.

    Parameters
    ----------
    setup : PropagationSetup
        The layers of this process.
    u : Tensor of shape (batch, ...)
        The state before the layers.
    steps : Tensor of shape (layers,)
        The steps of the layers of this process.
    parameters : sequence of Tensor
        Stacked parameters of these layers. The result is differentiable with respect to u, steps
        and parameters.
    update : bool
        Whether a training pass updates the buffers.
    otherwise : callable, optional
        A function without arguments that computes the same state in plain PyTorch; used for large
        states that no compiled loop handles.
    spread : callable, optional
        If all layers share parameters: the function from the shared parameters to those of the
        layers.
    checkpoints : bool
        Whether to store only a few states, from which the backward pass recomputes the others.
    every : bool
        Whether to return the states after each of the N layers, (N, batch, ...).

    Returns
    -------
    Tensor
        The state, or the states if `every`.

    Raises
    ------
    RuntimeError
        In the backward pass, if weights, buffers or side inputs were edited; with checkpoints and
        without a compiled loop, likewise if the block was changed, for example by `eval()`.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.parallel.method import SERIAL_METHOD
    >>> from mgnet.depth.parallel.propagation_setup import detached
    >>> net, u = ODENet(torch.nn.Linear(2, 2), 8), torch.ones(1, 2)
    >>> layers = net.layers()
    >>> setup = PropagationSetup.of(net.kernel, detached(layers), SERIAL_METHOD)
    >>> torch.allclose(march(setup, u, layers.steps, layers.parameters), net(u))
    True
    """
    compiled = compiled_march(setup, u)
    large = u.numel() > SMALL and not checkpoints
    if isinstance(compiled, str) and otherwise is not None and large:
        return otherwise()
    if spread is not None and not takes_joint(setup, compiled, u):
        parameters, spread = spread(parameters), None
    if not setup.is_recorded(u, steps, parameters):
        u, steps, *parameters = [x.detach() for x in (u, steps, *parameters)]
    again = _again(checkpoints, every)
    if spread is not None or not isinstance(compiled, str):
        given = u, steps, parameters
        return march_compiled(setup, compiled, again, *given, spread, checkpoints, every)
    return _March.apply(setup, update, again, checkpoints, every, u, steps, *parameters)


def _again(checkpoints: bool, every: bool) -> Callable[..., Tensor]:
    """The march over layers of states and tangents, which are stacked on the first axis."""

    def again(*given: Any) -> Tensor:
        found = march(*given, update=False, checkpoints=checkpoints, every=every)
        return found.movedim(1, 0) if every else found

    return again


class _March(torch.autograd.Function):
    """Map (u_0, steps, stacked parameters) to u_N, or u_1 .. u_N if `every`."""

    @staticmethod
    def forward(
        ctx: Any,
        setup: PropagationSetup,
        update: bool,
        propagate: Any,
        checkpoints: bool,
        every: bool,
        u: Tensor,
        steps: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        layers, kernel, communicator = setup.fine, setup.kernel, setup.communicator
        update = update and setup.changes_buffers(u)
        recorded = any(ctx.needs_input_grad)
        kept = recorded and not checkpoints
        few = recorded and checkpoints
        ends = segment_ends(len(layers), KEPT, u.nbytes)[:-1] if few else ()
        now, tapes, states, changed = communicator.receive(u.detach(), False)[None], [], {}, []
        wanted = [now[:0]]
        for n in range(len(layers)):
            which = slice(n, n + 1)
            if n in ends:
                states[n] = now
            if kept or update:
                tape = kernel.record(layers[which], now)
                now = torch.addcmul(now, setup.scale(0, which, now), tape.value)
                if kept:
                    tapes.append(tape)
                if update:
                    changed.append((which, tape.new_buffers))
            else:
                now = setup.advance(0, which, now)
            if every:
                wanted.append(now)
        communicator.send(now[0], False)
        kernel.fixed.settle()
        ctx.buffers = Buffers(kernel, layers, changed)
        for which, new in changed:
            layers[which].update(new[: kernel.own_buffers])
        ctx.setup, ctx.tapes, ctx.cast = setup, tapes, same_cast(u.device.type)
        ctx.propagate, ctx.states, ctx.every = propagate, states, every
        ctx.save_for_backward(u, steps, *parameters)  # detects edits before backward
        if every:
            return of_all_layers(communicator, torch.cat(wanted))
        return communicator.broadcast_from_last(now[0], False).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        u, steps, *parameters = ctx.saved_tensors
        adjoint = partial(_adjoint, ctx)
        first = FirstOrder(
            ctx.setup, ctx.buffers, ctx.needs_input_grad[6], ctx.cast, adjoint, ctx.propagate
        )
        return None, None, None, None, None, *gradients(first, gradient, u, steps, parameters)


def _adjoint(ctx: Any, gradient: Tensor) -> Gradients:
    """The backward pass, given the gradient with respect to u_N or, if `every`, u_1 .. u_N."""
    setup: PropagationSetup = ctx.setup
    sources: Sequence[Tensor] | None = None
    if ctx.every:
        sources = setup.communicator.scatter_layers(gradient).split(1)
        gradient = torch.zeros_like(gradient[0])
    lam = setup.communicator.receive(gradient, True)[None]
    with ctx.cast():
        if ctx.states:
            lam, of_steps, of_parameters = _from_checkpoints(ctx, lam, sources)
        else:
            whole = setup.fine, 0, ctx.tapes
            lam, of_steps, of_parameters = _of_tapes(setup, *whole, lam, sources)
    setup.communicator.send(lam[0], True)
    setup.kernel.fixed.settle()
    return setup.communicator.broadcast_from_last(lam[0], True), of_steps, of_parameters


Found = tuple[Tensor, Tensor, Sequence[Tensor]]


def _from_checkpoints(ctx: Any, lam: Tensor, sources: Sequence[Tensor] | None) -> Found:
    """Segment by segment, recompute the tapes and then compute the adjoint."""
    setup: PropagationSetup = ctx.setup
    buffers = ctx.buffers.unchanged("began a backward pass from checkpoints")
    layers, kernel = setup.fine, setup.kernel
    if any(a is not b for a, b in zip(buffers, layers.buffers, strict=True)):  # updated later
        layers = replace(layers, buffers=buffers)
    of_steps = torch.empty_like(layers.steps)
    of_parameters = [torch.empty_like(x) for x in layers.parameters]
    firsts = [*ctx.states]
    for first, last in reversed([*pairwise([*firsts, len(layers)])]):
        now, tapes = ctx.states[first], []
        for n in range(first, last):
            which = slice(n, n + 1)
            tapes.append(kernel.record(layers[which], now))
            now = torch.addcmul(now, setup.scale(0, which, now), tapes[-1].value)
        part = layers[first:last]
        own = None if sources is None else sources[first:last]
        lam, of_steps[first:last], gradients = _of_tapes(setup, part, first, tapes, lam, own)
        for whole, gradient in zip(of_parameters, gradients, strict=True):
            whole[first:last] = gradient
    return lam, of_steps, of_parameters


def _of_tapes(
    setup: PropagationSetup,
    layers: Layers,
    first: int,
    tapes: Sequence[Tape],
    lam: Tensor,
    sources: Sequence[Tensor] | None,
) -> Found:
    """The adjoint of the layers to which these tapes belong, which start at layer `first`."""
    traced = [tape for tape in tapes if isinstance(tape, TracedTape)]
    apart = traced and len(traced) == len(tapes) and lam.numel() <= SMALL
    apart = apart and all(tape.linear for tape in traced)
    if apart:
        return _separately(setup, layers, first, traced, lam, sources)
    return _together(setup, layers, first, tapes, lam, sources)


def _separately(
    setup: PropagationSetup,
    layers: Layers,
    first: int,
    tapes: Sequence[TracedTape],
    lam: Tensor,
    sources: Sequence[Tensor] | None,
) -> Found:
    """Compute all adjoint states first, then the gradients of all parameters in one call."""
    lams = []
    for n in range(len(tapes) - 1, -1, -1):
        lam = lam if sources is None else lam + sources[n]
        lams.append(lam)
        scale = setup.scale(0, slice(first + n, first + n + 1), lam)
        lam = torch.addcmul(lam, scale, tapes[n].vjp(lam))
    whole, ends = joined(tapes, layers), torch.cat(lams[::-1])
    scale = setup.scale(0, slice(first, first + len(tapes)), ends)
    _, of_parameters, of_steps = whole.vjp_all(scale * ends)
    direct = (ends * whole.value).flatten(1).sum(1)
    return lam, direct if of_steps is None else direct + of_steps, of_parameters


def _together(
    setup: PropagationSetup,
    layers: Layers,
    first: int,
    tapes: Sequence[Tape],
    lam: Tensor,
    sources: Sequence[Tensor] | None,
) -> Found:
    """Compute adjoint states and parameter gradients layer by layer, with one call per layer."""
    of_parameters = [torch.empty_like(p) for p in layers.parameters]
    of_steps = torch.empty_like(layers.steps)
    for n in range(len(tapes) - 1, -1, -1):
        lam = lam if sources is None else lam + sources[n]
        scale = setup.scale(0, slice(first + n, first + n + 1), lam)
        d_state, d_parameters, d_step = tapes[n].vjp_all(scale * lam)
        for gradient, part in zip(of_parameters, d_parameters, strict=True):
            gradient[n] = part[0]
        of_steps[n] = (lam * tapes[n].value).sum() + (0.0 if d_step is None else d_step[0])
        lam = lam + d_state
    return lam, of_steps, of_parameters
