"""Law: labels are classes, numbers are numbers, and what may be both is asked for."""

import numpy as np
import pytest
from sklearn.preprocessing import LabelEncoder

from mgnet.app.columns.targets import Targets, coded
from mgnet.app.files.columns import Column


def column(kind, values, name="y"):
    return Column(name, kind, np.array(values, dtype=object if kind == "text" else None))


@pytest.mark.parametrize("seed", range(4))
def test_labels_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    for kind, labels in [
        ("text", rng.choice(["b", "Yes", "ä", "10", "9"], 60)),
        ("number", rng.choice([-1.5, 0.0, 3.0, 20.0], 60)),
        ("boolean", rng.choice([0.0, 1.0], 60)),
    ]:
        oracle = LabelEncoder()
        expected = oracle.fit_transform(labels)
        y, classes = coded([column(kind, labels)], "classification")
        assert np.array_equal(y, expected) and len(classes) == len(oracle.classes_)
        if kind == "text":
            assert list(classes) == list(oracle.classes_)
    assert coded([column("boolean", [0.0, 1.0] * 5)])[1] == ("False", "True")
    assert coded([column("number", [3.0, -1.5] * 5)], "classification")[1] == ("-1.5", "3")


@pytest.mark.parametrize(
    ("values", "asks"),
    [
        (np.arange(100) % 3, True),
        (np.arange(100) % 10, True),
        (np.arange(100) % 11, False),
        (np.arange(14) % 3, False),
        (np.arange(100) % 3 + 0.5, False),
    ],
)
def test_whole_numbers_of_few_values_are_asked_for(values, asks):
    own = column("number", values.astype(float))
    if asks:
        with pytest.raises(ValueError, match="give --task classification or --task regression"):
            coded([own])
    else:
        assert coded([own]) == (pytest.approx(own.values), ())
    assert coded([own], "regression")[1] == ()


def test_several_targets_are_numbers():
    y, classes = coded([column("number", [0.0, 1.0] * 9, "a"), column("number", range(18), "b")])
    assert y.shape == (18, 2) and classes == ()
    with pytest.raises(ValueError, match="target 'b' holds text, and several targets must be"):
        coded([column("number", [0.5], "a"), column("text", ["x"], "b")])
    with pytest.raises(ValueError, match="2 targets cannot be classes at once"):
        coded([column("number", [0.5], "a"), column("number", [1], "b")], "classification")


@pytest.mark.parametrize(
    ("own", "task", "words"),
    [
        (column("date", np.array(["2020-01-01"], "M8[us]")), "", "holds dates"),
        (column("text", ["a", "b"] * 5), "regression", "--task regression takes numbers"),
        (column("text", ["a"] * 10), "", "has the same value in 10 rows"),
        (column("text", [str(k) for k in range(30)]), "", "30 values in 30 rows; expected 2 to"),
        (column("number", np.arange(30) / 7), "classification", "or --task regression"),
    ],
)
def test_what_cannot_be_predicted(own, task, words):
    with pytest.raises(ValueError, match=words):
        coded([own], task)


def test_names_of_what_a_prediction_adds():
    several = Targets(("a", "b"))
    assert several.title == "a, b" and several.outputs == ("a", "b")
    classes = Targets(("kind",), ("x\ny", "z"))
    assert classes.outputs == ("x\ny", "z")
    assert classes.predicted == ("kind_predicted", "kind_p(x\\ny)", "kind_p(z)")
