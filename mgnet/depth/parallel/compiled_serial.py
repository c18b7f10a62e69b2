"""Serial propagation in one compiled loop, for blocks whose operations are supported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from mgnet.depth.compiled.checkpoints import CheckpointedLayers
from mgnet.depth.compiled.graph_operations import code_of
from mgnet.depth.compiled.layer_code import UnknownOperationError
from mgnet.depth.compiled.march import CompiledMarch, MarchedLayers
from mgnet.depth.mgrit.communicator import Communicator, SerialCommunicator
from mgnet.depth.parallel.propagation_setup import PropagationSetup
from mgnet.depth.parallel.second_order import Buffers, FirstOrder, Gradients, gradients
from mgnet.depth.parallel.turns import of_all_layers

__all__ = ["compiled_march", "march_compiled", "takes_joint"]

# Size of a matrix from which PyTorch's products are faster.
LARGEST = 2**16
SHAPES = 64  # number of state shapes for which loops are kept
KNOWN = (
    nn.Linear, nn.LayerNorm, nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Tanh,
    nn.Sigmoid, nn.ReLU, nn.SiLU, nn.GELU, nn.Softplus, nn.ELU, nn.LeakyReLU, nn.ParameterList,
    nn.ParameterDict, nn.Dropout,
)  # fmt: skip
# Modules that treat all samples alike, for any batch size.
PLAIN = set(KNOWN) - {nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict, nn.Dropout}
HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def compiled_march(setup: PropagationSetup, u: Tensor) -> CompiledMarch | str:
    """Return the compiled loops of the layers for states like u, or why there are none.

    Parameters
    ----------
    setup : PropagationSetup
        The layers and the method.
    u : Tensor of shape (batch, ..., features)
        A state before the layers.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.parallel.method import SERIAL_METHOD
    >>> from mgnet.depth.parallel.propagation_setup import detached
    >>> net = ODENet(nn.Conv1d(2, 2, 1), 4)
    >>> setup = PropagationSetup.of(net.kernel, detached(net.layers()), SERIAL_METHOD)
    >>> compiled_march(setup, torch.ones(5, 2, 3))
    'Conv1d is not among the supported modules'
    """
    key = tuple(u.shape), u.dtype, u.device, cast_of(u.device.type)
    found = setup.compiled.get(key)
    if found is None:
        if len(setup.compiled) >= SHAPES:
            setup.compiled.clear()
        found = setup.compiled[key] = _found(setup, u)
    return found


def takes_joint(setup: PropagationSetup, compiled: CompiledMarch | str, u: Tensor) -> bool:
    """Whether the loops on all processes accept weights that all layers share as one tensor.

    Parameters
    ----------
    setup : PropagationSetup
        The layers, which have shared weights.
    compiled : CompiledMarch or str
        The result of `compiled_march`.
    u : Tensor of shape (batch, ..., features)
        A state before the layers.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> from mgnet.depth.parallel.method import SERIAL_METHOD
    >>> from mgnet.depth.parallel.propagation_setup import detached
    >>> net, u = ODENet(nn.Linear(2, 2), 8, weights="shared"), torch.ones(5, 2)
    >>> setup = PropagationSetup.of(net.kernel, detached(net.layers()), SERIAL_METHOD)
    >>> takes_joint(setup, compiled_march(setup, u), u)
    True
    """
    key = "joint", tuple(u.shape), u.dtype, u.device, cast_of(u.device.type)
    found = setup.compiled.get(key)
    if found is None:
        layers = setup.fine
        own = isinstance(compiled, CompiledMarch) and compiled.prepared.keeps_apart(
            len(layers.parameters)
        )
        if not isinstance(setup.communicator, SerialCommunicator):
            # A process without layers makes the same choice as the other processes.
            each = setup.communicator.gather(torch.full((1, min(len(layers), 1)), own))
            own = bool(each.all())
        found = setup.compiled[key] = own
    return found


def _found(setup: PropagationSetup, u: Tensor) -> CompiledMarch | str:
    reason = _refusal(setup, u)
    if reason:
        return reason
    kernel, layers = setup.kernel, setup.fine
    if u.dim() > 1 and all(_is_plain(part) for part in kernel.template.modules()):
        shapes = tuple([x.shape[1:] for x in layers.tensors()]), u.shape[1:]
        key = "march of modules", kernel.fingerprint(layers), shapes, u.dtype
        return kernel.variant(key, partial(_made, setup, u.detach()))  # one for all batch sizes
    states = u.detach()[None]
    trace, _ = kernel._traced(layers, states)
    if trace.one is None or trace.one.hidden or trace.one.changed:
        return "the block cannot be traced, has custom derivatives, or changes its buffers"
    key = "march", trace.name, tuple(u.shape), u.dtype  # the graph may contain sizes
    return kernel.variant(key, partial(_made, setup, u.detach()))


def _is_plain(part: nn.Module) -> bool:
    """Whether a module runs only PyTorch's own code."""
    hooked = any(getattr(part, name, None) for name in HOOKS) or "forward" in part.__dict__
    return type(part) in PLAIN and not hooked


def _refusal(setup: PropagationSetup, u: Tensor) -> str:
    kernel, layers = setup.kernel, setup.fine
    if not kernels.available:
        return "numba is not installed"
    if type(kernel) not in (StackedBlock, SideBlock) or not kernel.traced:
        return "the block is not traced"
    alone = isinstance(setup.communicator, SerialCommunicator)
    # In a march, ranks must agree about buffers; in cycles each may use the loops or not.
    asks = kernel.has_state and not alone and not setup.method.factors
    if not len(layers) or asks:
        return "other processes hold layers, which have buffers"
    if u.device.type != "cpu" or u.dtype not in (torch.float32, torch.float64) or not u.numel():
        return f"states are {u.dtype} of shape {tuple(u.shape)} on {u.device}"
    if cast_of("cpu") is not None or any(
        x.is_complex() or (x.is_floating_point() and x.dtype != u.dtype) for x in layers.tensors()
    ):
        return "tensors are of several precisions"
    for part in kernel.template.modules():
        if type(part).__module__.startswith("torch.nn.") and not isinstance(part, KNOWN):
            return f"{type(part).__name__} is not among the supported modules"
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
            return "the block creates tensors of its own"
        compiled = CompiledMarch(code_of(traced, u), u.dtype)
    except UnknownOperationError as error:
        return f"the block has {error}"
    if not _agrees(setup, compiled, u):
        return "the block has derivatives that differ from those of its operations"
    return compiled


def _agrees(setup: PropagationSetup, compiled: CompiledMarch, u: Tensor) -> bool:
    """Whether a layer and its derivatives agree with the trace and autograd at random states.

    The code is generated from a graph without autograd, which does not show tensor hooks, `detach`
    and branches on `requires_grad`.
    """
    generator, kernel = torch.Generator("cpu").manual_seed(0), setup.kernel
    counted = kernel.evaluations, kernel.vjps
    with torch.inference_mode(False), torch.no_grad():
        state, lam = torch.randn(2, 1, *u.shape, dtype=u.dtype, generator=generator, device="cpu")
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
    compiled: CompiledMarch | str,
    propagate: Any,
    u: Tensor,
    steps: Tensor,
    parameters: Sequence[Tensor],
    spread: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None,
    checkpoints: bool = False,
    every: bool = False,
) -> Tensor:
    """Compute the state after all layers from the state before them; arguments as in `march`.

    Parameters
    ----------
    setup : PropagationSetup
        The layers and the method.
    compiled : CompiledMarch
        The compiled loops. If `takes_joint`, a process without layers may pass the text of a reason
        instead.
    propagate : callable
        The function `propagate` of `FirstOrder`.
    u, steps, parameters, spread, checkpoints, every
        The arguments of `march`.

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
    if every and isinstance(compiled, CompiledMarch):
        key = "of all states", compiled
        compiled = setup.kernel.variant(key, partial(_of_all, compiled))
    ways = spread, checkpoints, every
    return _Compiled.apply(setup, compiled, propagate, ways, u, steps, *parameters)


def _of_all(compiled: CompiledMarch) -> CompiledMarch:
    return CompiledMarch(compiled.code, compiled.dtype, of_all=True)


class _Compiled(torch.autograd.Function):
    """Map (u_0, steps, stacked or shared parameters) to u_N, or u_1 .. u_N if `every`."""

    @staticmethod
    def forward(
        ctx: Any,
        setup: PropagationSetup,
        compiled: CompiledMarch | str,
        propagate: Any,
        ways: Any,
        u: Tensor,
        steps: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        kernel, layers = setup.kernel, setup.fine
        kernel.evaluations += kernel.stages * len(layers)
        record, marched = any(ctx.needs_input_grad), None
        spread, checkpoints, every = ways
        tensors = [*parameters, *layers.buffers, layers.times, steps]
        communicator = setup.communicator
        last = communicator.receive(u.detach(), False)
        states = last.new_empty(0, *last.shape)
        if isinstance(compiled, CompiledMarch):
            needed = ctx.needs_input_grad[5:]
            rest = [False] * (len(layers.buffers) + 1)
            wanted = [*needed[1:], *rest, needed[0]]
            detached, joint = [x.detach() for x in tensors], spread is not None
            if record and checkpoints:
                marched = CheckpointedLayers(compiled, detached, last, joint, wanted)
            else:
                marched = compiled.forward(detached, last, record or every, joint, wanted)
                states = marched.states() if every else states
            last = marched.last()
        communicator.send(last, False)
        if record:
            ctx.setup, ctx.marched, ctx.propagate, ctx.ways = setup, marched, propagate, ways
            ctx.buffers, ctx.cast = Buffers(kernel, layers), same_cast("cpu")
            ctx.save_for_backward(u, steps, *parameters)  # detects edits before backward
        if every:
            return of_all_layers(communicator, states)
        return communicator.broadcast_from_last(last, False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        u, steps, *parameters = ctx.saved_tensors
        setup, (spread, checkpoints, every) = ctx.setup, ctx.ways

        def adjoint(gradient: Tensor) -> Gradients:
            work = setup.kernel.stages * len(setup.fine)
            setup.kernel.vjps += work
            setup.kernel.evaluations += work if checkpoints else 0
            communicator = setup.communicator
            start, found = _adjoint(communicator, ctx.marched, gradient, spread is not None, every)
            found = found or [torch.zeros_like(x) for x in (*parameters, steps)]
            start = communicator.broadcast_from_last(start, True)
            of_parameters = [
                torch.zeros_like(x) if g is None else g
                for x, g in zip(parameters, found, strict=False)
            ]
            if spread is not None:  # these are the sums over all layers
                of_parameters = [communicator.broadcast_from_last(x, True) for x in of_parameters]
            return start, found[-1], of_parameters

        first = FirstOrder(
            setup, ctx.buffers, ctx.needs_input_grad[5], ctx.cast, adjoint, ctx.propagate, spread
        )
        return None, None, None, None, *gradients(first, gradient, u, steps, parameters)


def _adjoint(
    communicator: Communicator,
    marched: MarchedLayers | CheckpointedLayers | None,
    gradient: Tensor,
    joint: bool,
    every: bool,
) -> tuple[Tensor, list[Any]]:
    """Gradients with respect to the first state and the tensors of this process's layers.

    The gradients of shared weights are summed over all layers here. Each process adds to the sums
    and passes them on, so their bits do not depend on the number of processes.
    """
    given = communicator.scatter_layers(gradient) if every else None
    gradient = gradient if given is None else torch.zeros_like(gradient[0])
    if marched is None:
        return gradient, []
    count, before = gradient.numel(), marched.before()
    sent = torch.cat([gradient.reshape(-1), before.reshape(-1)]) if joint else gradient
    got = communicator.receive(sent, True).reshape(-1)
    lam, before = got[:count].view(gradient.shape), got[count:].view(before.shape)
    if given is not None:
        lam = torch.cat([given[:-1], given[-1:] + lam])
    start, before, found = marched.returned(lam, before)
    communicator.send(torch.cat([start.reshape(-1), before.reshape(-1)]) if joint else start, True)
    return start, found
