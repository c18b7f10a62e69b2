"""The Python file predicts what the model does, where neither mgnet nor torch can be imported."""

import ast
import csv
import io
import runpy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.exports import python_file
from mgnet.app.exports.formula import Formula
from mgnet.app.exports.python_file import python_text
from mgnet.app.model import Model
from mgnet.estimators.scales import Scales
from mgnet.knots import KAN

# Runs a file where nothing but Python and NumPy can be imported.
ALONE = """
import runpy, sys
sys.path[:] = [p for p in sys.path if p]
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mgnet", "torch", "scipy", "numba"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NotInstalled())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def predict_of(text):
    names = {"__name__": "model"}
    exec(compile(text, "model.py", "exec"), names)
    return names["predict"]


@pytest.mark.parametrize("seed", range(20))
def test_predictions_are_those_of_the_model(seed, drawn, difference):
    model, x = drawn(seed)
    predict = predict_of(python_text(Formula.of(model)))
    assert difference(predict(x), model.predict(x)) < 1e-12
    x[3, 0], x[4, -1] = np.nan, np.nan
    assert np.isnan(predict(x[3:5])).all() and predict(x[:0]).shape == (0,)
    with pytest.raises(ValueError, match="it needs .rows, "):
        predict(x[0])


@pytest.mark.parametrize("classes", [(), ("a", 'b "\\', "c\n")])
@pytest.mark.parametrize("seed", range(3))
def test_texts_several_targets_and_classes(seed, classes, mixed, tmp_path, monkeypatch, capsys):
    formula, columns, _, right = mixed(seed, classes)
    text = python_text(formula)
    x = np.array(columns, dtype=object).T
    np.testing.assert_allclose(predict_of(text)(x), right, rtol=1e-12)
    x[0, 0], x[x == ""] = None, None
    found = predict_of(text)(x)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:], right[1:], rtol=1e-12)
    words = np.array([["False", "no", "F"], ["TRUE", "yes", "y"]])[:, seed]  # as in the table
    x[1:, 2] = [words[int(value)] for value in x[1:, 2].tolist()]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[column.name for column in formula.columns], *x.tolist()])
    (tmp_path / "model.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["model.py", str(tmp_path / "t.csv")])
    runpy.run_path(str(tmp_path / "model.py"), run_name="__main__")
    names, *rows = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert tuple(names) == (formula.classes or formula.targets)
    np.testing.assert_array_equal(np.array(rows, dtype=float), found)


def test_text_where_a_number_is_needed_is_told_in_a_sentence(mixed, tmp_path, monkeypatch):
    """A row of units ended in a traceback."""
    (tmp_path / "model.py").write_text(python_text(mixed(0)[0]), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["model.py", str(tmp_path / "t.csv")])
    for cells in ("K,a,1,x", "yes,a,1,x", "1,a,maybe,x"):
        (tmp_path / "t.csv").write_text('T,"k""\\nd",on,rare\n' + cells + "\n")
        name, wrong = ("on", "maybe") if "maybe" in cells else ("T", cells.split(",")[0])
        with pytest.raises(
            SystemExit, match=f"column '{name}' holds '{wrong}', which is not a num"
        ):
            runpy.run_path(str(tmp_path / "model.py"), run_name="__main__")


def test_more_rows_than_a_batch(drawn, difference):
    model, x = drawn(2)
    x = np.tile(x, (50, 1))
    assert difference(predict_of(python_text(Formula.of(model)))(x), model.predict(x)) < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_the_text_is_the_same_each_time_tells_names_and_ranges_and_imports_numpy_alone(seed, drawn):
    model, _ = drawn(seed)
    text = python_text(Formula.of(model), "density")
    assert text == python_text(Formula.of(drawn(seed)[0]), "density")
    tree = ast.parse(text)
    told = ast.get_docstring(tree)
    assert told is not None and model.targets.names[0] in told and "density.predict(x)" in told
    for name, (low, high) in zip(model.names, model.scales.ranges, strict=True):
        assert name in told and f"{low:g} to {high:g}" in told
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [node.names[0].name for node in imports] == ["csv", "sys", "numpy"]
    values = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)
              and isinstance(node.targets[0], ast.Name)}  # fmt: skip
    assert ast.literal_eval(values["INPUTS"]) == list(model.names)
    assert ast.literal_eval(values["OUTPUTS"]) == list(model.targets.names)


def test_it_reads_a_table_without_torch_and_mgnet(drawn, difference, tmp_path):
    model, x = drawn(2)
    names = ["T", "p", "q", "r"][: len(model.names)]
    model = Model(model.network, Encoding.of_numbers(names), Targets(("rho",)), model.scales)
    (tmp_path / "density.py").write_text(python_text(Formula.of(model)), encoding="utf-8")
    rows = [",".join(["a", *map(repr, row)]) for row in x.tolist()]
    rows.append("b, NA " + ",1" * (len(names) - 1))
    lines = ["\ufeffother," + ",".join(names), *rows, ""]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "u.csv").write_text("other\n1\n")

    def run(table):
        command = [sys.executable, "-c", ALONE, "density.py", table]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("t.csv")
    assert done.returncode == 0, done.stderr
    first, *values = done.stdout.split("\n")[:-1]
    assert first == "rho" and values.pop() == "nan"
    assert difference(np.array(values, dtype=float), model.predict(x)) < 1e-12
    assert run("u.csv").returncode == 1 and "u.csv has no column 'T'" in run("u.csv").stderr


def test_a_network_in_single_precision_is_computed_in_double(drawn, difference):
    model, x = drawn(4)
    single = replace(model, network=model.network.float())
    x = x[40:]
    predict = predict_of(python_text(Formula.of(single)))
    assert difference(predict(x), single.predict(x)) < 1e-3
    double = replace(single, network=single.network.double())
    assert difference(predict(x), double.predict(x)) < 1e-12


def test_too_many_numbers(monkeypatch, drawn):
    monkeypatch.setattr(python_file, "MOST_NUMBERS", 10)
    with pytest.raises(ValueError, match="coefficients of polynomials, and 10 is the limit; use"):
        python_text(Formula.of(drawn(0)[0]))


def test_long_lists_of_inputs_are_cut_in_the_first_line():
    scales = Scales(((0.0, 1.0),) * 30, (0.0,), (1.0,))
    encoding = Encoding.of_numbers(f"x{k}" for k in range(30))
    text = python_text(Formula.of(Model(KAN([30, 1], 1), encoding, Targets(("y",)), scales)))
    assert "x0, x1, x2, x3, x4, x5, x6, and 23 more. Needs" in text.split("\n")[0]
