"""Law: lines are cut into the cells that Python's csv module cuts them into, or into words."""

import csv
import io

import numpy as np
import pytest

from mgnet.app.files.records import BLANKS, csv_line, number_text, records, split_cells

CELLS = ["1.5", "", " 2", "a b", 'he said "no"', "two\nlines", "x,y", "x;y", '"', "#5", "'"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_rows_are_those_of_the_csv_module(separator, quoting):
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = [list(rng.choice(CELLS, 3)) for _ in range(5)]
        out = io.StringIO()
        form = {"delimiter": separator, "lineterminator": "\n", "quoting": quoting}
        csv.writer(out, **form).writerows(rows)
        text = out.getvalue()
        found = list(records("x", io.StringIO(text), separator))
        assert [record.cells for record in found] == rows
        assert "".join(f"{record.text}\n" for record in found) == text
        lines = text.split("\n")
        assert all(lines[r.line - 1].startswith(r.text.split("\n")[0]) for r in found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  1   2\t3 \n", ["1", "2", "3"]),
        ('"a b" "c ""d""" e\n', ["a b", 'c "d"', "e"]),
        ('""  1\n', ["", "1"]),
        ("1\xa0000 2\n", ["1\xa0000", "2"]),
    ],
)
def test_words(text, words):
    assert split_cells(text, BLANKS) == words


@pytest.mark.parametrize("text", ['"a b\n', '"a"b\n', 'a"b\n'])
def test_quotes_within_words_are_refused(text):
    with pytest.raises(ValueError, match="begins in line 1 .*quote"):
        list(records("x", [text], BLANKS))


def test_comments_are_asked_for_at_the_begin_of_a_row_only():
    lines = ["a,b\n", "# no\n", '"two\n', '# lines",1\n', "\n", "#N,2\n"]
    found = list(records("x", lines, ",", 1, lambda text, line: line == 2))
    assert [record.cells for record in found] == [
        ["a", "b"],
        None,
        ["two\n# lines", "1"],
        ["#N", "2"],
    ]
    assert [record.line for record in found] == [1, 2, 3, 6]


def test_cells_that_are_written():
    assert csv_line(["a", "b c"], BLANKS) == 'a "b c"'
    assert [number_text(value) for value in (0.1, float("inf"), float("nan"))] == ["0.1", "inf", ""]
