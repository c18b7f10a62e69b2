"""Law: a file of columns comes back number by number, and leaves with a column more."""

import csv
import io

import numpy as np
import pytest

from mgnet.app.data_file import open_data_file


@pytest.fixture
def sheet(tmp_path):
    def write(content, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return open_data_file(path)

    return write


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
    lines = list(columns.with_column("p;q", np.array([0.1, np.nan])))
    rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=";"))
    assert rows == [["a", "b", "n;x", "p;q"], ["1,0", "x;y", "3", "0.1"], ["2", "z", "4", ""]]


def test_a_million_cells_take_the_fast_way_and_the_slow_one_agrees(sheet):
    expected = np.random.default_rng(0).standard_normal((100_000, 3))
    body = "\n".join(",".join(f"{v:.17g}" for v in row) for row in expected)
    assert np.array_equal(sheet(f"a,b,c\n{body}").numbers("abc"), expected)
    quoted = body.replace(",", '","').replace("\n", '"\n"')
    assert np.array_equal(sheet(f'a,b,c\n"{quoted}"').numbers("abc"), expected)


# Archives


def test_archive(tmp_path):
    path = tmp_path / "data.npz"
    x = np.arange(6).reshape(3, 2)
    np.savez(path, x=x, y=np.ones(3, np.float32), label=np.array(["a", "b", "c"]), dx=0.1)
    columns = open_data_file(path)
    assert columns.names == ("x0", "x1", "y", "label")
    assert columns.numbers(["y", "x1"]).tolist() == [[1.0, 1.0], [1.0, 3.0], [1.0, 5.0]]
    lines = ["x0,x1,y,z", "0,1,1,0", "2,3,1,1", "4,5,1,2"]
    assert list(columns.with_column("z", np.arange(3.0))) == lines
    with pytest.raises(ValueError, match="array 'label' holds <U1"):
        columns.numbers(["label"])


def test_bad_archives(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, a=np.ones(3), b=np.ones(4))
    with pytest.raises(ValueError, match="differ in length .a 3, b 4."):
        open_data_file(path).numbers(["a", "b"])
    np.savez(path, a=np.float64(1.0))
    with pytest.raises(ValueError, match="no array with 1 or 2 dimensions"):
        open_data_file(path)
    np.savez(path, x=np.ones((3, 1)), x0=np.ones(3))
    with pytest.raises(ValueError, match="2 columns called 'x0'"):
        open_data_file(path)
    np.savez(path, a=np.array([{}, {}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read as an .npz archive"):
        open_data_file(path)
    path.write_text("text")
    with pytest.raises(ValueError, match="cannot be read as an .npz archive"):
        open_data_file(path)
