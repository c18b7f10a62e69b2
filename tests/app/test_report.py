"""The report says every figure it was given, and says who wins."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mgnet import nested
from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data, Settings, Trained
from mgnet.app.report import write_report


@pytest.fixture
def data():
    x = np.random.default_rng(0).uniform(1.0, 2.0, (200, 2))
    return Data(("T", "p"), Targets(("rho",)), x[:150], x[:150].sum(1), x[150:], x[150:].sum(1))


def trained(name, held, offset=0.5, note=""):
    def predict(x):
        return x.sum(axis=1) + offset * (x[:, 0] > 1.9)

    return Trained(name, predict, 1234, 17.3, 456.0, 3.21e-7, held, (), note)


def lines_with(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_every_figure_given_is_there(data, tmp_path):
    settings = Settings(seed=77, held_out=0.25, hidden=(6,), levels=3)
    ours = trained("KAN", 4.56e-6, note="stopped early")
    path = write_report(
        tmp_path,
        data,
        settings,
        [ours],
        f"the hierarchy table\n\n{nested(3)}",
        [("fit.png", "Data, fit, error"), ("convergence.png", "Training")],
        "mgnet fit a.csv --target rho",
        ["3 rows with missing cells were dropped."],
    )
    text = path.read_text()
    assert path == tmp_path / "report.md"
    for piece in (
        *("3.210e-07", "4.560e-06", "1234", "17.3", "456", "stopped early", "3 rows with"),
        *("the hierarchy table", str(nested(3)), "mgnet fit a.csv --target rho"),
        *("![Data, fit, error](fit.png)", "![Training](convergence.png)", "[2, 6, 1]"),
        *("seed 77", "fraction 0.25", "150 for training, 50 held out", f"{data.x.min(0)[0]:.6g}"),
        *(f"NumPy {np.__version__}", "Python", "PyTorch", "SciPy"),
    ):
        assert piece in text
    assert "Comparison" not in text


def test_rmse_and_largest_error_are_in_the_unit_of_the_target(data, tmp_path):
    text = write_report(tmp_path, data, Settings(), [trained("KAN", 1e-6)]).read_text()
    error = 0.5 * (data.x_held[:, 0] > 1.9)
    (rmse,) = lines_with(text, "| RMSE (rho)")
    assert f"{np.sqrt(np.mean(error**2)):.3g}" in rmse
    (largest,) = lines_with(text, "| largest error (rho)")
    assert largest.count("0.5 ") == 2


@pytest.mark.parametrize(
    ("held", "order", "verdict"),
    [
        (1e-6, ["KAN", "tree", "line", "lost"], "tree comes next, with 2 times the"),
        (
            3e-6,
            ["tree", "KAN", "line", "lost"],
            "tree wins: the held-out error of mgnet is 1.5 times",
        ),
        (
            9e-6,
            ["tree", "line", "KAN", "lost"],
            "tree wins: the held-out error of mgnet is 4.5 times",
        ),
    ],
)
def test_the_comparison_is_sorted_whoever_wins(data, tmp_path, held, order, verdict):
    rivals = [trained("line", 5e-6), trained("lost", np.nan), trained("tree", 2e-6, note="tuned")]
    models = [trained("KAN", held), *rivals]
    text = write_report(tmp_path, data, Settings(), models).read_text()
    rows = text.split("## Comparison")[1].split("##")[0]
    assert re.findall(r"^\| (KAN|tree|line|lost)", rows, re.MULTILINE) == order
    assert verdict in rows
    assert "KAN (ours)" in rows
    assert "- tree: tuned." in rows


def test_where_the_error_sits_names_the_worst_rows_and_the_part(data, tmp_path):
    text = write_report(tmp_path, data, Settings(), [trained("KAN", 1e-6)]).read_text()
    part = text.split("## Where the error is")[1].split("## Data")[0]
    (share,) = lines_with(part, "| T     | ")
    assert share.split("|")[6].strip() == "100 %"  # all errors lie above T = 1.9
    worst = data.x_held[np.argmax(data.x_held[:, 0] > 1.9)]
    assert f"{worst[0]:.6g}" in part


def test_the_worst_rows_come_in_order_and_their_share_is_told(data, tmp_path):
    size = np.linspace(-0.5, 0.3, 50)[np.random.default_rng(1).permutation(50)]
    rows = {tuple(row): error for row, error in zip(data.x_held, size, strict=True)}

    def predict(x):
        return np.array([row.sum() + rows.get(tuple(row), 0.0) for row in x])

    ours = replace(trained("KAN", 1e-6), predict=predict)
    text = write_report(tmp_path, data, Settings(), [ours]).read_text()
    part = text.split("## Where the error is")[1].split("## Data")[0]
    table = part.split("largest errors, predicted minus true:")[1].strip().splitlines()[2:]
    told = np.array([[float(cell) for cell in line.split("|")[1:-1]] for line in table])
    worst = np.argsort(-np.abs(size))[:8]
    exact = np.c_[data.x_held, data.y_held, data.y_held + size, size][worst]
    np.testing.assert_allclose(told, exact, rtol=5e-3)
    share = 100.0 * size[worst[0]] ** 2 / (size**2).sum()
    assert f"The worst of the 50 held-out rows (2 %) has {share:.0f} % of it." in part


def test_without_held_out_rows_the_training_rows_are_judged(data, tmp_path):
    none = replace(data, x_held=np.zeros((0, 2)), y_held=np.zeros(0))
    text = write_report(tmp_path, none, Settings(), [trained("KAN", np.nan)]).read_text()
    assert "The training rows with the largest errors" in text


def test_nothing_trained_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="no trained model"):
        write_report(tmp_path, data, Settings(), [])
