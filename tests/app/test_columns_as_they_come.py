"""Law: a table from real life is fitted, reported and predicted, or refused in one sentence."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from mgnet.app import cli
from mgnet.app.model import Model
from mgnet.app.table import read_table, split

SMALL = "--hidden 2 --levels 1 --evaluations 8 --overwrite --out out".split()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path, columns):
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def cars(rows=150, seed=0):
    rng = np.random.default_rng(seed)
    days = np.datetime64("2019-01-01") + rng.integers(0, 900, rows)
    weight = rng.uniform(1500.0, 4500.0, rows).round(1)
    origin = rng.choice(["usa", "europe", "japan", ""], rows, p=[0.5, 0.25, 0.2, 0.05])
    return {
        "": range(rows),
        "name": [f"car {k}" for k in range(rows)],
        "weight": weight,
        "origin": origin,
        "diesel": rng.choice(["yes", "no"], rows),
        "sold": days.astype(str),
        "wheels": [4] * rows,
        "mpg": (50.0 - 0.008 * weight + 3.0 * (origin == "japan")).round(2),
    }


def fit(*arguments):
    return cli.main(["fit", "data.csv", *SMALL, *arguments])


def read(text):
    return list(csv.DictReader(text.splitlines()))


def test_a_table_with_everything(capsys):
    write("data.csv", cars())
    assert fit("--target", "mpg", "--cyclic", "month") == 0
    err = capsys.readouterr().err
    for words in ("column 1, which has no name, left out", "'name' left out: 150 diff",
                  "input wheels left out: the same value"):  # fmt: skip
        assert words in err
        assert words in Path("out/report.md").read_text()
    assert "origin=japan" in Path("out/report.md").read_text()
    own = cars()
    new = {key: own[key][:5] for key in ("weight", "origin", "diesel", "sold")}
    new["origin"] = ["usa", "mars", "", "japan", "venus"]
    new["sold"] = [*own["sold"][:4], ""]
    write("new.csv", new)
    assert cli.main(["predict", "out", "new.csv"]) == 0
    out, err = capsys.readouterr()
    assert "2 of 5 rows have a value in 'origin' that is new or too rare" in err
    assert "1 of 5 rows lack an input" in err
    assert [row["mpg_predicted"] == "" for row in read(out)] == [False] * 4 + [True]
    assert cli.main(["info", "out"]) == 0
    assert "sold [days]" in (text := capsys.readouterr().out) and "2019-0" in text


def test_predictions_of_the_training_table_are_those_of_the_model(capsys):
    write("data.csv", cars())
    assert fit("--target", "mpg") == 0
    capsys.readouterr()
    assert cli.main(["predict", "out", "data.csv"]) == 0
    out, err = capsys.readouterr()
    data = split(read_table("data.csv", "mpg"), 0.2, 0)
    model = Model.load("out")
    kept = [data.names.index(name) for name in model.names]
    expected = np.concatenate([model.predict(x[:, kept]) for x in (data.x_held, data.x)])
    order = np.random.default_rng(0).permutation(150)
    got = np.array([float(row["mpg_predicted"]) for row in read(out)])[order]
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def flowers(rows=150, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2)).round(3)
    kinds = np.where(x[:, 0] > 0.5, "big", np.where(x[:, 1] > 0.0, "a|b", "small"))
    return {"p": x[:, 0], "q": x[:, 1], "kind": kinds}


def test_labels_are_classes(capsys):
    write("data.csv", flowers())
    assert fit("--target", "kind", "--compare") == 0
    out = capsys.readouterr().out
    assert "held-out log loss" in out and "held-out accuracy" in out
    for rival in ("KAN, one level, L-BFGS", "tanh MLP, L-BFGS", "logistic regr", "gradient boost"):
        assert rival in out
    assert cli.main(["predict", "out", "data.csv"]) == 0
    rows = read(capsys.readouterr().out)
    classes = ["a|b", "big", "small"]
    shares = np.array([[float(row[f"kind_p({kind})"]) for kind in classes] for row in rows])
    np.testing.assert_allclose(shares.sum(1), 1.0, rtol=1e-8)
    assert [row["kind_predicted"] for row in rows] == [classes[k] for k in shares.argmax(1)]
    data = split(read_table("data.csv", "kind"), 0.2, 0)
    told = Model.load("out").predict(data.x_held)
    report = Path("out/report.md").read_text()
    assert f"{log_loss(data.y_held, told, labels=range(3)):.4f} |" in report
    assert f"{accuracy_score(data.y_held, told.argmax(1)):.4f} |" in report


def test_rows_to_hold_out_are_a_part_of_every_class():
    rng = np.random.default_rng(0)
    kinds = np.repeat(["a", "b", "c", "alone"], [100, 37, 8, 1])
    write("data.csv", {"x": rng.normal(size=146), "kind": rng.permutation(kinds)})
    data = split(read_table("data.csv", "kind"), 0.25, 3)
    train, held = (np.bincount(y, minlength=4) for y in (data.y, data.y_held))
    assert dict(zip(data.targets.classes, train, strict=True))["alone"] == 1
    assert held.sum() == round(0.25 * 146)
    exact = 0.25 * (train + held)
    assert (np.abs(held - exact) <= 1.0).all()


@pytest.mark.parametrize("seed", range(3))
def test_what_columns_become_is_fixed_by_the_training_rows(seed):
    own = cars(seed=seed)
    write("data.csv", own)
    data = split(read_table("data.csv", "mpg"), 0.5, seed)
    train = np.random.default_rng(seed).permutation(150)[75:]
    when = data.encoding.code("sold")
    assert str(when.first)[:10] == min(own["sold"][train])
    levels = {level or "" for level in data.encoding.code("origin").levels}
    kinds, counts = np.unique(own["origin"][train], return_counts=True)
    assert levels == set(kinds[counts >= 5])
    np.testing.assert_array_equal(data.x[:, 0], own["weight"][train])
    np.testing.assert_array_equal(data.y, own["mpg"][train])


def test_several_targets(capsys):
    own = flowers()
    write("data.csv", {"p": own["p"], "q": own["q"], "s": own["p"] + 1, "t": own["q"] * 3})
    assert fit("--target", "s,t", "--compare") == 0
    out = capsys.readouterr().out
    assert out.count("held-out RMSE,") == 2 and "tensor-product" in out
    report = Path("out/report.md").read_text()
    assert "| RMSE (s) " in report and "| s | s predicted | s error |" in report.replace("  ", "")
    assert cli.main(["predict", "out", "data.csv"]) == 0
    assert {"s_predicted", "t_predicted"} < set(read(capsys.readouterr().out)[0])
    told = json.loads(Path("out/model.json").read_text())
    assert told["targets"] == ["s", "t"] and len(told["mean"]) == len(told["scale"]) == 2


def test_whole_weights_are_repeated_rows():
    """Training rows alone: which rows are held out depends on their number."""
    from mgnet.app.data import Settings
    from mgnet.app.fit import fit as train

    rng = np.random.default_rng(0)
    own, weights = flowers(60), rng.integers(1, 4, 60)
    settings = Settings(hidden=(2,), levels=1, evaluations=8, validation=0.0)
    for target in ("kind", "q"):
        many = {name: np.repeat(values, weights) for name, values in own.items()}
        models = []
        for columns in (own | {"w": weights}, many):
            write("data.csv", columns)
            table = read_table("data.csv", target, ["p"], weights="w" if "w" in columns else None)
            data = split(table, 0.1, 0)
            rows = {
                part: np.concatenate([getattr(data, part), getattr(data, f"{part}_held")])
                for part in ("x", "y", "weights")
                if getattr(data, part) is not None
            }
            whole = type(data)(data.names, data.targets, rows["x"], rows["y"], data.x_held[:0],
                               data.y_held[:0], rows.get("weights"))  # fmt: skip
            models.append(train(whole, settings).trained)
        x = np.linspace(-1.0, 1.0, 9)[:, None]
        np.testing.assert_allclose(models[0].predict(x), models[1].predict(x), rtol=1e-6)
        assert models[0].train_loss == pytest.approx(models[1].train_loss, rel=1e-6)


REFUSED = {
    "asks": ("--target cyl", "3 different whole numbers, which may be classes or amounts"),
    "text": ("--target cyl,kind", "target 'kind' holds text"),
    "names": ("--target C --exclude x,y2 --weights ww", "no columns C, ww, x, y2"),
    "roles": ("--target y --exclude y", "target 'y' is also excluded"),
    "weights": ("--target y --weights kind", "weights 'kind' holds text; expected numbers"),
    "negative": ("--target y --weights z", "weights 'z' has negative numbers"),
    "dates": ("--target when", "target 'when' holds dates"),
    "cyclic": ("--target y --cyclic hour --exclude when", "--cyclic hour needs an input"),
    "cycle": ("--target y --cyclic year", "expected some of hour,weekday,month"),
    "lm": ("--target kind --optimizer lm", "--optimizer lm is for numbers"),
    "task": ("--target kind --task regression", "--task regression takes numbers"),
    "identifier": ("--target y --inputs name,z", "column 'name' is not an input: 60 different"),
    "all": ("--target kind --weights z --cyclic hour --exclude when --task regression",
            "--cyclic hour needs.*--task regression takes.*has negative"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_sentence(name, capsys):
    line, words = REFUSED[name]
    rng = np.random.default_rng(0)
    write("data.csv", {
        "cyl": rng.choice([4, 6, 8], 60), "kind": rng.choice(["p", "q"], 60),
        "when": ["2020-01-05", "2021-01-05"] * 30, "y": rng.normal(size=60),
        "z": rng.normal(size=60), "name": [f"n{k}" for k in range(60)],
    })  # fmt: skip
    assert cli.main(["fit", "data.csv", *SMALL, *line.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and os.listdir() == ["data.csv"]
    assert re.search(words, err), err


def test_all_missing_and_odd_cells_are_told_in_one_message(capsys):
    own = cars(60)
    for name, value in (("weight", "x"), ("mpg", ""), ("sold", "3/4/2020")):
        own[name] = [*own[name][:-1], value] if name != "sold" else ["3/4/2020"] * 60
    write("data.csv", own)
    assert fit("--target", "mpg") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for words in ("1 of 60 cells are not numbers", "'weight'", "column 'sold': dates such as",
                  "1 of 60 rows have an empty"):  # fmt: skip
        assert words in err


def test_files_of_other_kinds_predict_the_same(capsys):
    """An archive has booleans and dates of its own."""
    own = cars()
    write("data.csv", own)
    assert fit("--target", "mpg") == 0
    np.savez(
        "new.npz",
        weight=own["weight"],
        origin=own["origin"],
        diesel=own["diesel"] == "yes",
        sold=own["sold"].astype("datetime64[D]"),
    )
    capsys.readouterr()
    told = []
    for name in ("data.csv", "new.npz"):
        assert cli.main(["predict", "out", name]) == 0
        told.append([row["mpg_predicted"] for row in read(capsys.readouterr().out)])
    assert told[0] == told[1]
