"""Law: each odd value of a description is refused in a sentence that names it."""

import json

import pytest

from mgnet.app.model_checks import check_description, check_names

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


def test_names_may_be_of_any_alphabet():
    check_names(["T in °C", "p/p₀, bar", " x "], "密度")
