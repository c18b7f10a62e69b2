"""The operations of one layer in the format of the compiled loops, and how they are generated.

PyTorch computes the values that depend only on the layer's tensors for all layers at once, with
gradients; the loops only get the results.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from mgnet.depth.batched.graphs import Traced, extract
from mgnet.depth.compiled import operations as ops

__all__ = ["LayerCode", "UnknownOperationError", "Value", "Writer"]

aten = torch.ops.aten


class UnknownOperationError(Exception):
    """Raised if a layer has an operation that the compiled loops do not support."""


@dataclass
class Value:
    """Rows of samples: a state, or the result of an operation.

    Attributes
    ----------
    rows : int
        Number of rows.
    root : int
        Number of the value that contains these rows, starting at row `first`; it may be this value
        itself.
    given : bool
        Whether this is one of the layer's tensors, with a row for each sample.
    """

    rows: int
    root: int
    first: int = 0
    given: bool = False


@dataclass(frozen=True, eq=False)
class LayerCode:
    """The operations of one layer.

    Attributes
    ----------
    code : list of tuple
        Each tuple contains the operation, the numbers of the result and of the values a and b, the
        numbers of rows and columns, the numbers of the parameters p and q, and the function.
    numbers : list of (float, float)
        The constants c and d of each operation.
    values : list of Value
        The values; number 0 is the state.
    slope : int
        Number of the value that is the slope.
    prepared : Traced
        The function `(*tensors) -> matrices and vectors, given values` of one layer.
    shapes : list of tuple
        Shape of each parameter in the loops, starting with the step: (), (rows,), or (columns,
        rows) for a matrix, which is stored twice, the second time transposed.
    """

    code: list[tuple[int, ...]]
    numbers: list[tuple[float, float]]
    values: list[Value]
    slope: int
    prepared: Traced
    shapes: list[tuple[int, ...]]


class Writer:
    """Converts the operations of a graph, one after another.

    Parameters
    ----------
    traced : Traced
        The function `(*tensors, state) -> slope`, with shapes in the metadata of its nodes.
    state : Tensor of shape (batch, ..., features)
        A state.
    table : mapping
        For each operation, a function `(writer, node, *args, **kwargs) -> number of the result`, or
        the numbers of several results.
    """

    def __init__(self, traced: Traced, state: Tensor, table: Mapping[Any, Callable[..., Any]]):
        self.traced, self.table = traced, table
        self.flat, self.shape = state.dim() == 1, state.shape
        self.rows = 1 if self.flat else state.shape[-1]
        self.samples = state.numel() // max(self.rows, 1)
        self.code: list[tuple[int, ...]] = []
        self.numbers: list[tuple[float, float]] = []
        self.values: list[Value] = []
        self.number: dict[fx.Node, int] = {}
        self.lists: dict[fx.Node, list[int]] = {}
        self.parameters: list[fx.Node] = []
        self.given: list[fx.Node] = []
        self.slots: dict[fx.Node, int] = {}
        self.shapes: list[tuple[int, ...]] = [()]

    def written(self) -> LayerCode:
        """The code of the whole graph.

        Raises
        ------
        UnknownOperationError
            If the slope is not a state.
        """
        graph = self.traced.graph
        *tensors, state = graph.find_nodes(op="placeholder")
        self.number[state] = self.value(self.rows)
        known = {state}
        for node in graph.nodes:
            if node.op == "call_function" and known.intersection(node.all_input_nodes):
                known.add(node)
                self._write(node)
        output: Any = graph.output_node().args[0]
        if output not in self.number or self.values[self.number[output]].rows != self.rows:
            raise UnknownOperationError("a slope that is not a state")
        slope = self.number[output]
        prepared = extract(self.traced, tensors, (*self.parameters, *self.given)).bare()
        return LayerCode(self.code, self.numbers, self.values, slope, prepared, self.shapes)

    def value(self, rows: int, parent: int | None = None, first: int = 0) -> int:
        """Create a new value, which may refer to rows of another value; return its number."""
        number = len(self.values)
        if parent is not None:
            first += self.values[parent].first
        root = number if parent is None else self.values[parent].root
        self.values.append(Value(rows, root, first))
        return number

    def emit(
        self,
        op: int,
        out: int,
        a: int = 0,
        b: int = 0,
        columns: int = 0,
        p: int = 0,
        q: int = 0,
        kind: int = 0,
        numbers: tuple[float, float] = (1.0, 0.0),
    ) -> int:
        """Append one operation; return the number of its result."""
        rows = self.values[out].rows
        self.code.append((op, out, a, b, rows, columns, p, q, kind))
        self.numbers.append(numbers)
        return out

    def _write(self, node: fx.Node) -> None:
        write = self.table.get(node.target)
        if write is None:
            raise UnknownOperationError(str(node.target))
        try:
            inspect.signature(write).bind(self, node, *node.args, **node.kwargs)
        except TypeError:
            raise UnknownOperationError(f"{node.target} with {list(node.kwargs)}") from None
        made = write(self, node, *node.args, **node.kwargs)
        if isinstance(made, list):
            self.lists[node] = made
            return
        self.number[node] = made
        self._check_shape(node, self.values[made].rows)

    def _check_shape(self, node: fx.Node, rows: int) -> None:
        """Check that a result has the same samples as the state, in the same order."""
        found = node.meta["val"]
        shape = found[0].shape if isinstance(found, tuple) else found.shape
        whole = shape.numel() == rows * self.samples
        if not whole or not (rows == 1 or (len(shape) and shape[-1] == rows)):
            raise UnknownOperationError(f"{node.target} of another shape, {tuple(shape)}")

    def known(self, x: Any) -> bool:
        """Whether a node is a value: made from the state, or a tensor with a row per sample."""
        if not isinstance(x, fx.Node) or x in self.number or self.samples < 2:
            return isinstance(x, fx.Node) and x in self.number
        found = x.meta["val"]
        shape = found.shape if isinstance(found, Tensor) else torch.Size()
        if self.flat or len(shape) < 2 or shape[:-1] != self.shape[:-1]:
            return False
        self.number[x] = number = self.value(shape[-1])
        self.values[number].given = True
        self.given.append(x)
        return True

    def state(self, x: Any) -> int:
        """The number of the value of a node.

        Raises
        ------
        UnknownOperationError
            If the node is not a value.
        """
        if not self.known(x):
            raise UnknownOperationError("an operation that takes a state in an unknown place")
        return self.number[x]

    def _parameter(self, node: fx.Node, shape: tuple[int, ...]) -> int:
        """The number of a parameter of the loops."""
        if node not in self.slots:
            self.slots[node] = len(self.shapes)
            self.parameters.append(node)
            self.shapes += [shape] * len(shape)  # a matrix is stored twice
        if self.shapes[self.slots[node]] != shape:
            raise UnknownOperationError(f"a tensor used as {shape} and otherwise")
        return self.slots[node]

    def _vector(self, node: Any, rows: int) -> int:
        """The number of a parameter that has one entry for each row."""
        while isinstance(node, fx.Node):
            if node in self.number:
                raise UnknownOperationError("a state in the place of a weight")
            shape = node.meta["val"].shape
            one = shape.numel() == 1
            if one or (shape.numel() == rows and shape[-1] == rows and not self._is_flat(shape)):
                return self._parameter(node, (rows,))
            if node.target is not aten.expand.default:
                break
            node = node.args[0]
        raise UnknownOperationError("a tensor of the layer that differs between samples")

    def _is_flat(self, shape: Any) -> bool:
        return self.flat and len(shape) == 1

    def linear(self, x: Any, matrix: Any, bias: Any = None) -> int:
        """The product with a matrix of shape (columns, rows).

        Raises
        ------
        UnknownOperationError
            If the product is not a product of features with one of the layer's matrices.
        """
        a = self.state(x)
        if not isinstance(matrix, fx.Node) or matrix in self.number:
            raise UnknownOperationError("a product of states")
        columns, rows = matrix.meta["val"].shape
        if columns != self.values[a].rows:
            raise UnknownOperationError("a product over samples")
        out = self.value(rows)
        q = 0 if bias is None else self._vector(bias, rows)
        p = self._parameter(matrix, (columns, rows))
        return self.emit(ops.LINEAR, out, a, columns=columns, p=p, q=q)

    def function(self, x: Any, kind: int, extra: float = 0.0) -> int:
        """The value f(x)."""
        a = self.state(x)
        out = self.value(self.values[a].rows)
        return self.emit(ops.UNARY, out, a, kind=kind, numbers=(extra, 0.0))

    def affine(self, x: Any, c: float, d: float) -> int:
        """The value `c x + d`."""
        a = self.state(x)
        return self.emit(ops.AFFINE, self.value(self.values[a].rows), a, numbers=(c, d))

    def sum(self, x: Any, y: Any, c: float) -> int:
        """The value `x + c y`."""
        if not isinstance(y, fx.Node):
            return self.affine(x, 1.0, c * y)
        if not isinstance(x, fx.Node):
            return self.affine(y, c, x)
        if not self.known(x):  # c y + x
            return self._shifted(self.affine(y, c, 0.0), x, 1.0)
        if not self.known(y):
            return self._shifted(self.state(x), y, c)
        a, b = self._both(x, y)
        return self.emit(ops.ADD, self.value(self.values[a].rows), a, b, numbers=(c, 0.0))

    def _shifted(self, a: int, y: Any, c: float) -> int:
        rows = self.values[a].rows
        p = self._vector(y, rows)
        return self.emit(ops.SHIFT, self.value(rows), a, p=p, numbers=(c, 0.0))

    def _both(self, x: fx.Node, y: fx.Node) -> tuple[int, int]:
        if x.meta["val"].shape != y.meta["val"].shape:
            raise UnknownOperationError("states of different shapes together")
        return self.state(x), self.state(y)

    def product(self, x: Any, y: Any) -> int:
        """The value `x y`."""
        if not self.known(x):
            x, y = y, x
        if not isinstance(y, fx.Node):
            return self.affine(x, y, 0.0)
        if not self.known(y):
            return self._scaled(self.state(x), y)
        a, b = self._both(x, y)
        return self.emit(ops.MULTIPLY, self.value(self.values[a].rows), a, b)

    def _scaled(self, a: int, y: Any) -> int:
        rows = self.values[a].rows
        p = self._vector(y, rows)
        return self.emit(ops.SCALE, self.value(rows), a, p=p)

    def norm(self, x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> list[int]:
        """Layer norm over the features.

        Raises
        ------
        UnknownOperationError
            If the norm is over several axes.
        """
        a = self.state(x)
        rows = self.values[a].rows
        if list(shape) != [rows]:
            raise UnknownOperationError("a norm over several axes")
        out, inverse = self.value(rows), self.value(1)
        self.emit(ops.NORM, out, a, inverse, numbers=(eps, 0.0))
        if weight is not None:
            out = self._scaled(out, weight)
        return [out if bias is None else self._shifted(out, bias, 1.0)]

    def part(self, x: Any, first: int, end: int) -> int:
        """The value that consists of some features."""
        a = self.state(x)
        rows = range(self.values[a].rows)[first:end]
        return self.value(len(rows), a, rows.start)

    def check_last(self, x: Any, axis: int) -> None:
        """Check that an axis is the axis of the features.

        Raises
        ------
        UnknownOperationError
            If it is a different axis.
        """
        dims = x.meta["val"].dim() if isinstance(x, fx.Node) else 0
        if (
            axis % max(dims, 1) != dims - 1
            or self.values[self.state(x)].rows != x.meta["val"].shape[-1]
        ):
            raise UnknownOperationError("a part of the samples")

    def joined(self, parts: Sequence[Any], sizes: Sequence[int]) -> int:
        """The concatenation of the features of several values."""
        out, first = self.value(sum(sizes)), 0
        for part, size in zip(parts, sizes, strict=True):
            place = self.value(size, out, first)
            first += size
            if self.known(part):
                self.emit(ops.COPY, place, self.state(part))
            else:
                self.emit(ops.FILL, place, p=self._vector(part, size))
        return out
