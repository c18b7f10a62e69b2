"""Law: cells that have a type keep their value, and a mixture of types is never a number."""

import csv
import io
from datetime import date, datetime

import numpy as np
import pytest

from mgnet.app.files.columns import Column
from mgnet.app.files.typed import TypedFile, cell_text, column_of, text_column


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2.5, None], "number", [1.0, 2.5, np.nan]),
        ([10**400, -(10**400), 1], "number", [np.inf, -np.inf, 1.0]),
        ([1, "#N/A", "-"], "number", [1.0, np.nan, np.nan]),
        ([None, "NA"], "number", [np.nan, np.nan]),
        ([True, None, False], "boolean", [1.0, np.nan, 0.0]),
        (["a", None, "?"], "text", ["a", None, None]),
        (["a", 5, 2.5], "text", ["a", "5", "2.5"]),
        ([True, 5], "text", ["1", "5"]),
        ([date(2020, 2, 29), datetime(1900, 1, 1, 12), None], "date", None),
    ],
)
def test_kinds(values, kind, expected):
    column = column_of("c", values, "K")
    assert isinstance(column, Column) and (column.kind, column.units) == (kind, "K")
    if kind == "date":
        told = ["2020-02-29T00:00:00.000000", "1900-01-01T12:00:00.000000", "NaT"]
        assert column.values.astype(str).tolist() == told
    else:
        assert all(
            a == b or (a != a and b != b)
            for a, b in zip(column.values.tolist(), expected, strict=True)
        )


@pytest.mark.parametrize("values", [[1, "2,5"], ["1.5", "2"], [1.0, "1,000", None]])
def test_numbers_that_are_text_are_neither_numbers_nor_labels(values):
    assert column_of("c", values) == "numbers that are stored as text"


def test_all_columns_that_are_no_numbers_are_named_at_once():
    columns = {
        n: column_of(n, v) for n, v in {"a": [1], "b": ["x"], "d": [date(2020, 1, 1)]}.items()
    }
    file = TypedFile("x", tuple("abcd"), columns, {"c": "lists"}, lambda: iter(()), [1])
    with pytest.raises(
        ValueError, match="'b' holds texts, 'd' holds dates, 'c' holds lists, not n"
    ):
        file.numbers("abdc")
    assert file.numbers("a").tolist() == [[1.0]]
    with pytest.raises(ValueError, match="column 'c' holds lists; expected numbers, text"):
        file.column("c")


def test_what_is_written_is_what_stood_there():
    rows = [(2**60 + 1, 0.1, 'x,"y"', None), (-3, 2.0, "two\nlines", True)]
    columns = {"i": column_of("i", [2**60 + 1, -3], "kg"), "n": text_column("n", ["a", "b"])}
    file = TypedFile("x", ("i", "f", "n", "o"), columns, {}, lambda: iter(rows), [3, 7])
    lines = file.with_columns({"q": np.array([0.5, np.nan])})
    assert list(csv.reader(io.StringIO("\n".join(lines)))) == [
        ["i", "f", "n", "o", "q"],
        ["kg", "", "", "", ""],
        ["1152921504606846977", "0.1", 'x,"y"', "", "0.5"],
        ["-3", "2", "two\nlines", "1", ""],
    ]
    assert file.row_label(1) == "row 7"
    assert float(cell_text(1e-300)) == 1e-300
