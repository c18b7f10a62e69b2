"""Texts go in and labels come out of an ONNX file."""

import numpy as np
import pytest

from mgnet.app.exports.onnx_file import onnx_bytes


@pytest.mark.parametrize("classes", [(), ("a", "b", "ü")])
def test_texts_several_targets_and_classes(classes, mixed):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    formula, columns, _, right = mixed(2, classes)
    names = [column.name for column in formula.columns]
    content = onnx_bytes(formula)
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == names
    columns[0][7] = np.nan
    found = session.run(None, dict(zip(names, columns, strict=True)))
    outputs = [given.name for given in session.get_outputs()]
    there = np.arange(len(right)) != 7
    if not classes:
        assert outputs == list(formula.targets)
        found = np.column_stack(found)
    else:
        assert outputs == ["kind", "kind_probabilities"]
        labels, found = found
        best = np.array(classes, dtype=object)[right.argmax(1)]
        assert labels[7] == "" and labels[there].tolist() == best[there].tolist()
    assert np.isnan(found[7]).all()
    np.testing.assert_allclose(found[there], right[there], rtol=1e-12)
