"""A saved model becomes the content of a file that predicts what `mgnet predict` does."""

import csv
import io
import runpy
import sys

import numpy as np
import pytest
import torch

from mgnet.app.columns.codes import BooleanCode, CategoryCode, NumberCode
from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.exports import default_name, export_model
from mgnet.app.model import Model
from mgnet.app.prediction import predict_file
from mgnet.estimators.scales import Scales
from mgnet.knots import KAN

TABLE = """T,on,kind,fuel
301.5,1,a,gas
299,0,b,oil
650,1,,gas
400,0,never,wood
NA,1,a,oil
350,0,N/A,gas
310,1, c ,gas
"""


def test_a_model_in_a_folder(drawn, difference, tmp_path):
    model, x = drawn(7)
    model.save(tmp_path)
    for path in (tmp_path, tmp_path / "model.json"):
        names = {"__name__": "model"}
        exec(export_model(path, "python"), names)
        assert difference(names["predict"](x), model.predict(x)) < 1e-12
    assert b"import density" in export_model(tmp_path, "python", "density")
    assert default_name("onnx") == "model.onnx"


@pytest.mark.parametrize("classes", [(), ("cheap", "dear, very", "x")])
def test_the_rows_of_a_table(classes, tmp_path, monkeypatch, capsys):
    codes = (
        NumberCode("T"),
        BooleanCode("on"),
        CategoryCode("kind", ("a", "b", None), ("c",)),
        CategoryCode("fuel", ("gas", "oil")),
    )
    encoding = Encoding(codes).without(["kind=a"])
    kan = KAN([7, 4, 3 if classes else 2], 6, generator=torch.Generator().manual_seed(1))
    ranges = ((300.0, 500.0), *((0.0, 1.0),) * 6)
    scales = Scales(ranges, *(() if classes else ((3.0, -1.0), (2.0, 1.0))))
    targets = Targets(("price",), classes) if classes else Targets(("price", "mass"))
    Model(kan, encoding, targets, scales).save(tmp_path)
    (tmp_path / "t.csv").write_text(TABLE)
    lines, _ = predict_file(tmp_path, tmp_path / "t.csv")
    right = [[cell or "nan" for cell in row[4 + bool(classes) :]] for row in csv.reader(lines)][1:]
    (tmp_path / "own.py").write_bytes(export_model(tmp_path, "python", "own"))
    monkeypatch.setattr(sys, "argv", ["own.py", str(tmp_path / "t.csv")])
    runpy.run_path(str(tmp_path / "own.py"), run_name="__main__")
    names, *found = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert tuple(names) == targets.outputs
    np.testing.assert_allclose(np.array(found, float), np.array(right, float), rtol=1e-9)
    assert np.isnan(np.array(right, float)).sum() == len(names)  # of the row without T


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got to='excel'; it must be 'onnx' or 'python'"):
        export_model(tmp_path, "excel")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.json"):
        export_model(tmp_path, "python")
