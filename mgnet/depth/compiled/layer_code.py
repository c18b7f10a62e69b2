"""From the graph of one layer to the operations of the compiled loops.

What depends on the layer's tensors alone stays with PyTorch, which evaluates it for all layers at
once, with gradients: the loops only get the results. A graph with anything that the loops do not
know gives no code, and the layers run as before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from mgnet.depth.batched.graphs import Traced, extract
from mgnet.depth.compiled import operations as ops

__all__ = ["LayerCode", "UnknownOperationError", "code_of"]

aten = torch.ops.aten
SAME = {
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.clone.default,
    aten.detach.default, aten.alias.default, aten.contiguous.default, aten.squeeze.dim,
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
FROM_INPUT = {ops.SILU, *range(ops.GELU, ops.COS + 1)}  # their slopes are told by the argument


class UnknownOperationError(Exception):
    """A layer has an operation that the compiled loops do not know."""


@dataclass
class Value:
    """Rows of samples: a state, or what an operation makes.

    Attributes
    ----------
    rows : int
    root : int
        The value of which these are some rows, from `first` on; it may be this one.
    kept : bool
        Whether the backward pass reads it.
    per_layer : bool
        Whether its adjoint is needed once that of all layers is known.
    """

    rows: int
    root: int
    first: int = 0
    kept: bool = False
    per_layer: bool = False


@dataclass(frozen=True, eq=False)
class LayerCode:
    """The operations of one layer.

    Attributes
    ----------
    code : list of tuple
        Operation, numbers of the result and of the values a and b, rows, columns, parameters p and
        q, function, place of the gradient of p (of q, for a matrix) in `sums`.
    numbers : list of (float, float)
        c and d of each operation.
    values : list of Value
        Number 0 is the state.
    slope : int
        The number of the value that is the slope.
    prepared : Traced
        `(*tensors) -> matrices and vectors` of one layer.
    shapes : list of tuple
        Of each parameter as the loops have it, the step first: (), (rows,), or (columns, rows) of
        a matrix, which is there twice, the second time the other way round.
    sums : int
        How many numbers `sums` of a layer has.
    """

    code: list[tuple[int, ...]]
    numbers: list[tuple[float, float]]
    values: list[Value]
    slope: int
    prepared: Traced
    shapes: list[tuple[int, ...]]
    sums: int


def code_of(traced: Traced, state: Tensor) -> LayerCode:
    """The operations of a layer.

    Parameters
    ----------
    traced : Traced
        `(*tensors, state) -> slope`, as `trace_for_autograd` gives it, with its notes.
    state : Tensor of shape (batch, ..., features)

    Raises
    ------
    UnknownOperationError
        Names what the loops do not know.
    """
    return _Writer(traced, state).written()


class _Writer:
    """Writes the operations of a graph one after another."""

    def __init__(self, traced: Traced, state: Tensor):
        self.traced = traced
        self.flat = state.dim() == 1
        self.rows = 1 if self.flat else state.shape[-1]
        self.samples = state.numel() // max(self.rows, 1)
        self.code: list[tuple[int, ...]] = []
        self.numbers: list[tuple[float, float]] = []
        self.values: list[Value] = []
        self.number: dict[fx.Node, int] = {}
        self.lists: dict[fx.Node, list[int]] = {}
        self.parameters: list[fx.Node] = []
        self.slots: dict[fx.Node, int] = {}
        self.shapes: list[tuple[int, ...]] = [()]
        self.sums = 1

    def written(self) -> LayerCode:
        """The code of the whole graph."""
        graph = self.traced.graph
        *tensors, state = graph.find_nodes(op="placeholder")
        self.number[state] = self._value(self.rows)
        self.values[0].kept = True
        known = {state}
        for node in graph.nodes:
            if node.op == "call_function" and known.intersection(node.all_input_nodes):
                known.add(node)
                self._write(node)
        output: Any = graph.output_node().args[0]
        if output not in self.number or self.values[self.number[output]].rows != self.rows:
            raise UnknownOperationError("a slope that is no state")
        slope = self.number[output]
        self._keep(slope)
        prepared = extract(self.traced, tensors, tuple(self.parameters)).bare()
        return LayerCode(
            self.code, self.numbers, self.values, slope, prepared, self.shapes, self.sums
        )

    def _value(self, rows: int, parent: int | None = None, first: int = 0) -> int:
        number = len(self.values)
        if parent is not None:
            first += self.values[parent].first
        root = number if parent is None else self.values[parent].root
        self.values.append(Value(rows, root, first))
        return number

    def _keep(self, number: int) -> None:
        self.values[self.values[number].root].kept = True

    def _emit(
        self,
        op: int,
        out: int,
        a: int = 0,
        b: int = 0,
        columns: int = 0,
        p: int = 0,
        q: int = 0,
        kind: int = 0,
        place: int = 0,
        numbers: tuple[float, float] = (1.0, 0.0),
    ) -> int:
        rows = self.values[out].rows
        self.code.append((op, out, a, b, rows, columns, p, q, kind, place))
        self.numbers.append(numbers)
        return out

    def _write(self, node: fx.Node) -> None:
        write = WRITERS.get(node.target)
        if write is None:
            raise UnknownOperationError(str(node.target))
        made = write(self, node, *node.args, **node.kwargs)
        if isinstance(made, list):
            self.lists[node] = made
            return
        self.number[node] = made
        self._check_shape(node, self.values[made].rows)

    def _check_shape(self, node: fx.Node, rows: int) -> None:
        """That the samples of a result are those of the state, in their order."""
        found = node.meta["val"]
        shape = found[0].shape if isinstance(found, tuple) else found.shape
        whole = shape.numel() == rows * self.samples
        if not whole or not (rows == 1 or (len(shape) and shape[-1] == rows)):
            raise UnknownOperationError(f"{node.target} of another shape, {tuple(shape)}")

    def _state(self, x: Any) -> int:
        if not isinstance(x, fx.Node) or x not in self.number:
            raise UnknownOperationError("an operation that takes a state in an unknown place")
        return self.number[x]

    def _parameter(self, node: fx.Node, shape: tuple[int, ...]) -> int:
        """The number of a parameter of the loops."""
        if node not in self.slots:
            self.slots[node] = len(self.shapes)
            self.parameters.append(node)
            self.shapes += [shape] * len(shape)  # a matrix twice
        if self.shapes[self.slots[node]] != shape:
            raise UnknownOperationError(f"a tensor used as {shape} and otherwise")
        return self.slots[node]

    def _vector(self, node: Any, rows: int) -> tuple[int, int]:
        """The number of a parameter with one number for each row, and the place of its gradient."""
        while isinstance(node, fx.Node):
            shape = node.meta["val"].shape
            one = shape.numel() == 1
            if one or (shape.numel() == rows and shape[-1] == rows and not self._is_flat(shape)):
                place, self.sums = self.sums, self.sums + rows
                return self._parameter(node, (rows,)), place
            if node.target is not aten.expand.default:
                break
            node = node.args[0]
        raise UnknownOperationError("a tensor of the layer that differs between samples")

    def _is_flat(self, shape: Any) -> bool:
        return self.flat and len(shape) == 1

    def linear(self, x: Any, matrix: Any, bias: Any = None) -> int:
        """matrix is (columns, rows)."""
        a = self._state(x)
        if not isinstance(matrix, fx.Node) or matrix in self.number:
            raise UnknownOperationError("a product of states")
        columns, rows = matrix.meta["val"].shape
        if columns != self.values[a].rows:
            raise UnknownOperationError("a product over samples")
        self._keep(a)
        out = self._value(rows)
        self.values[out].per_layer = True
        q, place = (0, 0) if bias is None else self._vector(bias, rows)
        p = self._parameter(matrix, (columns, rows))
        return self._emit(ops.LINEAR, out, a, columns=columns, p=p, q=q, place=place)

    def function(self, x: Any, kind: int, extra: float = 0.0) -> int:
        """f(x)."""
        a = self._state(x)
        out = self._value(self.values[a].rows)
        self._keep(a if kind in FROM_INPUT else out)
        return self._emit(ops.UNARY, out, a, kind=kind, numbers=(extra, 0.0))

    def affine(self, x: Any, c: float, d: float) -> int:
        """c x + d."""
        a = self._state(x)
        return self._emit(ops.AFFINE, self._value(self.values[a].rows), a, numbers=(c, d))

    def sum(self, x: Any, y: Any, c: float) -> int:
        """x + c y."""
        if not isinstance(y, fx.Node):
            return self.affine(x, 1.0, c * y)
        if not isinstance(x, fx.Node):
            return self.affine(y, c, x)
        if x not in self.number:  # c y + x
            return self._shifted(self.affine(y, c, 0.0), x, 1.0)
        if y not in self.number:
            return self._shifted(self._state(x), y, c)
        a, b = self._both(x, y)
        return self._emit(ops.ADD, self._value(self.values[a].rows), a, b, numbers=(c, 0.0))

    def _shifted(self, a: int, y: Any, c: float) -> int:
        rows = self.values[a].rows
        p, place = self._vector(y, rows)
        return self._emit(ops.SHIFT, self._value(rows), a, p=p, place=place, numbers=(c, 0.0))

    def _both(self, x: fx.Node, y: fx.Node) -> tuple[int, int]:
        if x.meta["val"].shape != y.meta["val"].shape:
            raise UnknownOperationError("states of different shapes together")
        return self._state(x), self._state(y)

    def product(self, x: Any, y: Any) -> int:
        """x y."""
        if x not in self.number:
            x, y = y, x
        if not isinstance(y, fx.Node):
            return self.affine(x, y, 0.0)
        if y not in self.number:
            return self._scaled(self._state(x), y)
        a, b = self._both(x, y)
        self._keep(a)
        self._keep(b)
        return self._emit(ops.MULTIPLY, self._value(self.values[a].rows), a, b)

    def _scaled(self, a: int, y: Any) -> int:
        rows = self.values[a].rows
        p, place = self._vector(y, rows)
        self._keep(a)
        return self._emit(ops.SCALE, self._value(rows), a, p=p, place=place)

    def norm(self, x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> list[int]:
        """Layer norm over the features."""
        a = self._state(x)
        rows = self.values[a].rows
        if list(shape) != [rows]:
            raise UnknownOperationError("a norm over several axes")
        out, inverse = self._value(rows), self._value(1)
        self._keep(out)
        self._keep(inverse)
        self._emit(ops.NORM, out, a, inverse, numbers=(eps, 0.0))
        if weight is not None:
            out = self._scaled(out, weight)
        return [out if bias is None else self._shifted(out, bias, 1.0)]

    def part(self, x: Any, first: int, end: int) -> int:
        """Some of the features."""
        a = self._state(x)
        rows = range(self.values[a].rows)[first:end]
        return self._value(len(rows), a, rows.start)

    def check_last(self, x: Any, axis: int) -> None:
        """That an axis is that of the features."""
        dims = x.meta["val"].dim() if isinstance(x, fx.Node) else 0
        if axis % max(dims, 1) != dims - 1 or self.values[self._state(x)].rows != x.meta["val"].shape[-1]:
            raise UnknownOperationError("a part of the samples")

    def joined(self, parts: Sequence[Any], sizes: Sequence[int]) -> int:
        """Features of several values side by side."""
        out, first = self._value(sum(sizes)), 0
        for part, size in zip(parts, sizes, strict=True):
            place = self._value(size, out, first)
            first += size
            if part in self.number:
                self._emit(ops.COPY, place, self._state(part))
            else:
                p, at = self._vector(part, size)
                self._emit(ops.FILL, place, p=p, place=at)
        return out


def _add(w: _Writer, node: fx.Node, x: Any, y: Any, alpha: float = 1) -> int:
    return w.sum(x, y, alpha)


def _subtract(w: _Writer, node: fx.Node, x: Any, y: Any, alpha: float = 1) -> int:
    return w.sum(x, y, -alpha)


def _divide(w: _Writer, node: fx.Node, x: Any, y: Any) -> int:
    if isinstance(y, fx.Node):
        raise UnknownOperationError("a division by a tensor")
    return w.affine(x, 1.0 / y, 0.0)


def _power(w: _Writer, node: fx.Node, x: Any, exponent: float) -> int:
    if exponent not in (2, 3):
        raise UnknownOperationError(f"a power of {exponent}")
    square = w.product(x, x)
    if exponent == 2:
        return square
    w._keep(square)
    return w._emit(ops.MULTIPLY, w._value(w.values[square].rows), square, w._state(x))


def _same(w: _Writer, node: fx.Node, x: Any, *rest: Any) -> int:
    return w._state(x)


def _addmm(w: _Writer, node: fx.Node, bias: Any, x: Any, matrix: Any) -> int:
    return w.linear(x, matrix, bias)


def _mm(w: _Writer, node: fx.Node, x: Any, matrix: Any) -> int:
    return w.linear(x, matrix)


def _gelu(w: _Writer, node: fx.Node, x: Any, approximate: str = "none") -> int:
    return w.function(x, ops.GELU if approximate == "none" else ops.GELU_TANH)


def _softplus(w: _Writer, node: fx.Node, x: Any, beta: float = 1, threshold: float = 20) -> int:
    if (beta, threshold) != (1, 20):
        raise UnknownOperationError("softplus with beta or threshold")
    return w.function(x, ops.SOFTPLUS)


def _elu(
    w: _Writer, node: fx.Node, x: Any, alpha: float = 1, scale: float = 1, inner: float = 1
) -> int:
    if (scale, inner) != (1, 1):
        raise UnknownOperationError("elu with scales")
    return w.function(x, ops.ELU, alpha)


def _leaky(w: _Writer, node: fx.Node, x: Any, slope: float = 0.01) -> int:
    return w.function(x, ops.LEAKY, slope)


def _norm(w: _Writer, node: fx.Node, *given: Any) -> list[int]:
    return w.norm(*given)


def _item(w: _Writer, node: fx.Node, parts: fx.Node, k: int) -> int:
    found = w.lists[parts]
    if k >= len(found):
        raise UnknownOperationError("statistics of a norm")
    return found[k]


def _slice(
    w: _Writer, node: fx.Node, x: Any, axis: int = 0, first: Any = None, end: Any = None, by: int = 1
) -> int:
    w.check_last(x, axis)
    if by != 1:
        raise UnknownOperationError("every other feature")
    return w.part(x, 0 if first is None else first, 2**62 if end is None else end)


def _select(w: _Writer, node: fx.Node, x: Any, axis: int, k: int) -> int:
    w.check_last(x, axis)
    k %= w.values[w._state(x)].rows
    return w.part(x, k, k + 1)


def _split(w: _Writer, node: fx.Node, x: Any, sizes: Any, axis: int = 0) -> list[int]:
    w.check_last(x, axis)
    rows = w.values[w._state(x)].rows
    if isinstance(sizes, int):
        sizes = [min(sizes, rows - k) for k in range(0, rows, sizes)]
    ends = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    return [w.part(x, a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def _joined(w: _Writer, node: fx.Node, parts: Sequence[Any], axis: int = 0) -> int:
    dims, new = node.meta["val"].dim(), node.target is aten.stack.default
    if axis % dims != dims - 1:
        raise UnknownOperationError("samples side by side")
    sizes = [1 if new else part.meta["val"].shape[-1] for part in parts]
    rows = [w.values[w.number[part]].rows for part in parts if part in w.number]
    if rows != [size for part, size in zip(parts, sizes, strict=True) if part in w.number]:
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
    target: (lambda w, node, x, kind=kind: w.function(x, kind)) for target, kind in FUNCTIONS.items()
}
