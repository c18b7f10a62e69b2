"""Conversion of the graph of one layer into the operations of the compiled loops.

If a graph contains unsupported operations, there is no code, and layers run without the loops.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from mgnet.depth.batched.graphs import Traced
from mgnet.depth.batched.tracing import merge_equal
from mgnet.depth.compiled import operations as ops
from mgnet.depth.compiled.layer_code import LayerCode, UnknownOperationError, Writer

__all__ = ["code_of"]

aten = torch.ops.aten
SAME = {
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.clone.default,
    aten.alias.default, aten.contiguous.default, aten.squeeze.dim,
    aten.unsqueeze.default,
}  # fmt: skip
FUNCTIONS = {
    aten.tanh.default: ops.TANH,
    aten.sigmoid.default: ops.SIGMOID,
    aten.relu.default: ops.RELU,
    aten.silu.default: ops.SILU,
    aten.exp.default: ops.EXP,
    aten.sin.default: ops.SIN,
    aten.cos.default: ops.COS,
}


def code_of(traced: Traced, state: Tensor) -> LayerCode:
    """The operations of a layer.

    Parameters
    ----------
    traced : Traced
        The function `(*tensors, state) -> slope` from `trace_for_autograd`, including its metadata.
    state : Tensor of shape (batch, ..., features)
        A state.

    Raises
    ------
    UnknownOperationError
        If an operation is not supported; the message names it.
    """
    merge_equal(traced.graph)
    return Writer(traced, state, WRITERS).written()


def _add(w: Writer, node: fx.Node, x: Any, y: Any, alpha: float = 1) -> int:
    return w.sum(x, y, alpha)


def _subtract(w: Writer, node: fx.Node, x: Any, y: Any, alpha: float = 1) -> int:
    return w.sum(x, y, -alpha)


def _divide(w: Writer, node: fx.Node, x: Any, y: Any) -> int:
    if isinstance(y, fx.Node) or not math.isfinite(1.0 / y if y else math.inf):
        raise UnknownOperationError("a division by a tensor, or by 0")
    return w.affine(x, 1.0 / y, 0.0)


def _power(w: Writer, node: fx.Node, x: Any, exponent: float) -> int:
    if exponent not in (2, 3):
        raise UnknownOperationError(f"a power of {exponent}")
    square = w.product(x, x)
    if exponent == 2:
        return square
    return w.emit(ops.MULTIPLY, w.value(w.values[square].rows), square, w.state(x))


def _same(w: Writer, node: fx.Node, x: Any, *rest: Any, memory_format: Any = None) -> int:
    return w.state(x)


def _addmm(w: Writer, node: fx.Node, bias: Any, x: Any, matrix: Any) -> int:
    return w.linear(x, matrix, bias)


def _mm(w: Writer, node: fx.Node, x: Any, matrix: Any) -> int:
    return w.linear(x, matrix)


def _gelu(w: Writer, node: fx.Node, x: Any, approximate: str = "none") -> int:
    return w.function(x, ops.GELU if approximate == "none" else ops.GELU_TANH)


def _softplus(w: Writer, node: fx.Node, x: Any, beta: float = 1, threshold: float = 20) -> int:
    if (beta, threshold) != (1, 20):
        raise UnknownOperationError("softplus with beta or threshold")
    return w.function(x, ops.SOFTPLUS)


def _elu(
    w: Writer, node: fx.Node, x: Any, alpha: float = 1, scale: float = 1, inner: float = 1
) -> int:
    if (scale, inner) != (1, 1):
        raise UnknownOperationError("elu with scales")
    return w.function(x, ops.ELU, alpha)


def _leaky(w: Writer, node: fx.Node, x: Any, slope: float = 0.01) -> int:
    return w.function(x, ops.LEAKY, slope)


def _norm(w: Writer, node: fx.Node, *given: Any) -> list[int]:
    return w.norm(*given)


def _item(w: Writer, node: fx.Node, parts: fx.Node, k: int) -> int:
    found = w.lists[parts]
    if k >= len(found):
        raise UnknownOperationError("statistics of a norm")
    return found[k]


def _slice(
    w: Writer,
    node: fx.Node,
    x: Any,
    axis: int = 0,
    first: Any = None,
    end: Any = None,
    by: int = 1,
) -> int:
    w.check_last(x, axis)
    if by != 1:
        raise UnknownOperationError("every other feature")
    return w.part(x, 0 if first is None else first, 2**62 if end is None else end)


def _select(w: Writer, node: fx.Node, x: Any, axis: int, k: int) -> int:
    w.check_last(x, axis)
    k %= w.values[w.state(x)].rows
    return w.part(x, k, k + 1)


def _split(w: Writer, node: fx.Node, x: Any, sizes: Any, axis: int = 0) -> list[int]:
    w.check_last(x, axis)
    rows = w.values[w.state(x)].rows
    if isinstance(sizes, int):
        sizes = [min(sizes, rows - k) for k in range(0, rows, sizes)]
    ends = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    return [w.part(x, a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def _joined(w: Writer, node: fx.Node, parts: Sequence[Any], axis: int = 0) -> int:
    dims, new = node.meta["val"].dim(), node.target is aten.stack.default
    if axis % dims != dims - 1:
        raise UnknownOperationError("samples side by side")
    sizes = [1 if new else part.meta["val"].shape[-1] for part in parts]
    rows = [w.values[w.number[part]].rows for part in parts if w.known(part)]
    if rows != [size for part, size in zip(parts, sizes, strict=True) if w.known(part)]:
        raise UnknownOperationError("samples side by side")
    return w.joined(parts, sizes)


WRITERS: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: _add,
    aten.add.Scalar: _add,
    aten.sub.Tensor: _subtract,
    aten.sub.Scalar: _subtract,
    aten.rsub.Scalar: lambda w, node, x, y, alpha=1: w.sum(y, x, -alpha),
    aten.rsub.Tensor: lambda w, node, x, y, alpha=1: w.sum(y, x, -alpha),
    aten.mul.Tensor: lambda w, node, x, y: w.product(x, y),
    aten.mul.Scalar: lambda w, node, x, y: w.product(x, y),
    aten.div.Tensor: _divide,
    aten.div.Scalar: _divide,
    aten.neg.default: lambda w, node, x: w.affine(x, -1.0, 0.0),
    aten.pow.Tensor_Scalar: _power,
    aten.addmm.default: _addmm,
    aten.mm.default: _mm,
    aten.gelu.default: _gelu,
    aten.softplus.default: _softplus,
    aten.elu.default: _elu,
    aten.leaky_relu.default: _leaky,
    aten.native_layer_norm.default: _norm,
    operator.getitem: _item,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.cat.default: _joined,
    aten.stack.default: _joined,
}
WRITERS |= dict.fromkeys(SAME, _same)
WRITERS |= {
    target: (lambda w, node, x, kind=kind: w.function(x, kind))
    for target, kind in FUNCTIONS.items()
}
