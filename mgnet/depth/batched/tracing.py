"""From a layer written in Python to short functions of stacked tensors.

`torch.vmap` of a block spends most of its time on a small layer in Python. So a layer's slope and
its vector-Jacobian products are traced once, to graphs of plain tensor operations:

1. `trace_layer` traces *one* layer, forward and backward, and cuts the graph into `forward`, which
   also returns what it saves, `vjp` and `vjp_all`.
2. `batch` maps such a graph over many layers (`vmap`, layers on axis 0 of everything that goes in
   or comes out), removes what does nothing, and gives a `Program`.

Since what is saved comes out of `vmap` with the layers on axis 0, it can be cut into layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functionalize, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from mgnet.depth.batched.arithmetic import TABLE
from mgnet.depth.batched.surroundings import Watch

__all__ = [
    "NoRandomNumbers",
    "OneLayer",
    "Program",
    "batch",
    "trace_for_autograd",
    "trace_layer",
]

aten = torch.ops.aten
RESHAPES = (aten.view.default, aten._unsafe_view.default)
CONVOLUTIONS = (aten.convolution.default, aten.convolution_backward.default)
# Torch's own functions take the same arguments and skip one call in Python.
DIRECT = {
    f"aten::{name}": getattr(torch, name)
    for name in (
        "add addcmul baddbmm bmm cat clone cos div exp mul neg permute relu rsub select sigmoid "
        "sin sqrt sub sum tanh tanh_ transpose unsqueeze"
    ).split()
}
DIRECT |= {"aten::view": torch.reshape, "aten::_unsafe_view": torch.reshape}


@dataclass(frozen=True, eq=False)
class OneLayer:
    """The graphs of one layer; `tensors` are its parameters, buffers, time and step.

    Attributes
    ----------
    slope : fx.GraphModule
        `(*tensors, state) -> slope`.
    forward : fx.GraphModule
        `(*tensors, state) -> slope, *changed buffers, *saved`.
    vjp, vjp_all : fx.GraphModule
        `(*tensors, *saved, lam) -> dstate` and `-> dstate, *dparameters[, dstep]`.
    changed : tuple of int
        Numbers of the buffers that the block updates.
    convolves : bool
        Many layers at once are then grouped convolutions: slower, with other roundings.
    hidden : bool
        Autograd would not find in the graphs what the block says: own backward passes, `no_grad`.
    """

    slope: fx.GraphModule
    forward: fx.GraphModule
    vjp: fx.GraphModule
    vjp_all: fx.GraphModule
    changed: tuple[int, ...]
    convolves: bool
    hidden: bool


@dataclass(frozen=True, eq=False)
class Program:
    """`run(*prepare(*tensors), *rest)`; what is prepared are views of the layers' tensors.

    `results` have the shapes, strides and types of what comes out.
    """

    prepare: Callable[..., tuple[Tensor, ...]]
    run: Callable[..., Any]
    results: list[Tensor]


Slope = Callable[..., tuple[Tensor, Sequence[Tensor]]]


def trace_layer(slope: Slope, inputs: Sequence[Tensor], parameters: int, stages: int) -> OneLayer:
    """Trace one layer.

    Parameters
    ----------
    slope : callable
        `(parameters, buffers, time, step, state) -> slope, new buffers`; may edit its buffers.
    inputs : sequence of Tensor
        The parameters, the buffers, the time, the step and the state of one layer.
    parameters : int
        How many parameters there are.
    stages : int
        With one stage the slope does not depend on the step.
    """
    watch = Watch()

    def joint(*inputs: Tensor) -> tuple[Any, ...]:
        *tensors, time, step, state, lam = inputs
        p = [x.detach().requires_grad_() for x in tensors[:parameters]]
        h = step.detach().requires_grad_() if stages > 1 else step
        leaf = state.detach().requires_grad_()
        with torch.enable_grad(), watch:
            u = leaf.clone()  # of a leaf, PyTorch itself refuses edits, in other words than `slope`
            value, new = slope(p, [x.clone() for x in tensors[parameters:]], time, h, u)
        watch.look(value)
        leaves = [leaf, *p, *[h] * (stages > 1)]
        if not value.requires_grad:
            return value, *new, torch.zeros_like(leaf), *map(torch.zeros_like, leaves)
        few = torch.autograd.grad(value, leaf, lam, retain_graph=True, materialize_grads=True)
        return value, *new, *few, *torch.autograd.grad(value, leaves, lam, materialize_grads=True)

    traced = _traced_purely(joint, (*inputs, torch.empty_like(inputs[-1])), TABLE)
    return _cut(traced, len(inputs) - 1, range(parameters, len(inputs) - 3), watch.hidden)


def trace_for_autograd(slope: Slope, inputs: Sequence[Tensor], parameters: int) -> fx.GraphModule:
    """The graph `(*tensors, state) -> slope` of one layer as the block says it, for autograd."""

    def forward(*inputs: Tensor) -> Tensor:
        buffers = [x.clone() for x in inputs[parameters:-3]]
        return slope(inputs[:parameters], buffers, *inputs[-3:])[0]

    return _traced_purely(forward, inputs, None)


def _traced_purely(
    function: Callable[..., Any], inputs: Sequence[Tensor], table: Any
) -> fx.GraphModule:
    traced = _trace(function, inputs, table)
    if any(_changes_inputs(node.target) for node in traced.graph.nodes):
        traced = _trace(functionalize(traced), inputs, table)
        for node in traced.graph.find_nodes(op="call_function", target=aten.copy.default):
            if _alike(node, node.args[1]):
                node.replace_all_uses_with(node.args[1])
        traced.graph.eliminate_dead_code()
    return traced


class NoRandomNumbers(TorchDispatchMode):
    """Refuses operations that draw random numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            schema = func._schema.arguments
            given = {x.name: x.default_value for x in schema} | (kwargs or {})
            given |= {x.name: value for x, value in zip(schema, args, strict=False)}
            idle = (
                given.get("dropout_p") == 0.0 or given.get("training", given.get("train")) is False
            )
            if not idle:
                raise ValueError(
                    f"the block draws random numbers by {func}, so two evaluations of a layer "
                    "differ; use nn.Dropout modules, whose masks an ODENet keeps"
                )
        return func(*args, **(kwargs or {}))


def _trace(function: Callable[..., Any], inputs: Sequence[Tensor], table: Any) -> fx.GraphModule:
    trace = make_fx(
        function, tracing_mode="fake", decomposition_table=table, _allow_non_fake_inputs=True
    )
    with sdpa_kernel(SDPBackend.MATH), _no_hooks():  # the others have no rule for vmap
        return trace(*inputs)


def _no_hooks() -> AbstractContextManager[Any]:
    """A checkpoint counts what is saved, but traces are made in its first run only."""
    autograd: Any = torch._C._autograd  # type: ignore[attr-defined]
    if autograd._top_saved_tensors_default_hooks(False) is None:
        return nullcontext()
    return saved_tensors_hooks(_itself, _itself)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _is_view(operation: Any) -> bool:
    return isinstance(operation, torch._ops.OpOverload) and operation.is_view


def _changes_inputs(operation: Any) -> bool:
    return isinstance(operation, torch._ops.OpOverload) and operation._schema.is_mutable


def _cut(traced: fx.GraphModule, tensors: int, changeable: range, hidden: bool) -> OneLayer:
    """The parts of a joint graph `(*tensors, state, lam) -> slope, *buffers, dstate, *every`."""
    inputs = traced.graph.find_nodes(op="placeholder")
    layer, state, lam = inputs[:tensors], inputs[tensors], inputs[tensors + 1]
    for node in traced.graph.nodes:  # nothing is edited any more: no copies, no guards
        if node.target in RESHAPES:
            node.target = aten.reshape.default  # strides may differ for many layers
        elif node.target is aten.detach.default or (
            node.target is aten.clone.default and not node.kwargs
        ):
            node.replace_all_uses_with(node.args[0])
    value, *rest = _results(traced)
    new, (dstate, *every) = rest[: len(changeable)], rest[len(changeable) :]
    changed = [k for k, i in enumerate(changeable) if new[k] is not inputs[i]]
    for k in changed:  # the backward pass comes after the update, and needs what was before
        _use_copy(traced.graph, inputs[changeable[k]], inputs[-1])
    saved = _border(traced.graph, layer, lam, [dstate, *every])
    forward = (value, *(new[k] for k in changed), *saved)
    return OneLayer(
        slope=_extract(traced, [*layer, state], value),
        forward=_extract(traced, [*layer, state], forward),
        vjp=_extract(traced, [*layer, *saved, lam], dstate),
        vjp_all=_extract(traced, [*layer, *saved, lam], tuple(every)),
        changed=tuple(changed),
        convolves=any(node.target in CONVOLUTIONS for node in traced.graph.nodes),
        hidden=hidden,
    )


def _use_copy(graph: fx.Graph, node: fx.Node, behind: fx.Node) -> None:
    with graph.inserting_after(behind):
        copied = graph.call_function(aten.clone.default, (node,))
    copied.meta = dict(node.meta)
    node.replace_all_uses_with(copied, lambda user: user is not copied)


def _results(traced: fx.GraphModule) -> list[fx.Node]:
    results: Any = traced.graph.output_node().args[0]
    return [results] if isinstance(results, fx.Node) else list(results)


def _border(
    graph: fx.Graph, layer: list[fx.Node], lam: fx.Node, outputs: list[fx.Node]
) -> list[fx.Node]:
    """What vector-Jacobian products need of the forward pass; views of a layer are free."""
    late, free, border = {lam}, set(layer), {}
    for node in graph.nodes:
        if late.intersection(node.all_input_nodes):
            late.add(node)
            border |= dict.fromkeys(node.all_input_nodes)
        elif node.op == "get_attr" or (
            _is_view(node.target) and free.issuperset(node.all_input_nodes)
        ):
            free.add(node)
    border |= dict.fromkeys(outputs)
    return [node for node in border if node not in late and node not in free]


def _extract(owner: fx.GraphModule, inputs: Sequence[fx.Node], results: Any) -> fx.GraphModule:
    """The part of a graph that leads from some of its nodes to some others."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    needed, left = set(copies), [results] if isinstance(results, fx.Node) else list(results)
    while left:
        node = left.pop()
        if node not in needed:
            needed.add(node)
            left += node.all_input_nodes
    for node in owner.graph.nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(fx.map_arg(results, copies.__getitem__))
    return fx.GraphModule(owner, graph)


def batch(
    one: fx.GraphModule, inputs: Sequence[Tensor], tensors: int, alone: bool, table: Any = TABLE
) -> Program:
    """The program of one layer's graph for many layers at once.

    Parameters
    ----------
    one : fx.GraphModule
        A graph of `OneLayer`.
    inputs : sequence of Tensor
        Its inputs, stacked; only their shapes, strides and types matter.
    tensors : int
        How many of them belong to the layers: views of these are prepared.
    alone : bool
        There is one layer, and `one` is taken as it is.
    """
    many = _trace(_of_one_layer(one) if alone else vmap(one), inputs, table)
    for node in many.graph.nodes:
        _drop_if_idle(node)
    many.graph.eliminate_dead_code()
    for node in many.graph.nodes:
        _fuse_product_and_sum(node)
    many.graph.eliminate_dead_code()
    for node in many.graph.nodes:
        _overwrite_product(node)
    nodes = many.graph.find_nodes(op="placeholder")
    free, used = set(nodes[:tensors]), {}
    for node in many.graph.nodes:
        if _keeps_layers(node) and free.issuperset(node.all_input_nodes):
            free.add(node)
        else:
            used |= dict.fromkeys(x for x in node.all_input_nodes if x in free)
    results = _results(many)
    output: Any = many.graph.output_node().args[0]
    prepare = _extract(many, nodes[:tensors], tuple(used))
    run = _extract(many, [*used, *nodes[tensors:]], output)
    return Program(_compiled(prepare), _compiled(run), [node.meta["val"] for node in results])


def _of_one_layer(one: fx.GraphModule) -> Callable[..., Any]:
    def run(*inputs: Tensor) -> Any:
        results = one(*[x[0] for x in inputs])
        if isinstance(results, Tensor):
            return results[None]
        return tuple([x[None] for x in results])

    return run


def _shape(node: Any) -> Any:
    return node.meta["val"].shape


def _alike(node: Any, other: Any) -> bool:
    return _shape(node) == _shape(other) and node.meta["val"].dtype == other.meta["val"].dtype


def _drop_if_idle(node: fx.Node) -> None:
    """Remove what gives back its argument: much of what vmap inserts."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return
    source = node.args[0]
    idle = node.target in (*RESHAPES, aten.expand.default, aten.alias.default)
    one = node.target is aten.mul.Scalar and node.args[1] == 1
    twice = node.target is source.target is aten.transpose.int and node.args[1:] == source.args[1:]
    if (idle or one) and _alike(node, source):
        node.replace_all_uses_with(source)
    elif twice:
        node.replace_all_uses_with(source.args[0])  # type: ignore[arg-type]


def _fuse_product_and_sum(node: fx.Node) -> None:
    """`bias + a @ b` in one operation."""
    if node.target is not aten.add.Tensor or node.kwargs:
        return
    for bias, product in (node.args, node.args[::-1]):
        if not isinstance(product, fx.Node) or not isinstance(bias, fx.Node):
            continue
        small = len(_shape(bias)) == 3 and _shape(bias) != _shape(product)
        if product.target is aten.bmm.default and len(product.users) == 1 and small:
            with node.graph.inserting_before(node):
                fused = node.graph.call_function(aten.baddbmm.default, (bias, *product.args))
            fused.meta = dict(node.meta)
            node.replace_all_uses_with(fused)
            return


def _overwrite_product(node: fx.Node) -> None:
    """`tanh(a @ b)` in place, where nothing else sees the product."""
    if node.target is aten.tanh.default and isinstance(node.args[0], fx.Node):
        product = node.args[0]
        fresh = product.target in (aten.baddbmm.default, aten.bmm.default)
        if fresh and len(product.users) == 1 and _alike(node, product):
            node.target = aten.tanh_.default


def _keeps_layers(node: fx.Node) -> bool:
    """Whether a node is a view, whatever the strides along the layers."""
    if node.op == "get_attr":
        return True
    if not _is_view(node.target):
        return False
    return node.target not in RESHAPES or _shape(node)[:1] == _shape(node.args[0])[:1]


def _compiled(program: fx.GraphModule) -> Callable[..., Any]:
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            node.target = DIRECT.get(node.target._schema.name, node.target)
    program.recompile()
    return program.forward
