"""Law: the figures of a report are those of scikit-learn, for numbers, several and classes."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, root_mean_squared_error

from mgnet.app.columns.codes import CategoryCode, DateCode
from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data, Trained
from mgnet.app.files.columns import Column
from mgnet.app.report_errors import result, where_errors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 2))


def rows_of(text):
    """Cells of the rows of all tables, by the first cell."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in
            ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}  # fmt: skip


def trained(data, predict):
    return Trained("KAN", predict, 7, 1.0, 3.0, *data.losses(predict))


def test_several_targets():
    y = np.column_stack([X.sum(1), X[:, 0] ** 2])
    data = Data(("a", "b"), Targets(("p", "q")), X[:60], y[:60], X[60:], y[60:])
    ours = trained(data, lambda x: np.column_stack([x.sum(1) + 0.25, 0.5 * x[:, 0] ** 2]))
    rows = rows_of(result(data, ours))
    for k, name in enumerate("pq"):
        for cell, part in zip(rows[f"RMSE ({name})"], (slice(60), slice(60, 80)), strict=True):
            exact = root_mean_squared_error(y[part, k], ours.predict(X[part])[:, k])
            assert float(cell) == pytest.approx(exact, rel=6e-3)
    text = "\n".join(where_errors(data, ours))
    assert "standardized squared error" in text
    assert "| p predicted | p error |" in text and "| q predicted | q error |" in text


@pytest.mark.parametrize("weighted", [False, True])
def test_classes(weighted):
    y = (X[:, 0] > 0.0) + (X[:, 1] > 0.5).astype(int)
    weights = RNG.uniform(0.1, 2.0, 80) if weighted else None
    parts = (None, None) if weights is None else (weights[:60], weights[60:])
    names = ("low", "mid|dle", "high")
    data = Data(("a", "b"), Targets(("kind",), names), X[:60], y[:60], X[60:], y[60:], *parts)
    score = np.abs(np.linspace(0.0, 2.0, 3)[None] - X.sum(1)[:, None])
    shares = np.exp(-score) / np.exp(-score).sum(1, keepdims=True)
    there = {row.tobytes(): share for row, share in zip(X, shares, strict=True)}
    ours = trained(data, lambda x: np.array([there[row.tobytes()] for row in x]))
    text = result(data, ours)
    rows = rows_of(text.replace("mid\\|dle", "middle"))
    held, kept = y[60:], None if weights is None else weights[60:]
    told = float(rows["log loss"][1]), float(rows["accuracy"][1])
    exact = (
        log_loss(held, shares[60:], sample_weight=kept, labels=range(3)),
        accuracy_score(held, shares[60:].argmax(1), sample_weight=kept),
    )
    assert told == pytest.approx(exact, abs=1e-4)
    counts = confusion_matrix(held, shares[60:].argmax(1), labels=range(3))
    for name, row in zip(("low", "middle", "high"), counts.tolist(), strict=True):
        assert list(map(int, rows[name])) == row
    worst = np.argmax(-np.log(shares[60:][range(20), held]) * (1.0 if kept is None else kept))
    where = where_errors(data, ours)[-1].splitlines()[2]
    assert f"{X[60 + worst, 0]:.6g} " in where and f"{shares[60 + worst, held[worst]]:.3g}" in where


def test_many_classes_have_no_table_of_pairs():
    y = np.arange(80) % 20
    names = tuple(f"c{k}" for k in range(20))
    data = Data(("a", "b"), Targets(("kind",), names), X, y, X, y)
    ours = trained(data, lambda x: np.full((len(x), 20), 0.05))
    assert "as c0" not in result(data, ours)


def test_dates_are_dates_and_inputs_that_do_not_vary_have_no_fifths():
    first = np.datetime64("2024-01-01", "us")
    codes = DateCode("when", first, "", ("month",)), CategoryCode("shop", ("N", "S", "W"))
    encoding = Encoding(codes)
    dates = first + np.arange(80) * np.timedelta64(12, "h")
    shops = np.array(["N", "S"] * 40, dtype=object)
    columns = {"when": Column("when", "date", dates), "shop": Column("shop", "text", shops)}
    x = encoding.encode(columns)[0]
    data = Data(encoding.names, Targets(("y",)), x, x[:, 0], x, x[:, 0], encoding=encoding)
    ours = trained(data, lambda x: x[:, 0] + x[:, encoding.names.index("shop=S")])
    text = where_errors(data, ours)
    fifths, worst = rows_of(text[2]), text[4].splitlines()
    assert fifths["shop=N"][-1] == "0" and fifths["shop=S"][-1] == "1"
    assert "shop=W" not in fifths
    assert fifths["when [days]"][-1].startswith("2024-01-")
    assert worst[2].split("|")[1].strip() == "2024-02-09 12:00:00"  # the last of the equal errors


def test_the_cosine_of_a_quarter_turn_is_shown_as_zero():
    encoding = Encoding((DateCode("when", np.datetime64("2024-01-01", "us"), "", ("month",)),))
    data = Data(encoding.names, Targets(("y",)), X, X[:, 0], X, X[:, 0], encoding=encoding)
    assert data.input_text("when: cos month", -6.1e-17) == "0"
    assert data.input_text("when: sin month", 0.8660254) == "0.866025"
