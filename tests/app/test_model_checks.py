"""Law: each odd value of a description is refused in a sentence that names it."""

import json

import pytest

from mgnet.app.model_checks import check_description, check_names, columns_of

GOOD = {
    "kind": "KAN",
    "widths": [2, 3, 1],
    "intervals": [4, 4],
    "degree": 3,
    "linear": False,
    "domain": [-1.0, 1.0],
    "hidden": "tanh",
    "dtype": "float64",
    "inputs": ["T", "p"],
    "target": "rho",
    "ranges": [[0.0, 1.0], [7.0, 7.0]],
    "mean": 2,
    "scale": 1e-300,
}
BAD = {
    "kind": ['"FreeKnotKAN"', "1"],
    "widths": ["[2, 3, 0]", "[2, 3, true]", "[2, 3.0, 1]", "[2]", "[]", "3", "[2, -1, 1]", "null"],
    "intervals": ["4", "[4]", "[4, 0]", "[4, 4, 4]", '["4", 4]', "{}"],
    "degree": ["0", "6", "true", "3.0", '"3"'],
    "linear": ["0", "null", "true"],
    "domain": ["[1, -1]", "[0, 0]", "[0, 1e999]", "[0]", "[-1e308, 1e308]",
               "[1, 1.0000000000000002]", "[0, 5e-324]"],
    "hidden": ['"relu"', "null", "[]"],
    "dtype": ['"x"', '"int64"', "[]", "{}", "64"],
    "inputs": ['["T"]', '"Tp"', '["T", "T"]', '["T", "rho"]', '["T", ""]', '["T", "a\\nb"]',
               '["T", 1]', '["T", "a\\n"]', '["T", "\\ud800"]', '["T", "\\u2028"]',
               f'["T", "{"x" * 2000}"]'],
    "target": ["null", '""', '"a\\rb"', '"T"', "3"],
    "ranges": ["[[0, 1]]", "[[1, 0], [0, 1]]", "[[0, 1], [0, NaN]]", "[[0, 1], [0, 1e999]]", "[]",
               "[[0, 1], [0]]", '[[0, 1], ["0", "1"]]', "[[0, 1], [0, 1, 2]]",
               f"[[0, 1], [0, {10**400}]]"],
    "mean": ["NaN", "1e999", '"1"', "true", "null", "[1]"],
    "scale": ["0", "-1", "NaN", "Infinity", '"1"'],
}  # fmt: skip


def test_what_is_good_is_taken():
    check_description(GOOD)
    check_description({k: v for k, v in GOOD.items() if k not in ("hidden", "dtype")})


@pytest.mark.parametrize("key", BAD)
def test_odd_values_are_refused(key):
    for text in BAD[key]:
        with pytest.raises(ValueError) as told:
            check_description({**GOOD, key: json.loads(text)})
        assert len(str(told.value)) < 300 and "\n" not in str(told.value), text
    if key not in ("hidden", "dtype"):
        with pytest.raises(ValueError, match=f"{key} is missing"):
            check_description({k: v for k, v in GOOD.items() if k != key})


COLUMNS = [{"name": "T", "kind": "number"}, {"name": "k", "kind": "text", "levels": ["a"],
                                             "rare": []}]  # fmt: skip
NEW = {key: value for key, value in GOOD.items() if key != "target"} | {
    "format": 3,
    "inputs": ["T", "k=a"],
    "targets": ["rho"],
    "classes": [],
    "columns": COLUMNS,
    "left_out": [],
    "mean": [2],
    "scale": [1e-300],
}
SEVERAL = NEW | {"widths": [2, 3, 2], "targets": ["u", "v"], "mean": [0, 1], "scale": [1, 2]}
CLASSES = NEW | {"widths": [2, 3, 2], "classes": ["a", "b"], "mean": [], "scale": []}
BAD_NEW = [
    (NEW, "targets", ["[]", '"rho"', "[1]", '["T"]', '["u", "v"]', '["u", "u"]']),
    (NEW, "classes", ['["a"]', "null", '"ab"', '["a", "b"]']),
    (NEW, "mean", ["2", "[]", "[1, 2]", "[NaN]", '["1"]', "[true]"]),
    (NEW, "scale", ["[0]", "[-1]", "1", "[]"]),
    (NEW, "columns", ["[]", "{}", "[1]", '[{"name": "T", "kind": "number"}]']),
    (NEW, "left_out", ['["T"]', '["z"]', "null", "{}"]),
    (NEW, "inputs", ['["k=a", "T"]', '["T", "k"]']),
    (SEVERAL, "targets", ['["u"]', '["u", "v", "w"]']),
    (SEVERAL, "classes", ['["a", "b"]']),
    (SEVERAL, "widths", ["[2, 3, 1]", "[2, 3, 3]"]),
    (SEVERAL, "scale", ["[1]", "[1, 0]"]),
    (
        CLASSES,
        "classes",
        ['["a", "a"]', '["a"]', '["a", 1]', '["a", "b", "c"]', '["a", "\\ud800"]'],
    ),
    (CLASSES, "mean", ["[1]", "null"]),
]


def test_columns_targets_and_classes_are_taken():
    for told in (NEW, SEVERAL, CLASSES):
        check_description(told)
    targets, encoding = columns_of(CLASSES)
    assert targets.classes == ("a", "b") and encoding.names == ("T", "k=a")


@pytest.mark.parametrize(("good", "key", "texts"), BAD_NEW)
def test_odd_columns_targets_and_classes_are_refused(good, key, texts):
    for text in texts:
        with pytest.raises(ValueError) as told:
            check_description({**good, key: json.loads(text)})
        assert len(str(told.value)) < 300 and "\n" not in str(told.value), text
    with pytest.raises(ValueError, match=f"{key} is missing"):
        check_description({k: v for k, v in good.items() if k != key})


def test_names_may_be_of_any_alphabet():
    check_names(["T in °C", "p/p₀, bar", " x "], ["密度"])
