"""From a layer written in Python to short functions of stacked tensors.

`torch.vmap` of a block spends most of its time on a small layer in Python. So a layer's slope and
its vector-Jacobian products are traced once, to graphs of plain tensor operations:

1. `trace_layer` traces *one* layer, forward and backward, and cuts the graph into `forward`, which
   also returns what it saves, `pull` and `pull_all`.
2. `batch` maps such a graph over many layers (`vmap`, layers on axis 0 of everything that goes in
   or comes out), removes what does nothing, and gives a `Program`.

Since what is saved comes out of `vmap` with the layers on axis 0, it can be cut into layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch.func import functionalize, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

__all__ = ["OneLayer", "Program", "batch", "trace_layer"]

aten = torch.ops.aten
RESHAPES = (aten.view.default, aten._unsafe_view.default)
CONVOLUTIONS = (aten.convolution.default, aten.convolution_backward.default)
# Operations that vmap has no rule for, by those that it has rules for.
TABLE = get_decompositions([aten._native_batch_norm_legit_functional, aten.native_batch_norm])
# Torch's own functions take the same arguments and skip one call in Python.
DIRECT = {
    f"aten::{name}": getattr(torch, name)
    for name in (
        "add addcmul baddbmm bmm cat clone cos div exp mul neg permute relu rsub select sigmoid "
        "sin sqrt sub sum tanh transpose unsqueeze"
    ).split()
}
DIRECT |= {"aten::view": torch.reshape, "aten::_unsafe_view": torch.reshape}


@dataclass(frozen=True, eq=False)
class OneLayer:
    """The graphs of one layer; `tensors` are its parameters, buffers, time and step.

    Attributes
    ----------
    differentiable : fx.GraphModule or None
        `(*tensors, state) -> slope`, for autograd; None where autograd would not find in it what
        the block says (its own backward passes, `no_grad` inside).
    slope : fx.GraphModule
        `(*tensors, state) -> slope`.
    forward : fx.GraphModule
        `(*tensors, state) -> slope, *changed buffers, *saved`.
    pull, pull_all : fx.GraphModule
        `(*tensors, *saved, lam) -> dstate` and `-> dstate, *dparameters[, dstep]`.
    changed : tuple of int
        Numbers of the buffers that the block updates.
    convolves : bool
        Many layers at once are then grouped convolutions: slower, with other roundings.
    """

    differentiable: fx.GraphModule | None
    slope: fx.GraphModule
    forward: fx.GraphModule
    pull: fx.GraphModule
    pull_all: fx.GraphModule
    changed: tuple[int, ...]
    convolves: bool


@dataclass(frozen=True, eq=False)
class Program:
    """`run(*prepare(*tensors), *rest)`; what is prepared are views of the layers' tensors.

    `results` have the shapes, strides and types of what comes out.
    """

    prepare: Callable[..., tuple[Tensor, ...]]
    run: Callable[..., Any]
    results: list[Tensor]


def trace_layer(
    slope: Callable[..., tuple[Tensor, Sequence[Tensor]]],
    parameters: Sequence[Tensor],
    buffers: Sequence[Tensor],
    time: Tensor,
    step: Tensor,
    state: Tensor,
    pulls_step: bool = False,
) -> OneLayer:
    """Trace `slope(parameters, buffers, time, step, state) -> slope, new buffers` for one layer."""
    changeable = range(len(parameters), len(parameters) + len(buffers))
    watch = _HiddenFromAutograd()

    def joint(*inputs: Tensor) -> tuple[Any, ...]:
        *tensors, time, step, state, lam = inputs
        p = [x.detach().requires_grad_() for x in tensors[: len(parameters)]]
        b = [tensors[i].clone() for i in changeable]
        h = step.detach().requires_grad_() if pulls_step else step
        u = state.detach().requires_grad_()
        with torch.enable_grad(), watch:
            value, new = slope(p, b, time, h, u)
        watch.look(value)
        leaves = [u, *p, *[h] * pulls_step]
        if not value.requires_grad:
            return value, *new, torch.zeros_like(u), *map(torch.zeros_like, leaves)
        few = torch.autograd.grad(value, u, lam, retain_graph=True, materialize_grads=True)
        return value, *new, *few, *torch.autograd.grad(value, leaves, lam, materialize_grads=True)

    inputs = (*parameters, *buffers, time, step, state, torch.empty_like(state))
    traced = _trace(joint, inputs)
    if any(_is(node, "is_mutable") for node in traced.graph.nodes):
        traced = _trace(functionalize(traced), inputs)
    for node in traced.graph.nodes:
        if is_random(node.target):
            refuse_random(node.target)
    return _cut(traced, len(inputs) - 2, changeable, watch.found)


class _HiddenFromAutograd(TorchFunctionMode):
    """Notices what a graph of a block's operations would lose: `no_grad`, own backward passes."""

    found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found = self.found or (func is torch._C._set_grad_enabled and not args[0])
        return func(*args, **(kwargs or {}))

    def look(self, value: Tensor) -> None:
        left, seen = [value.grad_fn], set()
        while left:
            node = left.pop()
            if node is not None and node not in seen:
                seen.add(node)
                left += [parent for parent, _ in node.next_functions]
        kind = torch.autograd.function.BackwardCFunction
        self.found = self.found or any(isinstance(node, kind) for node in seen)


def is_random(operation: Any) -> bool:
    """Whether an operation draws random numbers."""
    overload = isinstance(operation, torch._ops.OpOverload)
    return overload and torch.Tag.nondeterministic_seeded in operation.tags


def refuse_random(operation: Any) -> None:
    """Say that a block may not draw random numbers."""
    raise ValueError(
        f"the block draws random numbers by {operation}, so two evaluations of a layer differ; use "
        "nn.Dropout modules, whose masks are fixed for each call"
    )


def _trace(function: Callable[..., Any], inputs: Sequence[Tensor]) -> fx.GraphModule:
    trace = make_fx(
        function, tracing_mode="fake", decomposition_table=TABLE, _allow_non_fake_inputs=True
    )
    return trace(*inputs)


def _is(node: fx.Node, what: str) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return node.target.is_view if what == "is_view" else node.target._schema.is_mutable


def _cut(traced: fx.GraphModule, tensors: int, changeable: range, opaque: bool) -> OneLayer:
    """The parts of a joint graph `(*tensors, state, lam) -> slope, *buffers, dstate, *every`."""
    inputs = traced.graph.find_nodes(op="placeholder")
    layer, state, lam = inputs[:tensors], inputs[tensors], inputs[tensors + 1]
    for node in inputs:  # not the block's own `detach`, which autograd must see
        _drop_users(node, aten.detach.default, aten.clone.default)
    differentiable = _extract(traced, [*layer, state], _results(traced)[0])
    for node in traced.graph.nodes:
        _drop_users(node, aten.detach.default)
    value, *rest = _results(traced)
    new, (dstate, *every) = rest[: len(changeable)], rest[len(changeable) :]
    changed = [k for k, i in enumerate(changeable) if new[k] is not inputs[i]]
    saved = _border(traced.graph, layer, lam, [dstate, *every])
    forward = (value, *(new[k] for k in changed), *saved)
    return OneLayer(
        differentiable=None if opaque else differentiable,
        slope=_extract(traced, [*layer, state], value),
        forward=_extract(traced, [*layer, state], forward),
        pull=_extract(traced, [*layer, *saved, lam], dstate),
        pull_all=_extract(traced, [*layer, *saved, lam], tuple(every)),
        changed=tuple(changed),
        convolves=any(node.target in CONVOLUTIONS for node in traced.graph.nodes),
    )


def _results(traced: fx.GraphModule) -> list[fx.Node]:
    results: Any = traced.graph.output_node().args[0]
    return [results] if isinstance(results, fx.Node) else list(results)


def _drop_users(node: fx.Node, *targets: Any) -> None:
    """Use a node instead of what `targets` make of it."""
    for user in list(node.users):
        if user in node.users and user.target in targets:
            user.replace_all_uses_with(node)
            node.graph.erase_node(user)
            _drop_users(node, *targets)


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
            _is(node, "is_view") and free.issuperset(node.all_input_nodes)
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
    one: fx.GraphModule, inputs: Sequence[Tensor], tensors: int, alone: bool = False
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
    many = _trace(_of_one_layer(one) if alone else vmap(one), inputs)
    for node in many.graph.nodes:
        _drop_if_idle(node)
    many.graph.eliminate_dead_code()
    for node in many.graph.nodes:
        _fuse_product_and_sum(node)
    many.graph.eliminate_dead_code()
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


def _drop_if_idle(node: fx.Node) -> None:
    """Remove what gives back its argument: much of what vmap inserts."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return
    source = node.args[0]
    same = node.target in (*RESHAPES, aten.expand.default) and _shape(node) == _shape(source)
    one = node.target is aten.mul.Scalar and node.args[1] == 1
    twice = node.target is source.target is aten.transpose.int and node.args[1:] == source.args[1:]
    if same or (one and node.meta["val"].dtype == source.meta["val"].dtype):
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


def _keeps_layers(node: fx.Node) -> bool:
    """Whether a node is a view, whatever the strides along the layers."""
    if node.op == "get_attr":
        return True
    if not _is(node, "is_view"):
        return False
    return node.target not in RESHAPES or _shape(node)[:1] == _shape(node.args[0])[:1]


def _compiled(program: fx.GraphModule) -> Callable[..., Any]:
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            node.target = DIRECT.get(node.target._schema.name, node.target)
    program.recompile()
    return program.forward
