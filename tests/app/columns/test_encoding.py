"""Law: an encoding is fixed by its training rows, is saved whole, and refuses what is odd."""

import json

import numpy as np
import pytest

from mgnet.app.columns.codes import NumberCode
from mgnet.app.columns.encoding import Encoding
from mgnet.app.files.columns import Column


def columns(seed=0, rows=60):
    rng = np.random.default_rng(seed)
    days = np.datetime64("2020-01-01", "us") + rng.integers(0, 500, rows) * np.timedelta64(1, "D")
    kinds = rng.choice(["x", "y", "rare\n", None], rows, p=[0.5, 0.3, 0.04, 0.16])
    return {
        "T": Column("T", "number", rng.normal(size=rows)),
        "kind": Column("kind", "text", kinds.astype(object)),
        "sold": Column("sold", "boolean", (rng.random(rows) < 0.5).astype(float)),
        "when": Column("when", "date", days),
    }


@pytest.mark.parametrize("seed", range(4))
def test_what_is_described_is_read_and_encodes_the_same(seed):
    own = Encoding.of(columns(seed).values(), {"when": "day.month.year"}, ["weekday", "hour"])
    own = own.without(["kind=y", "sold", "when: sin hour"])
    told = json.loads(json.dumps(own.described()))
    again = Encoding.read(told["columns"], told["left_out"])
    assert again == own and again.names == own.names
    assert "sold" not in own.columns and "kind=y" not in own.names
    x, new = own.encode(columns(seed + 100))
    y, _ = again.encode(columns(seed + 100))
    assert np.array_equal(x, y) and x.shape[1] == len(own.names)
    assert set(new) <= {"kind"}


def test_all_columns_that_are_odd_are_named_at_once():
    own, there = Encoding.of(columns().values()), columns()
    there["T"], there["when"] = (
        Column(name, "text", there["kind"].values) for name in ("T", "when")
    )
    with pytest.raises(ValueError, match="'T' holds text, but numbers.*; column 'when' holds no"):
        own.encode(there)


def test_columns_in_place_of_all_their_inputs():
    own = Encoding.of(columns().values())
    kinds = [name for name in own.names if name.startswith("kind=")]
    assert own.columns_of([*kinds, "T"]) == ["T", "kind"]
    assert own.columns_of(kinds[:1]) == kinds[:1]


def test_values_in_words():
    own = Encoding.of(columns().values(), cycles=["month"])
    first = columns()["when"].values.min()
    assert own.told("when [days]", 1.0) == str((first + np.timedelta64(1, "D")).astype("M8[D]"))
    assert own.told("when: sin month", 0.5) == "0.5" == own.told("T", 0.5)
    assert isinstance(own.code("T"), NumberCode) and own.numeric == ("T",)


ODD = [
    {"kind": "text", "levels": [], "rare": []},
    {"kind": "text", "levels": ["a", "a"], "rare": []},
    {"kind": "text", "levels": ["a"], "rare": ["a"]},
    {"kind": "text", "levels": ["a", 1], "rare": []},
    {"kind": "text", "levels": "ab", "rare": []},
    {"kind": "text", "levels": ["a"]},
    {"kind": "date", "first": "x", "layout": "", "cycles": []},
    {"kind": "date", "first": "NaT", "layout": "", "cycles": []},
    {"kind": "date", "first": "2020-01-01", "layout": "y", "cycles": []},
    {"kind": "date", "first": "2020-01-01", "layout": "", "cycles": ["year"]},
    {"kind": "date", "first": "2020-01-01", "layout": "", "cycles": ["hour", "hour"]},
    {"kind": "date", "first": 3, "layout": "", "cycles": []},
    {"kind": "matrix"},
    {"kind": ["number"]},
    {},
]


@pytest.mark.parametrize("told", ODD, ids=range(len(ODD)))
def test_odd_descriptions_are_refused(told):
    with pytest.raises(ValueError, match="^the description of a "):
        Encoding.read([{"name": "a"} | told], [])


def test_odd_lists_and_names_are_refused():
    one = {"name": "a", "kind": "number"}
    for told, left in [("x", []), ([one], "a"), ([one], ["b"]), ([one, one], []), ([one], [1])]:
        with pytest.raises(ValueError):
            Encoding.read(told, left)
    with pytest.raises(ValueError):
        Encoding.read([one | {"name": 3}], [])
