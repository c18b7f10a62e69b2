"""`mgnet export` writes a whole file or says in one sentence why not."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from mgnet.app import cli
from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.model import Model
from mgnet.estimators.scales import Scales
from mgnet.knots import KAN


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fitted").mkdir()
    scales = Scales(((300.0, 500.0), (0.1, 20.0)), (200.0,), (50.0,))
    encoding, targets = Encoding.of_numbers(["T", "p"]), Targets(("rho",))
    model = Model(KAN([2, 3, 1]), encoding, targets, scales)
    model.save("fitted")
    return model


def refused(capsys, *arguments):
    assert cli.main(["export", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("mgnet: ") and err.count("\n") == 1
    return err


def test_a_python_file(model, capsys):
    assert cli.main(["export", "fitted", "--to", "python"]) == 0
    assert capsys.readouterr().out == "wrote model.py\n"
    x = np.array([[400.0, 3.0], [600.0, -1.0]])
    found = runpy.run_path("model.py")["predict"](x)
    np.testing.assert_allclose(found, model.predict(x), rtol=1e-12)
    assert "model.py exists; replace it" in refused(capsys, "fitted", "--to", "python")
    text = Path("model.py").read_bytes()
    assert cli.main(["export", "fitted/model.json", "--to", "python", "--overwrite"]) == 0
    assert Path("model.py").read_bytes() == text
    assert cli.main(["export", "fitted", "--to", "python", "--out", "rho.py"]) == 0
    assert "rho.predict(x)" in Path("rho.py").read_text()


def test_what_is_refused_leaves_no_file(model, capsys, monkeypatch):
    before = sorted(Path().rglob("*"))
    assert "holds no model.json" in refused(capsys, ".", "--to", "python")
    assert "is a folder" in refused(capsys, "fitted", "--to", "python", "--out", "fitted")
    assert "'excel' is not one of 'onnx', 'python'" in refused(capsys, "fitted", "--to", "excel")
    assert "--to" in refused(capsys, "fitted")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'mgnet-solvers[export]'" in refused(capsys, "fitted", "--to", "onnx")
    assert "cannot be written" in refused(
        capsys, "fitted", "--to", "python", "--out", "absent/rho.py"
    )
    assert sorted(Path().rglob("*")) == before


def test_an_onnx_file(model, capsys):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    assert cli.main(["export", "fitted", "--to", "onnx", "--out", "rho.onnx"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("wrote rho.onnx\n", "")
    x = np.array([[400.0, 3.0], [600.0, -1.0]])
    session = runtime.InferenceSession("rho.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["rho"], {"T": x[:, 0], "p": x[:, 1]})
    np.testing.assert_allclose(found, model.predict(x), rtol=1e-12)
