"""Law: a prediction keeps the rows of the table, and counts those it cannot vouch for."""

from pathlib import Path

import numpy as np
import pytest

from mgnet.app import cli
from mgnet.app.prediction import predict_file


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
    assert remarks[0].startswith("3 of 6 rows are out of the range of the training data (T: 3 ")
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
