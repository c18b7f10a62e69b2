"""Serial propagation in one compiled loop, where the block has operations that it knows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mgnet import kernels
from mgnet.depth.batched.autocast import cast_of, same_cast
from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.side_inputs import SideBlock
from mgnet.depth.batched.tracing import trace_for_autograd
from mgnet.depth.compiled.graph_operations import code_of
from mgnet.depth.compiled.layer_code import UnknownOperationError
from mgnet.depth.compiled.march import CompiledMarch
from mgnet.depth.mgrit.communicator import SerialCommunicator
from mgnet.depth.parallel.propagation_setup import PropagationSetup
from mgnet.depth.parallel.second_order import Buffers, FirstOrder, Gradients, gradients
from mgnet.depth.parallel.turns import of_all_layers

__all__ = ["compiled_march", "march_compiled"]

# Numbers in a matrix from which PyTorch's products win.
LARGEST = 2**16
SHAPES = 64  # of states, whose loops are kept
KNOWN = (
    nn.Linear, nn.LayerNorm, nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Tanh,
    nn.Sigmoid, nn.ReLU, nn.SiLU, nn.GELU, nn.Softplus, nn.ELU, nn.LeakyReLU, nn.ParameterList,
    nn.ParameterDict, nn.Dropout,
)  # fmt: skip


def compiled_march(setup: PropagationSetup, u: Tensor) -> CompiledMarch | str:
    """The compiled loops of the layers for states like u, or why there are none.

    Parameters
    ----------
    setup : PropagationSetup
    u : Tensor of shape (batch, ..., features)

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.parallel.method import SERIAL_METHOD
    >>> from mgnet.depth.parallel.propagation_setup import detached
    >>> net = ODENet(nn.Conv1d(2, 2, 1), 4)
    >>> setup = PropagationSetup.of(net.kernel, detached(net.layers()), SERIAL_METHOD)
    >>> compiled_march(setup, torch.ones(5, 2, 3))
    'Conv1d is not among the modules that they know'
    """
    key = tuple(u.shape), u.dtype, u.device, cast_of(u.device.type)
    found = setup.compiled.get(key)
    if found is None:
        if len(setup.compiled) >= SHAPES:
            setup.compiled.clear()
        found = setup.compiled[key] = _found(setup, u)
    return found


def _found(setup: PropagationSetup, u: Tensor) -> CompiledMarch | str:
    reason = _refusal(setup, u)
    if reason:
        return reason
    kernel, layers = setup.kernel, setup.fine
    states = u.detach()[None]
    trace, _ = kernel._traced(layers, states)
    if trace.one is None or trace.one.hidden or trace.one.changed:
        return "the block cannot be traced, has derivatives of its own, or changes its buffers"
    key = "march", trace.name, tuple(u.shape), u.dtype  # sizes may be among its numbers
    return kernel.variant(key, partial(_made, setup, u.detach()))


def _refusal(setup: PropagationSetup, u: Tensor) -> str:
    kernel, layers = setup.kernel, setup.fine
    if not kernels.available:
        return "numba is not installed"
    if type(kernel) not in (StackedBlock, SideBlock) or not kernel.traced:
        return "the block is not traced"
    alone = isinstance(setup.communicator, SerialCommunicator)
    if not len(layers) or (kernel.has_state and not alone):  # ranks ask each other about buffers
        return "other processes hold layers, which have buffers"
    if u.device.type != "cpu" or u.dtype not in (torch.float32, torch.float64) or not u.numel():
        return f"states are {u.dtype} of shape {tuple(u.shape)} on {u.device}"
    if cast_of("cpu") is not None or any(
        x.is_complex() or (x.is_floating_point() and x.dtype != u.dtype) for x in layers.tensors()
    ):
        return "tensors are of several precisions"
    for part in kernel.template.modules():
        if type(part).__module__.startswith("torch.nn.") and not isinstance(part, KNOWN):
            return f"{type(part).__name__} is not among the modules that they know"
    if any(x[0].numel() > LARGEST for x in layers.tensors()):
        return "layers are so wide that PyTorch's products are as fast"
    return ""


def _made(setup: PropagationSetup, u: Tensor) -> CompiledMarch | str:
    request = setup.kernel._request(setup.fine, u[None])
    try:
        with torch.inference_mode(False):
            one = [x[0] for x in request.inputs()]
            traced = trace_for_autograd(request.slope, one, request.parameters)
        if traced.constants:
            return "the block makes tensors of its own"
        compiled = CompiledMarch(code_of(traced, u), u.dtype)
    except UnknownOperationError as error:
        return f"the block has {error}"
    if not _agrees(setup, compiled, u):
        return "the block has derivatives that are not those of its operations"
    return compiled


def _agrees(setup: PropagationSetup, compiled: CompiledMarch, u: Tensor) -> bool:
    """Whether one layer and its derivatives are those of the trace with autograd, at random states.

    The code is read off a graph without autograd, in which hooks of tensors, `detach` and branches
    by `requires_grad` leave no mark.
    """
    generator, kernel = torch.Generator().manual_seed(0), setup.kernel
    counted = kernel.evaluations, kernel.vjps
    with torch.inference_mode(False), torch.no_grad():
        state, lam = torch.randn(2, 1, *u.shape, dtype=u.dtype, generator=generator)
        tensors = [x[:1].detach().clone() for x in setup.fine.tensors()]
        count = len(setup.fine.parameters)
        buffers = tuple(tensors[count:-2])
        layer = Layers(tuple(tensors[:count]), buffers, tensors[-2], tensors[-1])
        tape, step = kernel.record(layer, state), tensors[-1]
        of_state, of_parameters, of_step = tape.vjp_all(step * lam)
        kernel.evaluations, kernel.vjps = counted
        marched = compiled.forward(tensors, state[0], record=True)
        start, found = marched.adjoint(lam[0])
        direct = (lam * tape.value).sum() + (0.0 if of_step is None else of_step.sum())
        pairs = [(marched.last(), (state + step * tape.value)[0]), (start, (lam + of_state)[0])]
        pairs += [
            (torch.zeros_like(b) if a is None else a, b)
            for a, b in zip(found, of_parameters, strict=False)
        ]
        pairs.append((found[-1].sum(), direct))
    return all(_are_close(a, b) for a, b in pairs)


def _are_close(a: Tensor, b: Tensor) -> bool:
    if not b.numel():
        return True
    allowed = 0.1 * torch.finfo(b.dtype).eps ** 0.5 * (1.0 + float(b.abs().max()))
    return float((a - b).abs().nan_to_num(nan=torch.inf).max()) < allowed


def march_compiled(
    setup: PropagationSetup,
    compiled: CompiledMarch,
    propagate: Any,
    u: Tensor,
    steps: Tensor,
    parameters: Sequence[Tensor],
    every: bool = False,
) -> Tensor:
    """The state after all layers from the one before them; arguments as in `march`.

    Parameters
    ----------
    setup : PropagationSetup
    compiled : CompiledMarch
    propagate : callable
        As in `FirstOrder`.
    u, steps, parameters, every : as in `march`

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.parallel.method import SERIAL_METHOD
    >>> from mgnet.depth.parallel.propagation_setup import detached
    >>> from mgnet.depth.parallel.serial import march
    >>> net, u = ODENet(torch.nn.Linear(2, 2), 8), torch.ones(1, 2)
    >>> layers = net.layers()
    >>> setup = PropagationSetup.of(net.kernel, detached(layers), SERIAL_METHOD)
    >>> compiled = compiled_march(setup, u)
    >>> out = march_compiled(setup, compiled, march, u, layers.steps, layers.parameters)
    >>> torch.allclose(out, net(u))
    True
    """
    if every:
        key = "of all states", compiled
        compiled = setup.kernel.variant(key, partial(_of_all, compiled))
    return _Compiled.apply(setup, compiled, propagate, u, steps, *parameters)


def _of_all(compiled: CompiledMarch) -> CompiledMarch:
    return CompiledMarch(compiled.code, compiled.dtype, of_all=True)


class _Compiled(torch.autograd.Function):
    """(u_0, steps, stacked parameters) -> u_N, or u_1 .. u_N of loops with `of_all`."""

    @staticmethod
    def forward(
        ctx: Any,
        setup: PropagationSetup,
        compiled: CompiledMarch,
        propagate: Any,
        u: Tensor,
        steps: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        kernel, layers = setup.kernel, setup.fine
        kernel.evaluations += kernel.stages * len(layers)
        record = any(ctx.needs_input_grad)
        tensors = [*parameters, *layers.buffers, layers.times, steps]
        communicator = setup.communicator
        start = communicator.receive(u.detach(), False)
        marched = compiled.forward([x.detach() for x in tensors], start, record or compiled.of_all)
        last = marched.last()
        communicator.send(last, False)
        if record:
            ctx.setup, ctx.marched, ctx.propagate = setup, marched, propagate
            ctx.buffers, ctx.cast = Buffers(kernel, layers), same_cast("cpu")
            ctx.save_for_backward(u, steps, *parameters)  # tells if one is edited before backward
        if compiled.of_all:
            return of_all_layers(communicator, marched.states())
        return communicator.broadcast_from_last(last, False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        u, steps, *parameters = ctx.saved_tensors
        marched, setup, count = ctx.marched, ctx.setup, len(parameters)

        def adjoint(gradient: Tensor) -> Gradients:
            setup.kernel.vjps += setup.kernel.stages * len(setup.fine)
            communicator = setup.communicator
            if marched.march.of_all:
                gradient = communicator.scatter_layers(gradient)
                end = communicator.receive(torch.zeros_like(gradient[-1]), True)
                gradient = torch.cat([gradient[:-1], gradient[-1:] + end])
            else:
                gradient = communicator.receive(gradient, True)
            start, found = marched.adjoint(gradient)
            communicator.send(start, True)
            start = communicator.broadcast_from_last(start, True)
            of_parameters = [
                torch.zeros_like(x) if g is None else g
                for x, g in zip(parameters, found[:count], strict=True)
            ]
            return start, found[-1], of_parameters

        first = FirstOrder(
            setup, ctx.buffers, ctx.needs_input_grad[4], ctx.cast, adjoint, ctx.propagate
        )
        return None, None, None, *gradients(first, gradient, u, steps, parameters)
