"""Programs: the graph of one layer, run for many layers at once with few tensor operations.

The function `batch` maps a graph over layers (by `vmap`, with the layers on axis 0 of all inputs
and outputs), removes operations without effect, and returns a `Program`. Saved tensors also have
the layers on axis 0 after `vmap`, so they can be divided into layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import vmap

from mgnet.depth.batched.arithmetic import TABLE
from mgnet.depth.batched.graphs import Traced, extract, is_number, open_sizes, results
from mgnet.depth.batched.stand_ins import trusting
from mgnet.depth.batched.tracing import RESHAPES, alike, is_view, shape_of, trace

__all__ = ["Program", "batch"]

aten = torch.ops.aten
# Torch's own functions have the same arguments and avoid one call in Python.
DIRECT = {
    f"aten::{name}": getattr(torch, name)
    for name in (
        "add addcmul baddbmm bmm cat clone cos div exp mul neg permute relu rsub select sigmoid "
        "sin sqrt sub sum tanh tanh_ transpose unsqueeze"
    ).split()
}
DIRECT |= {"aten::view": torch.reshape, "aten::_unsafe_view": torch.reshape}


@dataclass(frozen=True, eq=False)
class Program:
    """`run(*numbers(*sizes), *prepare(*tensors), *rest)`; `prepare` returns views of tensors.

    Attributes
    ----------
    prepare, run : callable
        The function that creates the views, and the function that computes the results.
    numbers : callable or None
        Function that computes the numbers that depend on the symbolic sizes of a state; None if no
        number depends on them.
    results : list of callable
        Functions that create an empty tensor like each result.
    whole : Traced or None
        The function `(*sizes, *tensors, *rest)` before it was divided; used to compare programs.
    """

    prepare: Callable[..., tuple[Tensor, ...]]
    run: Callable[..., Any]
    numbers: Callable[..., tuple[Any, ...]] | None
    results: list[Callable[[], Tensor]]
    whole: Traced | None

    def text(self, sizes: Sequence[int] = ()) -> list[str]:
        """The operations for these sizes; programs with the same operations are equivalent."""
        return [] if self.whole is None else self.whole.text(sizes)


def batch(
    one: Traced,
    inputs: Sequence[Tensor],
    tensors: int,
    alone: bool,
    table: Any = TABLE,
    axes: Sequence[int] = (),
) -> Program:
    """Create the program for many layers at once from the graph of one layer.

    Parameters
    ----------
    one : Traced
        A graph of `OneLayer`.
    inputs : sequence of Tensor
        Stacked inputs of the graph, except for the sizes; only their shapes, strides and types
        matter. The last one has the shape of the states.
    tensors : int
        Number of inputs that belong to the layers, of which views are prepared.
    alone : bool
        Whether there is only one layer, so that `one` is used without `vmap`.
    axes : sequence of int
        Axes of a state with symbolic sizes.

    Returns
    -------
    Program
        The program.
    """
    mapped = _of_one_layer(one, len(axes)) if alone else _of_many(one, len(axes), len(inputs))

    def function(*inputs: Tensor) -> Any:
        return mapped(*[inputs[-1].shape[1 + axis] for axis in axes], *inputs)

    with trusting(inputs):
        many = trace(function, inputs, table)
    graph = many.graph
    for node in graph.nodes:
        _drop_if_idle(node)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        _fuse_product_and_sum(node)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        _overwrite_product(node)
    nodes = graph.find_nodes(op="placeholder")
    sizes = open_sizes(graph, [inputs[-1].shape[1 + axis] for axis in axes])
    free, used = set(nodes[:tensors]), {}
    for node in graph.nodes:
        if _keeps_layers(node) and free.issuperset(node.all_input_nodes):
            free.add(node)
        else:
            used |= dict.fromkeys(x for x in node.all_input_nodes if x in free)
    needed = [x for x in graph.nodes if is_number(x) and not all(map(is_number, x.users))]
    output: Any = graph.output_node().args[0]
    return Program(
        _compiled(extract(many, nodes[:tensors], tuple(used))),
        _compiled(extract(many, [*needed, *used, *nodes[tensors:]], output)),
        _compiled(extract(many, sizes, tuple(needed))) if needed else None,
        [_like(node.meta["val"]) for node in results(graph)],
        many,
    )


def _like(x: Tensor) -> Callable[[], Tensor]:
    return partial(torch.empty_strided, x.shape, x.stride(), dtype=x.dtype, device=x.device)


def _of_many(one: Traced, sizes: int, inputs: int) -> Callable[..., Any]:
    return vmap(one, (None,) * sizes + (0,) * inputs)


def _of_one_layer(one: Traced, sizes: int) -> Callable[..., Any]:
    def run(*inputs: Any) -> Any:
        results = one(*inputs[:sizes], *[x[0] for x in inputs[sizes:]])
        if isinstance(results, Tensor):
            return results[None]
        return tuple([x[None] for x in results])

    return run


def _drop_if_idle(node: fx.Node) -> None:
    """Remove an operation that returns its argument unchanged; `vmap` inserts many of these."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return
    source = node.args[0]
    idle = node.target in (*RESHAPES, aten.expand.default, aten.alias.default)
    one = node.target is aten.mul.Scalar and node.args[1] == 1
    twice = node.target is source.target is aten.transpose.int and node.args[1:] == source.args[1:]
    if (idle or one) and alike(node, source):
        node.replace_all_uses_with(source)
    elif twice:
        node.replace_all_uses_with(source.args[0])  # type: ignore[arg-type]


def _fuse_product_and_sum(node: fx.Node) -> None:
    """Combine the sum and the product of `bias + a @ b` in one operation."""
    if node.target is not aten.add.Tensor or node.kwargs:
        return
    for bias, product in (node.args, node.args[::-1]):
        if not isinstance(product, fx.Node) or not isinstance(bias, fx.Node):
            continue
        small = len(shape_of(bias)) == 3 and shape_of(bias) != shape_of(product)
        if product.target is aten.bmm.default and len(product.users) == 1 and small:
            with node.graph.inserting_before(node):
                fused = node.graph.call_function(aten.baddbmm.default, (bias, *product.args))
            fused.meta = dict(node.meta)
            node.replace_all_uses_with(fused)
            return


def _overwrite_product(node: fx.Node) -> None:
    """Compute `tanh(a @ b)` in place if no other node uses the product."""
    if node.target is aten.tanh.default and isinstance(node.args[0], fx.Node):
        product = node.args[0]
        fresh = product.target in (aten.baddbmm.default, aten.bmm.default)
        if fresh and len(product.users) == 1 and alike(node, product):
            node.target = aten.tanh_.default


def _keeps_layers(node: fx.Node) -> bool:
    """Whether a node remains a view whatever the strides along the layers are."""
    if node.op == "get_attr":
        return True
    if not is_view(node.target):
        return False
    return node.target not in RESHAPES or shape_of(node)[:1] == shape_of(node.args[0])[:1]


def _compiled(program: Traced) -> Callable[..., Any]:
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            node.target = DIRECT.get(node.target._schema.name, node.target)
    return program.function()
