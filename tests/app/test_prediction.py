"""Law: a prediction keeps the rows of the table, and counts those it cannot vouch for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.interpolate import BSpline

from mgnet.app import cli
from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.model import Model
from mgnet.app.prediction import predict_file
from mgnet.estimators.scales import Scales
from mgnet.knots import KAN


@pytest.fixture
def model(install, capsys):
    assert cli.main(["fit", "data.csv", "--target", "rho", "--held-out", "0.1"]) == 0
    capsys.readouterr()
    return "mgnet-fit"


def test_rows_of_the_training_data_bring_no_remark(model):
    rows = [line.split(",") for line in Path("data.csv").read_text().split()[10:20]]
    Path("new.csv").write_text("T,p\n" + "".join(f"{T},{p}\n" for T, p, _ in rows))
    lines, remarks = predict_file(model, "new.csv")
    header, *body = lines
    assert header == "T,p,rho_predicted"
    predicted = [float(line.split(",")[2]) for line in body]
    assert np.allclose(predicted, [float(rho) for _, _, rho in rows])
    assert not remarks


def test_rows_out_of_range_are_counted_by_input_and_in_all(model):
    Path("new.csv").write_text("p,T\n5,-1\n5,900\n-5,-9\n,900\n5,inf\n20,20\n")
    _, remarks = predict_file(model, "new.csv")
    assert remarks[0].startswith("3 of 6 rows are outside the range of the training data (T: 3 ")
    assert "; p: 1 " in remarks[0]
    assert remarks[1] == "2 of 6 rows lack an input; their prediction is empty"


def test_a_table_without_any_complete_row(model):
    Path("new.csv").write_text("p,T\n5,\n")
    lines, remarks = predict_file(model, "new.csv")
    assert list(lines)[1] == "5,,"
    assert len(remarks) == 1


def test_an_existing_prediction_is_not_doubled(model):
    Path("new.csv").write_text("p,T,rho_predicted\n5,1,1\n")
    with pytest.raises(ValueError, match="has a column 'rho_predicted' already"):
        predict_file(model, "new.csv")


def test_a_saved_network_predicts_what_scipy_makes_of_its_file(tmp_path):
    """One layer is a sum of cubics; beyond the range each goes on along its tangent."""
    ranges = ((300.0, 500.0), (0.1, 20.1))
    kan = KAN([2, 1], 5, generator=torch.Generator().manual_seed(3))
    scales = Scales(ranges, (200.0,), (50.0,), kan.domain)
    Model(kan, Encoding.of_numbers(["T", "p"]), Targets(("rho",)), scales).save(tmp_path)
    U = load_file(tmp_path / "model.safetensors")["coefficients.0"]  # (input, spline, output)
    rows = np.array([[300, 0.1], [371, 7.3], [500, 20.1], [250, 7], [400, 30], [900, -5]], float)
    expected = np.full(len(rows), 200.0)
    knots = -1.0 + 0.4 * np.arange(-3, 9)
    for column, (low, high), u in zip(rows.T, ranges, U[:, :, 0], strict=True):
        phi = BSpline(knots, u, 3)
        z = -1.0 + 2.0 * (column - low) / (high - low)
        nearest = np.clip(z, -1.0, 1.0)
        expected += 50.0 * (phi(nearest) + phi(nearest, nu=1) * (z - nearest))
    lines = [f"{n},{p!r},{T!r}" for n, (T, p) in enumerate(rows.tolist())]
    (tmp_path / "new.csv").write_text("\n".join(["n,p,T", *lines, "6,,400"]))
    for model in (tmp_path, tmp_path / "model.json"):
        told, remarks = predict_file(model, tmp_path / "new.csv")
        header, *body = told
        assert header == "n,p,T,rho_predicted"
        *full, empty = body
        np.testing.assert_allclose([float(line.split(",")[3]) for line in full], expected)
        assert empty == "6,,400,"
        assert remarks == [
            "3 of 7 rows are outside the range of the training data (T: 2 outside 300 to 500; "
            "p: 2 outside 0.1 to 20.1); there the model is extrapolated linearly",
            "1 of 7 rows lack an input; their prediction is empty",
        ]


def test_predictions_beyond_all_numbers_are_counted(tmp_path):
    kan = KAN([1, 1], 5)
    with torch.no_grad():
        kan.coefficients[0].fill_(1e308)
    Model(
        kan,
        Encoding.of_numbers(["T"]),
        Targets(("y",)),
        Scales(((0.0, 1.0),), (0.0,), (1e300,), kan.domain),
    ).save(tmp_path)
    (tmp_path / "new.csv").write_text("T\n0.5\n")
    _, remarks = predict_file(tmp_path, tmp_path / "new.csv")
    assert remarks == [
        "1 of 1 rows have predictions beyond the largest number; they are empty or inf"
    ]
