"""Write a model as an ONNX file with PyTorch's exporter: columns of a table in, targets out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mgnet import __version__
from mgnet.app.exports.formula import Formula
from mgnet.app.exports.onnx_columns import attach
from mgnet.app.exports.plain_network import PlainNetwork

__all__ = ["onnx_bytes"]


def onnx_bytes(formula: Formula) -> bytes:
    """The content of the file, which depends only on the model and on the versions of the packages.

    Each column is an input with its own name, a vector of doubles or of texts, and each target is
    an output, a vector of doubles. A classifier has two outputs: the label of each row, empty if an
    input is missing, and `{target}_probabilities`, of shape (rows, classes).

    Parameters
    ----------
    formula : Formula
        Formula of the model.

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
    x = torch.zeros(2, len(formula.ranges), dtype=torch.float64)
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
    attach(model, formula)
    model.producer_name, model.producer_version = "mgnet", __version__
    model.doc_string = f"{', '.join(formula.targets)}: {formula.told}"
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, formula.described())
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages about itself and about libraries that models do not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
