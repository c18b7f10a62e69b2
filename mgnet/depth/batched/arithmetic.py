"""Operations whose rounding does not depend on how many layers are computed at once.

PyTorch evaluates most functions with a vectorized loop, and the last elements of an array, which
are too few to fill a vector, with a different loop. For some functions the two loops round
differently, and the size of the array determines which loop handles an element. Batch norm has no
rule for `vmap`. In traced layers, `TABLE` replaces all of these operations by compositions of
`exp`, `expm1`, `log1p`, `erf`, `tanh`, sums along an axis, and matrix products, whose rounding is
the same at every position. The exception is powers with fractional exponents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions

__all__ = ["EDITS", "TABLE"]

aten = torch.ops.aten


def _sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def _variance(
    x: Tensor,
    dim: Sequence[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> Tensor:
    return _variance_and_mean(x, dim, correction=correction, keepdim=keepdim)[0]


def _variance_and_mean(
    x: Tensor,
    dim: Sequence[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    axes = list(range(x.dim())) if not dim else list(dim)
    mean = x.mean(axes, True)
    square = (x - mean) * (x - mean)
    count = x.numel() // max(mean.numel(), 1)
    divisor = max(count - (1 if correction is None else correction), 0)
    variance = square.sum(axes, keepdim) / divisor
    return variance, mean if keepdim else mean.reshape(variance.shape)


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    count: int,
    channels: int,
    inner: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute group norm by layer norm, whose `vmap` rule does not fix the number of samples."""
    wide = x if weight is None else x.to(weight.dtype)
    rows = wide.reshape(count, groups, channels // groups * inner)
    out, mean, rstd = aten.native_layer_norm(rows, rows.shape[2:], None, None, eps)
    out = out.view(count, channels, inner)
    if weight is not None:
        out = out * weight[:, None]
    if bias is not None:
        out = out + bias[:, None]
    return out.view(x.shape).to(x.dtype), mean.squeeze(2), rstd.squeeze(2)


def _group_norm_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    count: int,
    channels: int,
    inner: int,
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    shape, rows = (count, channels, inner), (count, groups, channels // groups * inner)
    lam = grad.to(rstd.dtype).reshape(shape)
    wide = x.to(rstd.dtype).reshape(rows)
    mean, rstd = mean[:, :, None], rstd[:, :, None]
    of_x = of_weight = None
    if wanted[0]:
        scaled = (lam if weight is None else lam * weight[:, None]).reshape(rows)
        only_x = [True, False, False]
        of_x = aten.native_layer_norm_backward(
            scaled, wide, rows[2:], mean, rstd, None, None, only_x
        )[0]
        of_x = of_x.view(x.shape).to(x.dtype)
    if wanted[1]:
        of_weight = (lam * ((wide - mean) * rstd).view(shape)).sum((0, 2))
    return of_x, of_weight, lam.sum((0, 2)) if wanted[2] else None


def _if_mixed(name: str, weight: int) -> dict[Any, Any]:
    """Decompose the backward pass of a norm if the input and the weight have different types.

    This happens under autocast. PyTorch's rules for `vmap` then return wrong types; for equal
    types, they are used unchanged.
    """
    operation = getattr(aten, name).default
    apart = get_decompositions([operation])[operation]

    def backward(*args: Any) -> Any:
        wide, x = args[weight], args[1]
        if wide is None or wide.dtype == x.dtype:
            return NotImplemented
        wider = [a.to(wide.dtype) if isinstance(a, Tensor) else a for a in args]
        of_x, *rest = apart(*wider)
        return None if of_x is None else of_x.to(x.dtype), *rest

    return {operation: backward}


# Largest number of elements that PyTorch's vectorized loops process in one step.
AT_ONCE = 64


def _unless_rows_are_whole(*names: str) -> dict[Any, Any]:
    """Decompose functions unless every row fills whole vectors, so that no elements are left over.

    Without decomposition, the functions take a third of the time or less, and store one tensor for
    the backward pass. They are also decomposed if a size is symbolic in the trace, because it
    may have any value.
    """

    def made(name: str) -> tuple[Any, Any]:
        operation = getattr(aten, name).default
        apart = get_decompositions([operation])[operation]

        def function(x: Tensor, *rest: Any, approximate: str | None = None) -> Any:
            row = x.shape[-1] if x.dim() else 1
            if type(row) is int and row % AT_ONCE == 0:
                return NotImplemented
            return apart(x, *rest, **({} if approximate is None else {"approximate": approximate}))

        return operation, function

    return dict(map(made, names))


# The rule of `vmap` for `select_scatter` writes each number many times, and its derivative sums
# all of them.
EDITS: dict[Any, Any] = {
    **get_decompositions([aten.select_scatter, aten.slice_scatter]),
    aten.copy.default: lambda to, x, _=False: x.to(to.device, to.dtype).expand(to.shape),
}

TABLE: dict[Any, Any] = {
    **EDITS,
    **get_decompositions(
        [
            getattr(aten, name)
            for name in (
                "_batch_norm_with_update_functional _log_softmax _log_softmax_backward_data "
                "_native_batch_norm_legit _native_batch_norm_legit_functional _softmax "
                "_softmax_backward_data batch_norm_backward celu elu elu_backward "
                "log_sigmoid_backward log_sigmoid_forward mish mish_backward native_batch_norm "
                "native_batch_norm_backward selu softplus softplus_backward"
            ).split()
        ]
    ),
    **_if_mixed("native_layer_norm_backward", 5),
    **_unless_rows_are_whole("gelu", "gelu_backward", "silu", "silu_backward"),
    aten.fill.Scalar: torch.full_like,  # `vmap` has a rule for this function
    aten.native_group_norm.default: _group_norm,
    aten.native_group_norm_backward.default: _group_norm_backward,
    aten.sigmoid.default: _sigmoid,
    aten.var.correction: _variance,
    aten.var_mean.correction: _variance_and_mean,
}
