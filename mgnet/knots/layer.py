"""Torch operators for a KAN layer: differentiable to any order, at a cost independent of the grid.

The layer is linear in the coefficients U, in weights h of its inputs, and in the cotangent g, so
`T(x, h, U, g) = sum h[n, p] b_i(x[n, p]) U[p, i, q] g[n, q]` has derivatives of the same form, in
which b_i is replaced by its derivative if x varies. Two operators therefore suffice for derivatives
of every order: "spline_layer" (the sum without g) and "spline_adjoint" (the sums without U and
without x). They run in compiled loops on the CPU if numba is installed, in kernels on a GPU if
Triton is installed, and otherwise in plain torch.
"""
# pyright: reportAssignmentType=false
# (the rules are shared by two kinds of operators, which declare them differently)

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch.autograd import forward_ad

import mgnet.threads  # noqa: F401 (sees forks from now on, which the compiled loops ask for)
from mgnet.knots import products
from mgnet.knots.plain_operators import asks_for_plain_operators
from mgnet.knots.precision import HALF, in_full_precision, under_autocast
from mgnet.knots.spline import dense_basis

__all__ = ["compiled", "spline_layer", "weighted_layer"]

compiled: bool = find_spec("numba") is not None
has_triton: bool = find_spec("triton") is not None


def _kernels(x: torch.Tensor) -> Any:
    """The compiled loops, or the kernels of a GPU, if they support x."""
    if compiled and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        from mgnet.knots import kernels  # takes a second once

        return kernels
    if has_triton and x.is_cuda and x.dtype in (*HALF, torch.float32, torch.float64):
        from mgnet.knots import triton_kernels

        return triton_kernels if triton_kernels.runs_on(x.device) else None
    return None


_SPLINE = "int intervals, int degree, float start, float stop"


def _computed_layer(x, U, h, intervals, degree, start, stop, order):  # type: ignore[no-untyped-def]
    spline = intervals, degree, (start, stop)
    kernels = _kernels(x)
    if kernels is None:
        return products.layer(*products.local_values(x, *spline, order, h), U)
    return kernels.layer(x, U, h, intervals, spline[2], kernels.pieces(x, *spline, order))


def _computed_adjoint(x, U, g, h, intervals, degree, start, stop, for_x, for_U):  # type: ignore
    """The pull with derivatives of order `for_x`, the scatter with order `for_U`; -1 omits it."""
    spline = intervals, degree, (start, stop)
    kernels = _kernels(x)
    none = x.new_empty(0)
    if kernels is None:
        g = g.contiguous()  # the gradient of a sum is an expanded number, which is slow here
        v, V = none, none
        if for_x >= 0:
            v = products.pull(*products.local_values(x, *spline, for_x), U, g)
        if for_U >= 0:
            V = products.scatter(*products.local_values(x, *spline, for_U, h), g, U.shape[1])
        return v, V
    orders = for_x, for_U
    pieces = [None if order < 0 else kernels.pieces(x, *spline, order) for order in orders]
    return kernels.adjoint(x, U, g, h, intervals, spline[2], *pieces)


_layer_op = torch.library.custom_op(
    "mgnet::spline_layer",
    _computed_layer,
    mutates_args=(),
    schema=f"(Tensor x, Tensor U, Tensor? h, {_SPLINE}, int order) -> Tensor",
)
_adjoint_op = torch.library.custom_op(
    "mgnet::spline_adjoint",
    _computed_adjoint,
    mutates_args=(),
    schema=f"(Tensor x, Tensor U, Tensor g, Tensor? h, {_SPLINE}, int for_x, int for_U)"
    " -> (Tensor, Tensor)",
)


@_layer_op.register_fake
def _(x, U, h, intervals, degree, start, stop, order):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape[0], U.shape[2])


@_adjoint_op.register_fake
def _(x, U, g, h, intervals, degree, start, stop, for_x, for_U):  # type: ignore
    none = x.new_empty(0)
    return none if for_x < 0 else x.new_empty(x.shape), none if for_U < 0 else U.new_empty(U.shape)


def _reference(x, U, h, intervals, degree, start, stop, order):  # type: ignore[no-untyped-def]
    """The layer with all splines in torch's own operators, which support every transform."""
    if under_autocast(x):
        return in_full_precision(_reference, x, U, h, intervals, degree, start, stop, order)
    bases = dense_basis(x, intervals, degree, (start, stop), order)
    basis = bases[order] if h is None else bases[order] * h.unsqueeze(-1)
    return basis.flatten(-2) @ U.flatten(-3, -2)


def _reference_adjoint(x, U, g, h, intervals, degree, start, stop, for_x, for_U):  # type: ignore
    if under_autocast(x):
        numbers = intervals, degree, start, stop, for_x, for_U
        return in_full_precision(_reference_adjoint, x, U, g, h, *numbers)
    none = x.new_empty(0)
    bases = dense_basis(x, intervals, degree, (start, stop), max(for_x, for_U))
    v, V = none, none
    if for_x >= 0:
        v = ((g @ U.flatten(0, 1).T).unflatten(-1, U.shape[:2]) * bases[for_x]).sum(-1)
    if for_U >= 0:
        basis = bases[for_U] if h is None else bases[for_U] * h.unsqueeze(-1)
        V = (basis.flatten(-2).T @ g).unflatten(0, U.shape[:2])
    return v, V


def _vmap_layer(info: Any, dims: Any, x: Any, U: Any, h: Any, *numbers: Any) -> Any:
    if dims[1] is not None:
        rule = torch.vmap(_reference, (*dims[:3], *(None,) * 5))
        return rule(x, U, h, *numbers), 0
    x, h = (_stacked(info, value, dim) for value, dim in ((x, dims[0]), (h, dims[2])))
    return _layer(x, U, h, *numbers).unflatten(0, (info.batch_size, -1)), 0


def _vmap_adjoint(info: Any, dims: Any, x: Any, U: Any, g: Any, h: Any, *numbers: Any) -> Any:
    *_, for_x, for_U = numbers
    if dims[1] is not None or for_U >= 0:
        rule = torch.vmap(_reference_adjoint, (*dims[:4], *(None,) * 6))
        return rule(x, U, g, h, *numbers), (0, 0)
    x, g = (_stacked(info, value, dim) for value, dim in ((x, dims[0]), (g, dims[2])))
    v, none = _adjoint(x, U, g, None, *numbers)
    return (v.unflatten(0, (info.batch_size, -1)), none), (0, None)


def _stacked(info: Any, value: Any, dim: int | None) -> Any:
    """The samples of all members of a batch, one after another."""
    if value is None:
        return None
    value = value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
    return value.flatten(0, 1)


_layer_op.register_vmap(_vmap_layer)
_adjoint_op.register_vmap(_vmap_adjoint)


def _save_layer(ctx: Any, inputs: Any, output: Any) -> None:
    x, U, h, *ctx.numbers = inputs
    ctx.save_for_backward(x, U, h)


def _layer_backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:
    x, U, h = ctx.saved_tensors
    *spline, order = ctx.numbers
    need_x, need_U, need_h = ctx.needs_input_grad[:3]
    v, V = _adjoint(x, U, g, h, *spline, order + 1 if need_x else -1, order if need_U else -1)
    for_x = v if h is None or not need_x else v * h
    for_h = _adjoint(x, U, g, None, *spline, order, -1)[0] if need_h else None
    return (for_x if need_x else None, V if need_U else None, for_h, *(None,) * 5)


def _save_adjoint(ctx: Any, inputs: Any, output: Any) -> None:
    x, U, g, h, *ctx.numbers = inputs
    ctx.save_for_backward(x, U, g, h)
    ctx.set_materialize_grads(False)


def _adjoint_backward(
    ctx: Any, cv: torch.Tensor | None, cV: torch.Tensor | None
) -> tuple[Any, ...]:
    x, U, g, h = ctx.saved_tensors
    *spline, for_x, for_U = ctx.numbers
    need_x, need_U, need_g, need_h = ctx.needs_input_grad[:4]
    grads: list[list[torch.Tensor]] = [[], [], [], []]
    if cv is not None and for_x >= 0:
        orders = for_x + 1 if need_x else -1, for_x if need_U else -1
        v, V = _adjoint(x, U, g, cv, *spline, *orders)
        grads[0] += [v * cv] if need_x else []
        grads[1] += [V] if need_U else []
        grads[2] += [_layer(x, U, cv, *spline, for_x)] if need_g else []
    if cV is not None and for_U >= 0:
        if need_x:
            v, _ = _adjoint(x, cV, g, None, *spline, for_U + 1, -1)
            grads[0].append(v if h is None else v * h)
        grads[2] += [_layer(x, cV, h, *spline, for_U)] if need_g else []
        grads[3] += [_adjoint(x, cV, g, None, *spline, for_U, -1)[0]] if need_h else []
    return (*(sum(parts[1:], parts[0]) if parts else None for parts in grads), *(None,) * 6)


_layer_op.register_autograd(_layer_backward, setup_context=_save_layer)
_adjoint_op.register_autograd(_adjoint_backward, setup_context=_save_adjoint)


class _Layer(torch.autograd.Function):
    """The layer's derivative rules for `torch.func`, which ignores those of a custom operator."""

    forward = staticmethod(lambda *inputs: _layer_op(*inputs))
    setup_context = staticmethod(_save_layer)
    backward = staticmethod(_layer_backward)
    vmap = staticmethod(_vmap_layer)


class _Adjoint(torch.autograd.Function):
    """The adjoint's derivative rules for `torch.func`."""

    forward = staticmethod(lambda *inputs: _adjoint_op(*inputs))
    setup_context = staticmethod(_save_adjoint)
    backward = staticmethod(_adjoint_backward)
    vmap = staticmethod(_vmap_adjoint)


class _PlainLayer(torch.autograd.Function):
    """The layer without a custom operator, whose dispatch would cost as much as a small layer."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        _save_layer(ctx, inputs, None)
        return _computed_layer(*inputs)

    backward = staticmethod(_layer_backward)


class _PlainAdjoint(torch.autograd.Function):
    """The adjoint without a custom operator."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        _save_adjoint(ctx, inputs, None)
        return _computed_adjoint(*inputs)

    backward = staticmethod(_adjoint_backward)


def _transformed() -> bool:
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _plain(*inputs: Any) -> bool:
    """Whether the operator may be bypassed: no compiler, tracer, mode or subclass depends on it."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._len_torch_dispatch_stack():
        return False
    own = torch.Tensor, torch.nn.Parameter
    return all(type(x) in own for x in inputs if x is not None) and _kernels(inputs[0]) is not None


def _layer(*inputs: Any) -> torch.Tensor:
    if _transformed():
        return _Layer.apply(*inputs)
    return _PlainLayer.apply(*inputs) if _plain(*inputs[:3]) else _layer_op(*inputs)


def _adjoint(*inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    if _transformed():
        return _Adjoint.apply(*inputs)
    return _PlainAdjoint.apply(*inputs) if _plain(*inputs[:4]) else _adjoint_op(*inputs)


def spline_layer(
    x: torch.Tensor,
    coefficients: torch.Tensor,
    intervals: int,
    degree: int,
    domain: tuple[float, float],
) -> torch.Tensor:
    """Evaluate one KAN layer: `sum_p sum_i coefficients[p, i, q] b_i(x_p)`.

    Only the degree + 1 splines that are nonzero at x_p are evaluated, so the cost does not grow
    with the number of intervals, and only inputs and coefficients are stored for the backward pass.
    The layer can be differentiated to any order. It works under `torch.compile(fullgraph=True)`,
    `vmap`, the transforms of `torch.func`, `torch.export` and, with all splines evaluated,
    `torch.onnx.export` and `plain_operators`. Under `torch.autocast`, it computes in float32 or
    better.

    Parameters
    ----------
    x : tensor of shape (..., inputs)
        The inputs.
    coefficients : tensor of shape (inputs, intervals + degree, outputs)
        The coefficients of all splines.
    intervals, degree : int
        Number of intervals, and degree of the splines.
    domain : (float, float)
        The interval of all splines.

    Returns
    -------
    tensor of shape (..., outputs)
        The outputs.

    Raises
    ------
    ValueError
        If the shapes do not match.
    TypeError
        If x and the coefficients have different precisions.

    Examples
    --------
    >>> hat = torch.tensor([[[0.0], [1.0], [0.0]]])
    >>> spline_layer(torch.tensor([[0.25]]), hat, 2, 1, (0.0, 1.0)).tolist()
    [[0.5]]
    """
    if under_autocast(x):
        return in_full_precision(spline_layer, x, coefficients, intervals, degree, domain)
    inputs, splines, _ = coefficients.shape
    if x.shape[-1] != inputs or splines != intervals + degree:
        raise ValueError(
            f"spline_layer got x of shape {tuple(x.shape)} and coefficients of shape "
            f"{tuple(coefficients.shape)} for {intervals} intervals of degree {degree}; it needs "
            "(..., inputs) and (inputs, intervals + degree, outputs)"
        )
    if x.dtype != coefficients.dtype:
        raise TypeError(
            f"spline_layer got x of {x.dtype} and coefficients of {coefficients.dtype}; "
            f"convert one of them, as with x.to({coefficients.dtype})"
        )
    flat = x.reshape(-1, inputs)
    # Custom operators have no forward mode, but the reference has one.
    plain = forward_ad._current_level >= 0 or asks_for_plain_operators()
    layer = _reference if plain else _layer
    y = layer(flat, coefficients, None, intervals, degree, *domain, 0)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[-1])


def weighted_layer(
    x: torch.Tensor,
    coefficients: torch.Tensor,
    weights: torch.Tensor | None,
    intervals: int,
    degree: int,
    domain: tuple[float, float],
    order: int,
) -> torch.Tensor:
    """Compute `sum_p weights[p] sum_i coefficients[p, i, q] b_i^(order)(x_p)` for 2-dimensional x.

    Examples
    --------
    >>> hat = torch.tensor([[[0.0], [1.0], [0.0]]])
    >>> x, two = torch.tensor([[0.25]]), torch.tensor([[2.0]])
    >>> weighted_layer(x, hat, two, 2, 1, (0.0, 1.0), 1).tolist()
    [[4.0]]
    """
    if under_autocast(x):
        return in_full_precision(
            weighted_layer, x, coefficients, weights, intervals, degree, domain, order
        )
    layer = _reference if asks_for_plain_operators() else _layer
    return layer(x, coefficients, weights, intervals, degree, *domain, order)
