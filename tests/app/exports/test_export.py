"""A saved model becomes the content of a file."""

import numpy as np
import pytest

from mgnet.app.exports import default_name, export_model


def test_a_model_in_a_folder(drawn, difference, tmp_path):
    model, x = drawn(7)
    model.save(tmp_path)
    for path in (tmp_path, tmp_path / "model.json"):
        names = {"__name__": "model"}
        exec(export_model(path, "python"), names)
        assert difference(names["predict"](x), model.predict(x)) < 1e-12
    assert b"import density" in export_model(tmp_path, "python", "density")
    assert isinstance(x, np.ndarray) and default_name("onnx") == "model.onnx"


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got to='excel'; it must be 'onnx' or 'python'"):
        export_model(tmp_path, "excel")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.json"):
        export_model(tmp_path, "python")
