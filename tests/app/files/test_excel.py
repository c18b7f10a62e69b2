"""Law: the cells of a sheet are what openpyxl wrote there, or the file is refused."""

import io
import sys
import zipfile
from datetime import datetime, timedelta

import numpy as np
import pytest

from mgnet.app.files.excel import open_excel
from mgnet.app.files.opening import open_data_file

ROWS = [[1.5, 20, True], [2.25, None, False], [-3, 1e300, None]]


def book(*sheets):
    openpyxl = pytest.importorskip("openpyxl")
    made = openpyxl.Workbook()
    made.remove(made.active)
    for number, rows in enumerate(sheets):
        sheet = made.create_sheet(f"s{number}")
        for row in rows:
            sheet.append(row)
    made.save(out := io.BytesIO())
    return out


def opened(*sheets):
    return open_excel("x.xlsx", book(*sheets))


@pytest.mark.parametrize(
    "head",
    [
        [["T", "p", "on"]],
        [["T", "p", "on"], ["K", "bar", "-"]],
        [["A title"], [], ["T", "p", "on"]],
        [["A title", None, None], ["T", "p", "on"], ["K", "bar", "-"]],
        [[]],
    ],
)
@pytest.mark.parametrize("left", [0, 2])
def test_sheets(head, left):
    head = head if head[0] else [[], [], ["T", "p", "on"], []]
    file = opened([[None] * left + row for row in [*head, *ROWS]])
    assert file.names == ("T", "p", "on")
    expected = [[1.5, 20, 1], [2.25, np.nan, 0], [-3, 1e300, np.nan]]
    assert np.array_equal(file.numbers(file.names), expected, equal_nan=True)
    assert [file.column(name).kind for name in file.names] == ["number", "number", "boolean"]
    has_units = ["K", "bar", "-"] in head
    assert [file.column(n).units for n in file.names[:2]] == (
        ["K", "bar"] if has_units else [None] * 2
    )
    assert file.row_label(2) == f"row {len(head) + 3}"
    lines = list(file.with_columns({"q": np.array([0.5, np.nan, 2.0])}))
    body = ["1.5,20,1,0.5", "2.25,,0,", "-3,1e+300,,2"]
    assert lines == ["T,p,on,q", *["K,bar,,"] * has_units, *body]


def test_dates_text_and_what_is_none_of_them():
    day = datetime(2020, 2, 29, 6)
    rows = [[day, "a", "1,5", timedelta(hours=30), 1], [None, "#N/A", 2, None, "x"]]
    file = opened([["day", "text", "mixed", "span", "both"], *rows])
    assert file.column("day").values[0] == np.datetime64(day) and np.isnat(
        file.column("day").values[1]
    )
    assert file.column("text").values.tolist() == ["a", None]
    with pytest.raises(ValueError, match="'mixed' holds numbers that are stored as text; expected"):
        file.column("mixed")
    for name in ("day", "text", "mixed", "span", "both"):
        with pytest.raises(ValueError, match=f"column '{name}' holds .*not numbers"):
            file.numbers([name])


@pytest.mark.parametrize(
    ("sheets", "words"),
    [
        ([[["T"], [1]], [["p"], [2]]], "has 2 sheets with cells .s0, s1.; save the one"),
        ([[]], "is empty"),
        ([[["T", "p"], [1, "=1+1"]]], "row 2 has the formula '=1.1' without its value"),
        ([[[1, 2], [3, 4]]], "has no header: row 1"),
        ([[["T", None], [3, 4]]], "column 2 has no name in row 1"),
        ([[["T", "T"], [3, 4]]], "2 columns called 'T'"),
    ],
)
def test_sheets_that_are_no_tables(sheets, words):
    with pytest.raises(ValueError, match=words):
        opened(*sheets)


def test_an_empty_sheet_beside_does_not_count(tmp_path):
    (tmp_path / "data").write_bytes(book([["T"], [1]], []).getvalue())
    assert open_data_file(tmp_path / "data").numbers(["T"]) == [[1.0]]


@pytest.mark.parametrize("seed", range(2))
def test_damage_is_refused_in_one_sentence(seed):
    rng = np.random.default_rng(seed)
    content = book([["a", "b"], *[[k, f"t{k}"] for k in range(30)]]).getvalue()
    for _ in range(40):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        try:
            file = open_excel("x.xlsx", io.BytesIO(damaged))
        except ValueError as error:
            assert str(error).startswith("x.xlsx") and str(error).isprintable()
            assert len(str(error)) < 400
        else:
            assert file.numbers(["a"]).ravel().tolist() == list(range(30))


def test_a_sheet_that_unpacks_to_far_more_is_refused(monkeypatch):
    monkeypatch.setattr("mgnet.app.files.excel.ALWAYS_UNPACKED", 0)
    content = book([["a"], [1]])
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/media.bin", bytes(10**7))
    with pytest.raises(ValueError, match="unpacks to more than 100 times its size"):
        open_excel("x.xlsx", content)


def test_without_the_library_there_is_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with zipfile.ZipFile(tmp_path / "data.xlsx", "w") as out:
        out.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(ImportError, match=r"pip install 'mgnet-solvers\[tables\]', or save"):
        open_data_file(tmp_path / "data.xlsx")
