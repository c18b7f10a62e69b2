"""The inputs and outputs of an ONNX graph: columns and targets by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mgnet.app.exports.formula import Formula
from mgnet.app.exports.input_column import InputColumn

__all__ = ["attach"]

ML = "ai.onnx.ml"  # the domain of the operator that looks up texts


def attach(model: Any, formula: Formula) -> None:
    """Wrap a graph of one matrix: one input for each column, one output for each target.

    Parameters
    ----------
    model : onnx.ModelProto
        Model to change in place.
    formula : Formula
        Formula of the model.
    """
    from onnx import helper

    graph = model.graph
    columns = [column.name for column in formula.columns]
    taken = {*columns, *formula.targets, *([probabilities_of(formula)] if formula.classes else [])}
    start = "value_"
    while any(name.startswith(start) for name in taken):
        start = f"_{start}"
    _rename(graph, start)
    ends = _Ends(graph, start)
    ends.before(formula)
    ends.behind(formula)
    if any(column.is_text for column in formula.columns):
        model.opset_import.append(helper.make_opsetid(ML, 3))


def probabilities_of(formula: Formula) -> str:
    """The name of the output with the class probabilities, different from all column names.

    Examples
    --------
    >>> columns = (InputColumn("kind_probabilities"),)
    >>> rest = (np.ones((1, 2)), np.ones(0), np.ones(0), 1, (-1.0, 1.0), "tanh", None, ())
    >>> probabilities_of(Formula(columns, ("kind",), ("a", "b"), *rest))
    'kind_probabilities_'
    """
    name = f"{formula.targets[0]}_probabilities"
    while name in {*formula.targets, *(column.name for column in formula.columns)}:
        name += "_"
    return name


def _rename(graph: Any, start: str) -> None:
    """Number all values, so that no name equals a column's or reveals the origin of a value."""
    names: dict[str, str] = {"": ""}  # an optional input that is missing

    def named(name: str) -> str:
        return names.setdefault(name, f"{start}{len(names)}")

    for value in (*graph.input, *graph.initializer, *graph.output):
        value.name = named(value.name)
    for number, node in enumerate(graph.node, 1):
        node.input[:] = map(named, node.input)
        node.output[:] = map(named, node.output)
        node.name, node.doc_string = f"{node.op_type}_{number}", ""
        del node.metadata_props[:]
    for part in (*graph.input, *graph.initializer, *graph.output):
        del part.metadata_props[:]
    del graph.value_info[:], graph.metadata_props[:]
    graph.name = "mgnet"


class _Ends:
    """Nodes to add, and names for their values."""

    def __init__(self, graph: Any, start: str):
        from onnx import helper, numpy_helper

        self.graph, self.start, self.count = graph, f"{start}at_", 0
        self.make, self.tensor = helper.make_node, numpy_helper.from_array
        self.vector: Callable[..., Any] = helper.make_tensor_value_info
        self.nodes: list[Any] = []

    def add(
        self, kind: str, *inputs: str, output: str = "", told: Mapping[str, Any] | None = None
    ) -> str:
        output = output or self.new()
        self.nodes.append(self.make(kind, list(inputs), [output], **(told or {})))
        return output

    def new(self) -> str:
        self.count += 1
        return f"{self.start}{self.count}"

    def constant(self, array: Any) -> str:
        name = self.new()
        self.graph.initializer.append(self.tensor(np.asarray(array), name))
        return name

    def before(self, formula: Formula) -> None:
        from onnx import TensorProto

        graph, (x,) = self.graph, self.graph.input
        axis = self.constant([1])
        parts = [
            self.add("Unsqueeze", column.name, axis)
            if not column.is_text
            else self.add("Cast", self._levels(column, axis), told={"to": TensorProto.DOUBLE})
            for column in formula.columns
        ]
        self.add("Concat", *parts, output=x.name, told={"axis": 1})
        nodes = [*self.nodes, *graph.node]
        del graph.node[:], graph.input[:]
        graph.node.extend(nodes)
        self.nodes = []
        for column, told in zip(formula.columns, formula.domains(), strict=True):
            kind = TensorProto.STRING if column.is_text else TensorProto.DOUBLE
            graph.input.append(self.vector(column.name, kind, ["rows"], told))

    def _levels(self, column: InputColumn, axis: str) -> str:
        told = {
            "domain": ML,
            "keys_strings": list(column.places),
            "values_int64s": list(column.places.values()),
            "default_int64": column.other,
        }
        place = self.add("LabelEncoder", column.name, told=told)
        every = self.constant(np.arange(column.features))
        return self.add("Equal", self.add("Unsqueeze", place, axis), every)

    def behind(self, formula: Formula) -> None:
        from onnx import TensorProto

        graph, (y,) = self.graph, self.graph.output
        del graph.output[:]
        if formula.classes:
            name, (target,) = probabilities_of(formula), formula.targets
            self.add("Identity", y.name, output=name)
            best = self.add("ArgMax", y.name, told={"axis": 1, "keepdims": 0})
            first = self.add("Gather", y.name, self.constant(0), told={"axis": 1})
            lost = self.add("IsNaN", first)
            place = self.add("Where", lost, self.constant(len(formula.classes)), best)
            labels = self.constant(np.array([*formula.classes, ""], dtype=object))
            self.add("Gather", labels, place, output=target)
            told = f"the likeliest of {len(formula.classes)} classes"
            graph.output.append(self.vector(target, TensorProto.STRING, ["rows"], told))
            shape = ["rows", len(formula.classes)]
            told = "in the order of the classes in the metadata"
            graph.output.append(self.vector(name, TensorProto.DOUBLE, shape, told))
        for number, target in enumerate(() if formula.classes else formula.targets):
            self.add("Gather", y.name, self.constant(number), output=target, told={"axis": 1})
            told = f"{target} at these inputs"
            graph.output.append(self.vector(target, TensorProto.DOUBLE, ["rows"], told))
        graph.node.extend(self.nodes)
