"""Tracing: a layer written in Python becomes short functions of stacked tensors.

For small layers, `torch.vmap` of a block spends most of its time in Python. A layer's slope and its
vector-Jacobian products are therefore traced once to graphs of plain tensor operations:

1. `trace_layer` traces *one* layer, forward and backward, and divides the graph into `forward`,
   which also returns saved tensors, `vjp` and `vjp_all`.
2. `programs.batch` maps such a graph over many layers.

A layer is traced for one shape, or for many: see `stand_ins.py`. Graphs for many shapes have the
symbolic sizes of a state as their first arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from mgnet.depth.batched.arithmetic import EDITS, TABLE
from mgnet.depth.batched.graphs import Traced, extract, is_number, open_sizes, results, taken
from mgnet.depth.batched.stand_ins import mode_for, spare_mode
from mgnet.depth.batched.surroundings import Watch

__all__ = [
    "RESHAPES",
    "OneLayer",
    "alike",
    "is_view",
    "merge_equal",
    "shape_of",
    "trace",
    "trace_for_autograd",
    "trace_layer",
]

aten = torch.ops.aten
RESHAPES = (aten.view.default, aten._unsafe_view.default)
# `u[:, 0]` slices axis 0, except if PyTorch knows its size; afterwards, the whole axis.
SLICES = {aten.slice.Tensor: 2, aten.slice_backward.default: 3}
WHOLE = ((0, 2**63 - 1), (0, 2**63 - 1, 1))
CONVOLUTIONS = (aten.convolution.default, aten.convolution_backward.default)


@dataclass(frozen=True, eq=False)
class OneLayer:
    """The graphs of one layer; `tensors` are its parameters, buffers, time and step.

    The symbolic sizes precede the arguments listed here.

    Attributes
    ----------
    slope : Traced
        The function `(*tensors, state) -> slope`.
    forward : Traced
        The function `(*tensors, state) -> slope, *changed buffers, *saved`.
    vjp, vjp_all : Traced
        Functions `(*tensors, *saved, lam) -> dstate` and `-> dstate, *dparameters[, dstep]`.
    changed : tuple of int
        Positions of the buffers that the block updates.
    convolves : bool
        Whether many layers at once would become grouped convolutions, which are slower and round
        differently.
    hidden : bool
        Whether autograd, applied to the graphs, would miss parts of the block: custom backward
        passes, tensor hooks, `no_grad`, or in-place edits of strided views, which have wrong
        derivatives if rewritten as functions.
    """

    slope: Traced
    forward: Traced
    vjp: Traced
    vjp_all: Traced
    changed: tuple[int, ...]
    convolves: bool
    hidden: bool

    def about(self) -> tuple[Any, ...]:
        """All data other than the graphs."""
        return self.changed, self.convolves, self.hidden


Slope = Callable[..., tuple[Tensor, Sequence[Tensor]]]


def trace_layer(
    slope: Slope,
    inputs: Sequence[Tensor],
    parameters: int,
    stages: int,
    axes: Sequence[int] = (),
) -> OneLayer:
    """Trace one layer.

    Parameters
    ----------
    slope : callable
        The function `(parameters, buffers, time, step, state) -> slope, new buffers`; it may edit
        its buffers.
    inputs : sequence of Tensor
        The parameters, the buffers, the time, the step and the state of one layer.
    parameters : int
        Number of parameters.
    stages : int
        Number of stages; with one stage, the slope does not depend on the step.
    axes : sequence of int
        Axes of the state with symbolic sizes; the inputs are then those of `StandIns`.

    Returns
    -------
    OneLayer
        The graphs.
    """
    watch = Watch()

    def joint(*inputs: Tensor) -> tuple[Any, ...]:
        *tensors, time, step, state, lam = inputs
        p = [x.detach().requires_grad_() for x in tensors[:parameters]]
        h = step.detach().requires_grad_() if stages > 1 else step
        leaf = state.detach().requires_grad_()
        with torch.enable_grad(), watch:
            u = leaf.clone()  # PyTorch itself refuses edits of a leaf, with another message
            value, new = slope(p, [x.clone() for x in tensors[parameters:]], time, h, u)
        watch.look(value)
        leaves = [leaf, *p, *[h] * (stages > 1)]
        if not value.requires_grad:
            return value, *new, torch.zeros_like(leaf), *map(torch.zeros_like, leaves)
        few = torch.autograd.grad(value, leaf, lam, retain_graph=True, materialize_grads=True)
        return value, *new, *few, *torch.autograd.grad(value, leaves, lam, materialize_grads=True)

    traced, sizes = _purely(joint, (*inputs, torch.empty_like(inputs[-1])), TABLE, axes)
    strided = {"op": "call_function", "target": aten.as_strided_scatter.default}
    hidden = watch.hidden or bool(traced.graph.find_nodes(**strided))
    if watch.hidden:
        merge_equal(traced.graph)
    return _cut(traced, sizes, len(inputs) - 1, range(parameters, len(inputs) - 3), hidden)


def trace_for_autograd(
    slope: Slope, inputs: Sequence[Tensor], parameters: int, axes: Sequence[int] = ()
) -> Traced:
    """The graph `(*tensors, state) -> slope` of one layer with the block's own autograd."""

    def forward(*inputs: Tensor) -> Tensor:
        buffers = [x.clone() for x in inputs[parameters:-3]]
        return slope(inputs[:parameters], buffers, *inputs[-3:])[0]

    return _purely(forward, inputs, EDITS, axes)[0]


def _purely(
    function: Callable[..., Any], inputs: Sequence[Tensor], table: Any, axes: Sequence[int]
) -> tuple[Traced, list[fx.Node]]:
    """A graph without in-place edits, and its inputs that are the sizes of its last tensor."""
    unknown = [inputs[-1].shape[axis] for axis in axes]
    traced = trace(function, inputs, table)
    sizes = open_sizes(traced.graph, unknown)
    if any(_changes_inputs(node.target) for node in traced.graph.nodes):
        pure = functionalize(traced)

        def again(*inputs: Tensor) -> Any:
            return pure(*[inputs[-1].shape[axis] for axis in axes], *inputs)

        traced = trace(again if axes else pure, inputs, table)
        for node in traced.graph.find_nodes(op="call_function", target=aten.copy.default):
            if alike(node, node.args[1]):
                node.replace_all_uses_with(node.args[1])
        traced.graph.eliminate_dead_code()
        sizes = open_sizes(traced.graph, unknown)
    return traced, sizes


def trace(function: Callable[..., Any], inputs: Sequence[Tensor], table: Any) -> Traced:
    """The operations of a function of tensors, which may be stand-ins."""
    mode = mode_for(inputs) or spare_mode()
    given = [x if mode_for([x]) else mode.from_tensor(x, static_shapes=True) for x in inputs]
    make = make_fx(function, decomposition_table=table, _allow_non_fake_inputs=True)
    # The other implementations of attention have no rule for vmap.
    with sdpa_kernel(SDPBackend.MATH), _no_hooks(), mode:
        traced = taken(make(*given))
    for node in traced.graph.nodes:
        if node.target in SLICES and node.args[SLICES[node.target] :] in WHOLE:
            node.replace_all_uses_with(node.args[0])
    traced.graph.eliminate_dead_code()
    return traced


def _no_hooks() -> AbstractContextManager[Any]:
    """A context without hooks: checkpoints count saved tensors, but only a first run is traced."""
    autograd: Any = torch._C._autograd  # type: ignore[attr-defined]
    if autograd._top_saved_tensors_default_hooks(False) is None:
        return nullcontext()
    return saved_tensors_hooks(_itself, _itself)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def is_view(operation: Any) -> bool:
    """Whether an operation returns a view of its argument."""
    return isinstance(operation, torch._ops.OpOverload) and operation.is_view


def _changes_inputs(operation: Any) -> bool:
    return isinstance(operation, torch._ops.OpOverload) and operation._schema.is_mutable


def _cut(
    traced: Traced, sizes: list[fx.Node], tensors: int, changeable: range, hidden: bool
) -> OneLayer:
    """Divide a graph `(*sizes, *tensors, state, lam) -> slope, *buffers, dstate, *every`."""
    inputs = traced.graph.find_nodes(op="placeholder")[len(sizes) :]
    layer, state, lam = inputs[:tensors], inputs[tensors], inputs[tensors + 1]
    for node in traced.graph.nodes:  # there are no edits: copies and guards are unnecessary
        if node.target in RESHAPES:
            node.target = aten.reshape.default  # strides may differ for many layers
        elif node.target is aten.detach.default or (
            node.target is aten.clone.default and not node.kwargs
        ):
            node.replace_all_uses_with(node.args[0])
    value, *rest = results(traced.graph)
    new, (dstate, *every) = rest[: len(changeable)], rest[len(changeable) :]
    changed = [k for k, i in enumerate(changeable) if new[k] is not inputs[i]]
    for k in changed:  # the backward pass follows the update, and needs the old values
        _use_copy(traced.graph, inputs[changeable[k]], inputs[-1])
    saved = _border(traced.graph, layer, lam, [dstate, *every])
    forward = (value, *(new[k] for k in changed), *saved)
    before, after = [*sizes, *layer, state], [*sizes, *layer, *saved, lam]
    return OneLayer(
        slope=extract(traced, before, value).bare(),
        forward=extract(traced, before, forward).bare(),
        vjp=extract(traced, after, dstate).bare(),
        vjp_all=extract(traced, after, tuple(every)).bare(),
        changed=tuple(changed),
        convolves=any(node.target in CONVOLUTIONS for node in traced.graph.nodes),
        hidden=hidden,
    )


def merge_equal(graph: fx.Graph) -> None:
    """Compute operations only once if they are repeated in stages or in a block's backward passes.

    Examples
    --------
    >>> graph = fx.Graph()
    >>> x = graph.placeholder("x")
    >>> parts = tuple(graph.call_function(torch.neg, (x,)) for _ in range(2))
    >>> _ = graph.output(graph.call_function(torch.add, parts))
    >>> merge_equal(graph)
    >>> len(graph.nodes)
    4
    """
    first: dict[Any, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            same = first.setdefault((node.target, str(node.args), str(node.kwargs)), node)
            if same is not node:
                node.replace_all_uses_with(same)
    graph.eliminate_dead_code()


def _use_copy(graph: fx.Graph, node: fx.Node, behind: fx.Node) -> None:
    with graph.inserting_after(behind):
        copied = graph.call_function(aten.clone.default, (node,))
    copied.meta = dict(node.meta)
    node.replace_all_uses_with(copied, lambda user: user is not copied)


def _border(
    graph: fx.Graph, layer: list[fx.Node], lam: fx.Node, outputs: list[fx.Node]
) -> list[fx.Node]:
    """The values of the forward pass to be saved for products; views of a layer are free.

    Numbers are also free, because they are computed from the sizes wherever they are needed.
    """
    late, free, border = {lam}, set(layer), {}
    for node in graph.nodes:
        if late.intersection(node.all_input_nodes):
            late.add(node)
            border |= dict.fromkeys(node.all_input_nodes)
        elif (
            node.op == "get_attr"
            or is_number(node)
            or (is_view(node.target) and free.issuperset(node.all_input_nodes))
        ):
            free.add(node)
    border |= dict.fromkeys(outputs)
    return [node for node in border if node not in late and node not in free]


def shape_of(node: Any) -> Any:
    """The shape of the value of a node."""
    return node.meta["val"].shape


def alike(node: Any, other: Any) -> bool:
    """Whether the values of two nodes are tensors with the same shape and type."""
    return shape_of(node) == shape_of(other) and node.meta["val"].dtype == other.meta["val"].dtype
