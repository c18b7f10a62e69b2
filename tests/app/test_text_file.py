"""Law: a CSV file comes back number by number, and leaves with a column more."""

import csv
import io

import numpy as np
import pytest

from mgnet.app.text_file import open_text


@pytest.fixture
def sheet():
    def read(content):
        return open_text("data.csv", content if isinstance(content, bytes) else content.encode())

    return read


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_separators_and_line_ends(sheet, separator, end, last):
    lines = [separator.join(cells) for cells in (("a", "b c"), ("1", " 2 "), ("-3e-2", "4."))]
    columns = sheet(end.join(lines) + end * last)
    assert columns.names == ("a", "b c")
    assert columns.numbers(["b c", "a"]).tolist() == [[2.0, 1.0], [4.0, -0.03]]


@pytest.mark.parametrize(
    "text",
    [
        '"a","b"\n"1","2"\n3,4\n',
        "\ufeffa,b\n1,2\n3,4\n",
        "\n\na,b\n\n1,2\n\n\n3,4\n\n",
        "a,b,note\n1,2,x\n3,4,\n",
        'a,b,note\n1,2,"x,y"\n3,4,"two\nlines"\n',
    ],
)
def test_quotes_marks_blank_lines_and_text_beside(sheet, text):
    assert sheet(text).numbers(["a", "b"]).tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("word", ["", " ", "NaN", "nan", "NA", "n/a", "null", "None"])
def test_missing_cells_are_nan(sheet, word):
    numbers = sheet(f"a,b\n1,{word}\n3,4\n").numbers(["b", "a"])
    assert np.array_equal(numbers, [[np.nan, 1.0], [4.0, 3.0]], equal_nan=True)


@pytest.mark.parametrize("word", ["x", "1_000", "1 2", "0x1A", "--1", "1,5"])
def test_words_are_counted_and_shown(sheet, word):
    columns = sheet(f"a;b\n1;2\n3;{word}\n\n4;{word}\n")
    with pytest.raises(ValueError, match=f"2 of 3 cells.*'{word}' in line 3, column 'b'"):
        columns.numbers(["b"])
    assert columns.numbers(["a"]).ravel().tolist() == [1.0, 3.0, 4.0]


@pytest.mark.parametrize("row", ["1", "1,2,3", " "])
def test_ragged_rows_are_found_by_line(sheet, row):
    columns = sheet(f"a,b\n1,2\n\n{row}\n3,4\n")
    with pytest.raises(ValueError, match="line 4 has . cells, but line 1 names 2 columns"):
        columns.numbers(["a"])


def test_a_stray_quote_is_one_sentence(sheet):
    columns = sheet('a,b\n1,"2\n' + "3,4\n" * 40_000)
    with pytest.raises(ValueError, match="begins in line 2 .*a quote"):
        columns.numbers(["a"])


def test_rows_know_their_line(sheet):
    columns = sheet('\na,b\n1,2\n\n"3",4\n5,6\n')
    assert [columns.row_label(row) for row in range(3)] == ["line 3", "line 5", "line 6"]


def test_separators_in_quoted_names_do_not_count(sheet):
    assert sheet('"T, K";"p, q, MPa"\n1;2\n').names == ("T, K", "p, q, MPa")


def test_one_column(sheet):
    assert sheet("a\n1\n2\n").numbers(["a"]).tolist() == [[1.0], [2.0]]


def test_extended_keeps_all_text(sheet):
    columns = sheet('a;b;"n;x"\n1,0;"x;y";3\n\n2;z;4\n')
    lines = list(columns.with_columns({"p;q": np.array([0.1, np.nan])}))
    rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=";"))
    assert rows == [["a", "b", "n;x", "p;q"], ["1,0", "x;y", "3", "0.1"], ["2", "z", "4", ""]]


def test_a_million_cells_take_the_fast_way_and_the_slow_one_agrees(sheet):
    expected = np.random.default_rng(0).standard_normal((100_000, 3))
    body = "\n".join(",".join(f"{v:.17g}" for v in row) for row in expected)
    assert np.array_equal(sheet(f"a,b,c\n{body}").numbers("abc"), expected)
    quoted = body.replace(",", '","').replace("\n", '"\n"')
    assert np.array_equal(sheet(f'a,b,c\n"{quoted}"').numbers("abc"), expected)


@pytest.mark.parametrize("body", ['1,"2\n3,4\n', '"1"5,2\n3,4\n', '1,2\n"3,4\n5,6'])
def test_quotes_that_swallow_or_glue_cells_are_refused(sheet, body):
    with pytest.raises(ValueError, match="the row that begins in line . cannot be read"):
        sheet("a,b\n" + body).numbers(["a", "b"])


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("a," + "n" * 200_000, "cannot be read .field larger"),
        ("a," + "n" * 1001, "the name of column 2, 'n{40}...', has 1001 characters"),
        ('a,"b', "the column names in line 1 cannot be read .* quote not closed"),
        ("a,\x1b[31m", r"column 2, '\\x1b\[31m', has a control character"),
        ("a" + "," * 600_000, "has 600001 columns; at most 500000"),
        (",".join(["a", *"bcbc"]), "2 columns called 'b'"),
    ],
)
def test_names_that_nobody_can_use(sheet, header, words):
    with pytest.raises(ValueError, match=words) as error:
        sheet(header + "\n1,2\n")
    assert len(str(error.value)) < 300 and str(error.value).isprintable()


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("1e999", np.inf),
        ("1" + "0" * 5000, np.inf),
        ("0." + "3" * 5000, 1 / 3),
        ("9007199254740993", 2.0**53),
        (" " * 10**6 + "5", 5.0),
        ("\u0661\u0662", 12.0),
    ],
)
def test_numbers_of_any_length(sheet, cell, number):
    for text in (cell, f'"{cell}"' if len(cell) < 10**5 else cell):
        assert sheet(f"a,b\n{text},1\n").numbers(["a"]).tolist() == [[number]]


def test_what_is_shown_of_a_cell_is_one_short_line(sheet):
    with pytest.raises(ValueError, match="1 of 1 cells") as error:
        sheet('a,b\n"two\nlines' + "x" * 1000 + '",1\n').numbers(["a"])
    assert len(str(error.value)) < 200 and str(error.value).isprintable()


def test_cells_of_several_lines_stay_one_cell(sheet):
    file = sheet('note,a\n"two\nlines",1\n"a\r\nb",2\n')
    lines = file.with_columns({"b": np.array([3.0, 4.0])})
    rows = list(csv.reader(io.StringIO("\n".join(lines))))
    assert rows == [["note", "a", "b"], ["two\nlines", "1", "3"], ["a\nb", "2", "4"]]


@pytest.mark.parametrize("place", [5, 2**16 - 1, 2**16, 2**17 + 7])
def test_the_line_of_a_byte_that_is_no_text(sheet, place):
    content = bytearray(b"a,b\n" + b"1,2\n" * 2**16)
    content[place] = 0xE9
    line = content[:place].count(b"\n") + 1
    with pytest.raises(ValueError, match=f"line {line} has the byte 0xe9"):
        sheet(bytes(content))


def test_letters_of_several_bytes_may_lie_across_blocks(sheet):
    for lead in range(1, 5):
        text = "a" * lead + ",\U0001f600,c\n" + "1,\U0001f600,2\n" * 20_000
        assert len(sheet(text).numbers([sheet(text).names[2]])) == 20_000


def test_rows_are_read_without_copies_of_the_file(sheet, tmp_path):
    """NumPy's reader gets lines; a file takes its numbers and some buffers."""
    import tracemalloc

    content = b"a,b,c\n" + b"1.25,-3.5,\xf0\x9f\x98\x80\n" * 60_000
    tracemalloc.start()
    numbers = sheet(content).numbers(["a", "b"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert numbers.sum() == -2.25 * 60_000
    assert peak < 2.5 * numbers.nbytes + 2**18


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'T,N\n1,"1,000"\n2,"-12,345,678.5"\n',
            "column 'N'; remove the thousands separators;",
        ),
        ('T,N\n1,"1,000"\n2,"1,25"\n', "decimal commas must become points, thousands .* must go;"),
        ("T;N\n1;285,375\n", "decimal commas must become points"),
        ("T;N\n1;0,125\n", "decimal commas must become points"),
        ("sep=;\nT;N\n1;2\n", "line 1 is 'sep=;', .*; delete this line"),
        ('\n"sep=,"\nT,N\n1,2\n', "line 2 is .*; delete this line"),
        ("# T,N\n1,2\n", "the first column is called '# T' in line 1; remove the '#'"),
    ],
)
def test_tables_of_other_programs_get_a_remedy(sheet, text, words):
    with pytest.raises(ValueError, match=words) as error:
        sheet(text).numbers(["N"])
    assert len(str(error.value)) < 300


def test_names_like_these_notes_are_names(sheet):
    assert sheet("sep=a,#b\n1,2\n").numbers(["#b"]) == [[2.0]]


def test_columns_are_numbers_or_text(sheet):
    file = sheet("a,b,c\n1, x,NA\nnan,,-3\n")
    a, b, c = map(file.column, file.names)
    assert (a.kind, b.kind, c.kind) == ("number", "text", "number")
    assert b.values.dtype == object and b.values.tolist() == ["x", None]
    assert np.array_equal([a.values, c.values], [[1, np.nan], [np.nan, -3]], equal_nan=True)
