"""GRUs and LSTMs step by step in one compiled loop, with gradients.

PyTorch's own loop over time is fast in the forward pass, but its backward pass is an autograd graph
with about a dozen nodes per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import mkldnn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from mgnet import kernels
from mgnet.depth.batched.autocast import cast_of
from mgnet.depth.batched.lending import lending
from mgnet.depth.batched.tracing import trace_for_autograd
from mgnet.depth.compiled.graph_operations import code_of
from mgnet.depth.compiled.march import CompiledMarch
from mgnet.depth.parallel.transforms import transform_of
from mgnet.depth.recurrent.gru_steps import GRUSteps
from mgnet.depth.recurrent.implicit_gru import ImplicitGRUCell
from mgnet.depth.recurrent.lstm_steps import LSTMSteps
from mgnet.depth.recurrent.recurrence import Recurrence, is_known

__all__ = ["formula_states", "march_states", "march_together", "marches", "takes_formulas"]

# Sizes of a matrix and of the states of a step up to which the loop is faster than PyTorch's.
LARGEST, MOST = 2**14, 2**11


def gru_step(gates: Tensor, weight: Tensor, bias: Tensor | None, h: Tensor) -> Tensor:
    """The state after one step of a GRU; `gates` are the contributions of its input.

    Examples
    --------
    >>> cell, x, h = torch.nn.GRUCell(2, 3), torch.randn(5, 2), torch.randn(5, 3)
    >>> gates = F.linear(x, cell.weight_ih, cell.bias_ih)
    >>> torch.allclose(gru_step(gates, cell.weight_hh, cell.bias_hh, h), cell(x, h), atol=1e-6)
    True
    """
    width, inner = h.shape[-1], F.linear(h, weight, bias)
    both = torch.sigmoid(gates[:, : 2 * width] + inner[:, : 2 * width])
    candidate = torch.tanh(gates[:, 2 * width :] + both[:, :width] * inner[:, 2 * width :])
    return candidate + both[:, width:] * (h - candidate)


def lstm_step(gates: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> Tensor:
    """The state (h, c), concatenated, after one step of an LSTM.

    Examples
    --------
    >>> cell, x = torch.nn.LSTMCell(2, 3), torch.randn(5, 2)
    >>> h, c = torch.randn(2, 5, 3)
    >>> gates = F.linear(x, cell.weight_ih, cell.bias_ih)
    >>> new = lstm_step(gates, cell.weight_hh, cell.bias_hh, torch.cat([h, c], 1))
    >>> torch.allclose(new, torch.cat(cell(x, (h, c)), 1), atol=1e-6)
    True
    """
    h, c = state.chunk(2, -1)
    i, f, g, o = (gates + F.linear(h, weight, bias)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], -1)


STEPS: dict[Any, Callable[..., Tensor]] = {GRUSteps: gru_step, LSTMSteps: lstm_step}


def marches(recurrence: Recurrence, x: Tensor, batch: int) -> bool:
    """Whether the compiled loop supports a recurrence with such inputs, and is faster.

    Parameters
    ----------
    recurrence : Recurrence
        The recurrence.
    x : Tensor
        Inputs of any shape.
    batch : int
        Number of samples.

    Examples
    --------
    >>> from mgnet.depth.recurrent.recurrence import recurrence_of
    >>> recurrence = recurrence_of(torch.nn.GRUCell(2, 3), None, (3,))
    >>> marches(recurrence, torch.zeros(5, 1, 2).half(), 1)
    False
    """
    known = kernels.available and recurrence.steps in STEPS
    # For single precision, PyTorch has a oneDNN LSTM, whose backward pass is also compiled.
    if recurrence.steps is LSTMSteps and x.dtype == torch.float32 and mkldnn.is_available():
        return False
    known = known and batch * sum(recurrence.widths) <= MOST
    fits = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.numel() > 0
    if not known or not fits or cast_of("cpu") is not None:
        return False
    weights = [w for w in recurrence.weights if w is not None]
    return all(w.dtype == x.dtype and w.numel() <= LARGEST for w in weights)


def march_together(
    net: nn.Module, layers: Sequence[Sequence[Recurrence]], given: Any, h0: Any, batch: int
) -> bool:
    """Whether the compiled loop handles all layers of a call without a function transform.

    Parameters
    ----------
    net : Module
        The `TimeParallel` module.
    layers : sequence of sequence of Recurrence
        The recurrences of each layer.
    given : Tensor or PackedSequence
        The user's input.
    h0 : Tensor or tuple of Tensor, optional
        The user's initial state.
    batch : int
        Number of sequences.

    Examples
    --------
    >>> march_together(nn.Tanh(), [], torch.zeros(5, 1, 2), None, 1)
    True
    """
    x = given.data if isinstance(given, PackedSequence) else given
    if transform_of(net, x, {"h0": h0}):
        return False
    return all(marches(each, x, batch) for layer in layers for each in layer)


def takes_formulas(net: nn.Module, cell: Any, x: Tensor, h0: Any) -> bool:
    """Whether a function transform needs cell formulas instead of PyTorch's loops over time.

    Parameters
    ----------
    net : Module
        The `TimeParallel` module.
    cell : callable
        The cell of the module.
    x : Tensor
        The input.
    h0 : Tensor or tuple of Tensor, optional
        The initial state.

    Examples
    --------
    >>> cell = nn.GRUCell(2, 3)
    >>> takes_formulas(cell, cell, torch.zeros(5, 1, 2), None)
    False
    """
    if not is_known(cell) or isinstance(cell, ImplicitGRUCell) or not isinstance(x, Tensor):
        return False
    return transform_of(net, x, {"h0": h0}) in ("torch.func", "forward-mode differentiation")


def formula_states(recurrence: Recurrence, start: Tensor, inputs: Tensor) -> Tensor:
    """Like `march_states`, with operations for which `torch.func` has rules.

    Parameters
    ----------
    recurrence, start, inputs
        The arguments of `march_states`.

    Examples
    --------
    >>> from mgnet.depth.recurrent.recurrence import recurrence_of
    >>> cell, x = torch.nn.LSTMCell(2, 3), torch.randn(4, 1, 2)
    >>> recurrence = recurrence_of(cell, None, (3, 3))
    >>> formula_states(recurrence, torch.zeros(1, 6), recurrence.inputs(x)).shape
    torch.Size([5, 1, 6])
    """
    step: Any = STEPS[recurrence.steps]
    states = [start]
    for row in inputs:
        states.append(step(row, *recurrence.weights, states[-1]))
    return torch.stack(states)


def march_states(recurrence: Recurrence, start: Tensor, inputs: Tensor) -> Tensor:
    """Compute all states of a recurrence, shape (T + 1, batch, S).

    Parameters
    ----------
    recurrence : Recurrence
        A recurrence for which `marches` is true.
    start : Tensor of shape (batch, S)
        Initial states.
    inputs : Tensor of shape (T, batch, gates S)
        Inputs from `Recurrence.inputs`.

    Examples
    --------
    >>> from mgnet.depth.recurrent.recurrence import recurrence_of
    >>> cell, x = torch.nn.GRUCell(2, 3), torch.randn(4, 1, 2)
    >>> recurrence = recurrence_of(cell, None, (3,))
    >>> states = march_states(recurrence, torch.zeros(1, 3), recurrence.inputs(x))
    >>> torch.allclose(states[1], cell(x[0]), atol=1e-6)
    True
    """
    step: Any = STEPS[recurrence.steps]
    width, biased = sum(recurrence.widths), recurrence.weights[1] is not None
    with lending():  # tracing changes modules that other threads call
        march = _march(step, width, inputs.shape[-1], biased, inputs.dtype)
    weights = [w for w in recurrence.weights if w is not None]
    states = _States.apply(step, march, start, inputs, *weights)
    return torch.cat([start[None], states])


@lru_cache(maxsize=64)
def _march(
    step: Callable[..., Tensor], width: int, gates: int, biased: bool, dtype: torch.dtype
) -> CompiledMarch:
    """The loop for states with this number of features and any number of samples."""
    inner = width if step is gru_step else width // 2
    with torch.inference_mode(False):
        h, given = torch.zeros(2, width, dtype=dtype), torch.zeros(2, gates, dtype=dtype)
        weights = [torch.zeros(gates, inner, dtype=dtype)]
        weights += [torch.zeros(gates, dtype=dtype)] if biased else []
        ends = torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)

        def new(p: Any, buffers: Any, t: Any, s: Any, u: Tensor) -> tuple[Tensor, list[Tensor]]:
            return step(p[0], p[1], p[2] if biased else None, u), []

        inputs = [given, *weights, *ends, h]
        traced = trace_for_autograd(new, inputs, len(inputs) - 3)
    return CompiledMarch(code_of(traced, h), dtype, adds=False, of_all=True)


class _States(torch.autograd.Function):
    """Map (u_0, inputs, weights) to u_1 .. u_T."""

    @staticmethod
    def forward(
        ctx: Any, step: Any, march: CompiledMarch, start: Tensor, inputs: Tensor, *weights: Tensor
    ) -> Tensor:
        count = len(inputs)
        ends = inputs.new_zeros(1).expand(count), inputs.new_ones(1).expand(count)
        tensors = [inputs.detach(), *[w.detach()[None] for w in weights], *ends]
        marched = march.forward(tensors, start.detach(), record=True)
        ctx.step, ctx.marched = step, marched
        ctx.save_for_backward(start, inputs, *weights)
        return marched.states()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        given = ctx.saved_tensors
        batched = torch._C._functorch.is_legacy_batchedtensor(gradient)  # type: ignore[attr-defined]
        active = torch._C._are_functorch_transforms_active()
        if torch.is_grad_enabled() or batched or active:  # use autograd, step by step
            return None, None, *_again(ctx, gradient, *given)
        start, found = ctx.marched.adjoint(gradient)
        of_inputs, *rest = found[:-2]
        return None, None, start, of_inputs, *[None if g is None else g[0] for g in rest]


def _again(
    ctx: Any, gradient: Tensor, start: Tensor, inputs: Tensor, *weights: Tensor
) -> list[Tensor | None]:
    """The gradients with a graph, for higher derivatives."""
    needed, in_graph = ctx.needs_input_grad[2:], torch.is_grad_enabled()
    with torch.enable_grad():
        pairs = zip((start, inputs, *weights), needed, strict=True)
        given = [x.view_as(x) if in_graph else x.detach().requires_grad_(n) for x, n in pairs]
        state, states = given[0], []
        for row in given[1]:
            state = ctx.step(row, given[2], given[3] if len(given) > 3 else None, state)
            states.append(state)
        wanted = [x for x, need in zip(given, needed, strict=True) if need]
        found = iter(
            torch.autograd.grad(
                torch.stack(states), wanted, gradient, create_graph=in_graph, materialize_grads=True
            )
        )
    return [next(found) if need else None for need in needed]
