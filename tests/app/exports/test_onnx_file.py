"""onnxruntime predicts what the model does, from the columns of a table in their own units."""

import json

import numpy as np
import pytest

from mgnet.app.exports.formula import Formula
from mgnet.app.exports.onnx_file import onnx_bytes


def test_what_is_missing_is_named(drawn, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(
        ImportError, match=r"onnx .*is missing: pip install 'mgnet-solvers.export.'"
    ):
        onnx_bytes(Formula.of(drawn(0)[0]))


@pytest.mark.parametrize("seed", [2, 3, 4, 5, 6])  # every degree; with and without a linear layer
def test_onnxruntime_predicts_what_the_model_does(seed, drawn, difference):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, x = drawn(seed)
    content = onnx_bytes(Formula.of(model))
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == list(model.names)
    assert [given.name for given in session.get_outputs()] == list(model.targets.names)

    def predict(x):
        return session.run(None, dict(zip(model.names, x.T, strict=True)))[0]

    assert difference(predict(x), model.predict(x)) < 1e-12
    x[3, 0] = np.nan
    assert np.isnan(predict(x[3:4])).all() and predict(x[:0]).shape == (0,)
    x[3] = np.inf
    np.testing.assert_array_equal(np.isinf(predict(x[3:4])), np.isinf(model.predict(x[3:4])))


def test_a_file_tells_what_it_is_and_is_the_same_each_time(drawn):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model, _ = drawn(1)
    content = onnx_bytes(Formula.of(model))
    assert content == onnx_bytes(Formula.of(drawn(1)[0]))
    read = onnx.load_from_string(content)
    told = {entry.key: entry.value for entry in read.metadata_props}
    assert read.producer_name == "mgnet" and json.loads(told["targets"]) == list(
        model.targets.names
    )
    assert json.loads(told["inputs"]) == list(model.names) == list(json.loads(told["ranges"]))
    assert not any(word in content for word in (b".py", b"stack_trace", b"torch"))
