"""A model as an ONNX file: columns of a table in, its target out; by PyTorch's exporter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mgnet import __version__
from mgnet.app.exports.formula import Formula
from mgnet.app.exports.plain_network import PlainNetwork

__all__ = ["onnx_bytes"]


def onnx_bytes(formula: Formula) -> bytes:
    """The content of the file; the same for the same model and packages.

    Each column is an input of its own name, a vector of doubles, and so is the target, the output.

    Parameters
    ----------
    formula : Formula

    Raises
    ------
    ImportError
        If onnx or onnxscript is missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"ONNX files need onnx and onnxscript, and {error.name} is missing: "
            "pip install 'mgnet-solvers[export]'"
        ) from None
    network = PlainNetwork(formula).eval()
    x = torch.zeros(2, len(formula.columns), dtype=torch.float64)
    with _quiet():
        program: Any = torch.onnx.export(
            network,
            (x,),
            input_names=["x"],
            output_names=["y"],
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            verbose=False,
        )
    model = program.model_proto
    _rename(model.graph, {*formula.columns, formula.target})
    _add_columns(model.graph, formula)
    model.producer_name, model.producer_version = "mgnet", __version__
    model.doc_string = f"{formula.target}: {formula.told}"
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, formula.described())
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself and of libraries that no model needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _rename(graph: Any, taken: set[str]) -> None:
    """Number all values; none has the name of a column, and none tells where it was made."""
    start = "value_"
    while any(name.startswith(start) for name in taken):
        start = f"_{start}"
    names: dict[str, str] = {"": ""}  # an optional input that is not there

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


def _add_columns(graph: Any, formula: Formula) -> None:
    """Put the columns before the graph of one matrix, and the target behind it."""
    from onnx import TensorProto, helper

    (x,), (y,) = graph.input, graph.output
    parts, before = [], []
    for number, name in enumerate(formula.columns):
        parts.append(f"{x.name}_{number}")
        before.append(helper.make_node("Unsqueeze", [name, f"{x.name}_axis"], parts[-1:]))
    before.append(helper.make_node("Concat", parts, [x.name], axis=1))
    after = [helper.make_node("Squeeze", [y.name, f"{x.name}_axis"], [formula.target])]
    graph.initializer.append(helper.make_tensor(f"{x.name}_axis", TensorProto.INT64, [1], [1]))
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    double = TensorProto.DOUBLE
    for name, (low, high) in zip(formula.columns, formula.ranges.tolist(), strict=True):
        told = f"{low:g} to {high:g} in the training rows"
        graph.input.append(helper.make_tensor_value_info(name, double, ["rows"], told))
    told = f"{formula.target} at these inputs"
    graph.output.append(helper.make_tensor_value_info(formula.target, double, ["rows"], told))
