"""Graphs of tensor operations, in which symbolic sizes of a trace are separate inputs.

A graph traced with unknown sizes has nodes that are numbers: sizes of tensors, and numbers that the
block computes from them. The function `open_sizes` expresses all of these by the inputs `sizes`,
the symbolic sizes of a state. The graph can then be divided anywhere, mapped over layers, and run
with plain numbers that are computed once per shape.
"""

from __future__ import annotations

import linecache
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import graph_module

__all__ = ["ShapeError", "Traced", "extract", "is_number", "open_sizes", "results", "taken"]

NUMBERS = (torch.SymInt, torch.SymFloat, torch.SymBool)


class ShapeError(RuntimeError):
    """A graph cannot be used for sizes other than those with which it was made."""


class Traced:
    """A graph as a function.

    Unlike a `GraphModule`, it does not make PyTorch store source code permanently.

    Parameters
    ----------
    graph : fx.Graph
        The operations.
    constants : mapping of str to object
        Objects that the graph accesses by name.

    Examples
    --------
    >>> graph = fx.Graph()
    >>> x = graph.placeholder("x")
    >>> _ = graph.output(graph.call_function(torch.neg, (x,)))
    >>> Traced(graph, {})(torch.ones(2))
    tensor([-1., -1.])
    """

    def __init__(self, graph: fx.Graph, constants: Mapping[str, Any]):
        self.graph = graph
        names = {node.target for node in graph.find_nodes(op="get_attr")}
        self.constants = {name: constants[name] for name in names}
        self._run: Callable[..., Any] | None = None

    def __call__(self, *inputs: Any) -> Any:
        if self._run is None:
            self._run = self.function()
        return self._run(*inputs)

    def bare(self) -> Traced:
        """Remove the metadata about the value of each node; return this object."""
        for node in self.graph.nodes:
            node.meta = {}
        return self

    def text(self, sizes: Sequence[int] = ()) -> list[str]:
        """The operations as text, for these symbolic sizes; used to compare graphs.

        Examples
        --------
        >>> graph = fx.Graph()
        >>> _ = graph.output(graph.call_function(torch.neg, (graph.placeholder("x"),)))
        >>> Traced(graph, {}).text()
        ['placeholder', ...(x0,) {}', ...]
        """
        rows: list[str] = []
        names: dict[fx.Node, Any] = {}
        given = iter(sizes)
        for node in self.graph.nodes:
            args, kwargs = fx.map_arg((node.args, node.kwargs), names.__getitem__)
            if is_number(node):
                names[node] = next(given) if node.op == "placeholder" else node.target(*args)
                continue
            if node.target is torch.ops.aten.mul.Scalar and args[1] == 1:
                names[node] = args[0]  # equal in a graph of this shape
                continue
            names[node] = _Name(f"x{len(rows)}")
            if node.op == "placeholder":
                rows.append(node.op)
            elif node.op == "get_attr":
                rows.append(_described(self.constants[node.target]))
            else:
                rows.append(f"{node.target}{args} {kwargs}")
        return rows

    def function(self) -> Callable[..., Any]:
        """The graph as a plain function that no longer refers to it."""
        code = self.graph.python_code("self")
        space = dict(code.globals)
        exec(compile(code.src, "<traced layer>", "exec"), space)
        return MethodType(space["forward"], SimpleNamespace(**self.constants))


class _Name(str):
    """The name of a node, whose `repr` has no quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _described(constant: Any) -> str:
    if isinstance(constant, Tensor):
        return f"{constant.dtype} {tuple(constant.shape)} {constant.tolist()}"
    return f"{type(constant)} {id(constant)}"


def taken(module: fx.GraphModule) -> Traced:
    """Take the graph out of a module that was just made, and drop the other data of the module.

    Examples
    --------
    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> before = set(linecache.cache)
    >>> taken(make_fx(torch.neg)(torch.ones(1)))(torch.ones(1))
    tensor([-1.])
    >>> [name for name in linecache.cache if name not in before and "eval_with_key" in name]
    []
    """
    names = [str(node.target) for node in module.graph.find_nodes(op="get_attr")]
    constants = {name: getattr(module, name) for name in names}
    sources = getattr(getattr(graph_module, "_loader", None), "eval_cache", {})
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            code = getattr(type(part).forward, "__code__", None)
            name = getattr(code, "co_filename", "")
            if sources.pop(name, None) is not None:
                linecache.cache.pop(name, None)
    graph = module.graph
    graph.owning_module = None  # type: ignore[assignment]
    return Traced(graph, constants)


def results(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that a graph returns, as a list even if there is only one."""
    found: Any = graph.output_node().args[0]
    return [found] if isinstance(found, fx.Node) else list(found)


def is_number(node: fx.Node) -> bool:
    """Whether a node is a size, or is computed only from sizes.

    Examples
    --------
    >>> is_number(fx.Graph().placeholder("x"))
    False
    """
    return isinstance(node.meta.get("val"), NUMBERS)


def extract(owner: Traced, inputs: Sequence[fx.Node], wanted: Any) -> Traced:
    """The part of a graph that computes some nodes from other nodes.

    Examples
    --------
    >>> graph = fx.Graph()
    >>> x = graph.placeholder("x")
    >>> y = graph.call_function(torch.neg, (x,))
    >>> z = graph.call_function(torch.exp, (y,))
    >>> extract(Traced(graph, {}), [y], z)(torch.zeros(1))
    tensor([1.])
    """
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node, copied in copies.items():
        copied.meta = dict(node.meta)
    needed, left = set(copies), [wanted] if isinstance(wanted, fx.Node) else list(wanted)
    while left:
        node = left.pop()
        if node not in needed:
            needed.add(node)
            left += node.all_input_nodes
    for node in owner.graph.nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(fx.map_arg(wanted, copies.__getitem__))
    return Traced(graph, owner.constants)


def open_sizes(graph: fx.Graph, unknown: Sequence[Any]) -> list[fx.Node]:
    """Make sizes the first inputs of a graph, and express the numbers in it by these sizes.

    Parameters
    ----------
    graph : fx.Graph
        The graph, changed in place; the value of each node is stored as its `meta["val"]`.
    unknown : sequence of torch.SymInt
        The symbolic sizes.

    Returns
    -------
    list of fx.Node
        The new inputs.

    Raises
    ------
    ShapeError
        If a number depends on other data.
    """
    if not unknown:
        return []
    with graph.inserting_before(next(iter(graph.nodes))):
        sizes = [graph.placeholder(f"size_{n}") for n in range(len(unknown))]
    known = {}
    for node, size in zip(sizes, unknown, strict=True):
        node.meta["val"] = size
        # Otherwise it has become a number.
        if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
            known[size.node.expr] = node
    for node in list(graph.nodes):
        if is_number(node) and any(not is_number(each) for each in node.all_input_nodes):
            with graph.inserting_before(node):
                value = _written(graph, node.meta["val"], known)
            if isinstance(value, fx.Node):
                node.replace_all_uses_with(value)
            else:
                for user in list(node.users):
                    user.args = fx.map_arg(user.args, lambda x: value if x is node else x)  # noqa: B023
                    user.kwargs = fx.map_arg(user.kwargs, lambda x: value if x is node else x)  # noqa: B023
    graph.eliminate_dead_code()
    return sizes


def _written(graph: fx.Graph, number: Any, known: Mapping[Any, fx.Node]) -> Any:
    """An integer expressed in terms of the sizes, as nodes with their values."""
    from torch.utils._sympy.functions import FloorDiv

    if not isinstance(number, torch.SymInt):
        raise ShapeError(f"a number of a tensor is {number}")

    def write(expression: Any) -> Any:
        if expression in known:
            return known[expression]
        if expression.is_Integer:
            return int(expression)
        parts = [write(part) for part in expression.args]
        if expression.is_Add or expression.is_Mul:
            kind = operator.add if expression.is_Add else operator.mul
            return reduce(lambda a, b: call(kind, a, b), parts)
        if isinstance(expression, FloorDiv):
            return call(operator.floordiv, *parts)
        raise ShapeError(f"a size is {expression}")

    def call(kind: Callable[..., Any], *parts: Any) -> Any:
        if not any(isinstance(part, fx.Node) for part in parts):
            return kind(*parts)
        node = graph.call_function(kind, parts)
        node.meta["val"] = number  # of the right type; the value is not used
        return node

    return write(number.node.expr)
