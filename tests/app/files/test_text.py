"""Law: a CSV file comes back number by number, and leaves with a column more."""

import csv
import io

import numpy as np
import pytest

from mgnet.app.files.cells import MISSING
from mgnet.app.files.text import open_text


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


@pytest.mark.parametrize("word", ["x", "1_000", "1 2", "0x1A", "--1", "1,2,3"])
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
    assert rows == [["a", "b", "n;x", "p;q"], ["1,0", "x;y", "3", "0,1"], ["2", "z", "4", ""]]


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
        ('a,"' + "n" * 200_000 + '"', "cannot be read .field larger"),
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


ROWS = [[1.5, 20.25, 0.125], [1.625, -3.0, 1234.5], [2.5e-3, 0.0, 7.0]]


def body(separator, decimal):
    return "".join(
        separator.join(f"{value:.6g}".replace(".", decimal) for value in row) + "\n" for row in ROWS
    )


@pytest.mark.parametrize("separator", [",", ";", "\t", " ", "   ", " \t "])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize(
    "head",
    [
        "T|p|rho\n",
        "# made by hand, or so\n#\nT|p|rho\n",
        "# T|p|rho\n",
        "# made; in 2020\n#T|p|rho\n",
        "T|p|rho\nK|bar|kg/m3\n",
        "T|p|rho\n[K]|-|\u00b0\n",
    ],
)
def test_dialects(sheet, separator, decimal, head):
    if separator == "," and decimal == ",":
        rows = '"' + body('","', ",").replace("\n", '"\n"').removesuffix('"')
    else:
        rows = body(separator, decimal)
    file = sheet(head.replace("|", separator) + rows)
    assert file.names == ("T", "p", "rho") and file.marks.decimal == decimal
    assert file.numbers(["rho", "T", "p"]).tolist() == [[c, a, b] for a, b, c in ROWS]
    assert [file.column(name).values.tolist() for name in file.names] == np.transpose(ROWS).tolist()
    units = [file.column(name).units for name in file.names]
    expected = {"K|": ["K", "bar", "kg/m3"], "[K": ["K", None, "\u00b0"]}
    assert units == next((u for k, u in expected.items() if f"\n{k}" in head), [None] * 3)
    again = sheet("\n".join(file.with_columns({"new": np.array([0.5, np.nan, 2.0])})))
    assert again.names == ("T", "p", "rho", "new") and again.marks.decimal == decimal
    assert np.array_equal(again.numbers(["new"]).ravel(), [0.5, np.nan, 2.0], equal_nan=True)
    assert again.numbers(["T", "p", "rho"]).tolist() == ROWS
    assert again.column("T").units == units[0]


LOGGER = (
    '"TOA5","station","CR1000","1"\n"TIMESTAMP","RECORD","T","p"\n"TS","RN","K","bar"\n'
    '"","","Smp","Avg"\n'
)


@pytest.mark.parametrize(
    ("head", "units"),
    [
        (LOGGER, ("TS", "RN", "K", "bar")),
        (LOGGER.replace(',"1"\n', "\n"), ("TS", "RN", "K", "bar")),
        (LOGGER.partition("\n")[2], ("TS", "RN", "K", "bar")),
        ("Report of 2020\n\nTIMESTAMP,RECORD,T,p\n", (None,) * 4),
        ("TIMESTAMP,RECORD,T,p\n,,Smp,Smp\n", (None,) * 4),
    ],
)
def test_head_lines_of_loggers(sheet, head, units):
    row = '"2020-01-01 10:00:0{}",{},285.375,4.39\n'
    text = head + "".join(row.format(k, k) for k in range(5))
    file = sheet(text)
    assert file.names == ("TIMESTAMP", "RECORD", "T", "p")
    assert file.column("TIMESTAMP").kind == "text"
    assert tuple(file.column(name).units for name in file.names) == units
    assert file.numbers(["RECORD", "p"]).tolist() == [[k, 4.39] for k in range(5)]
    lines = list(file.with_columns({"new": np.arange(5.0)}))
    assert len(lines) == len([line for line in text.split("\n") if line])
    again = sheet("\n".join(lines))
    assert again.numbers(["p", "new"]).tolist() == [[4.39, k] for k in range(5)]
    assert tuple(again.column(name).units for name in file.names) == units


@pytest.mark.parametrize(
    "text",
    [
        "T,p\nK,bar\nlow,high\n1,2\n",  # two rows of text, no logger
        "T,p\nK,5\n1,2\n",  # a number among the units
        "T,p\n1,2\nK,bar\n3,4\n",  # not right below the names
        "name,T\nx,K\nx,1\ny,2\n",  # a label that comes again
        "name,T\nx,out\ny,2\n",  # one number only, and perhaps a label
    ],
)
def test_what_are_no_units_is_refused_as_a_number(sheet, text):
    file = sheet(text)
    with pytest.raises(ValueError, match="are not numbers"):
        file.numbers(["T"])


def test_a_row_of_missing_values_is_no_row_of_units(sheet):
    assert np.isnan(sheet("T,p\n-,NA\n1,2\n").numbers(["T", "p"])[0]).all()


@pytest.mark.parametrize("word", sorted(MISSING))
@pytest.mark.parametrize("place", [0, 1])
def test_missing_values_in_all_spellings(sheet, word, place):
    cells = ["5", "5"]
    cells[place] = word.upper()
    numbers = sheet("a,b\n1,2\n" + ",".join(cells) + "\n3,4\n").numbers(["a", "b"])
    assert np.isnan(numbers[1, place]) and numbers[1, 1 - place] == 5
    assert numbers[[0, 2]].tolist() == [[1, 2], [3, 4]]


def test_a_number_that_often_means_missing_is_a_number(sheet):
    assert sheet("a,b\n-999,1\n").numbers(["a"]) == [[-999]]


@pytest.mark.parametrize(
    ("text", "told", "numbers"),
    [
        ('T,N\n1,"1,000"\n2,"12,345"\n', ".", [1000, 12345]),
        ('T,N\n1,"1,000"\n2,"12,345"\n', ",", [1.0, 12.345]),
        ('T,N\n1.5,"1,000"\n2,"-12,345,678.5"\n', ".", [1000, -12345678.5]),
        ("T;N\n1;1,234\n2;7\n", ",", [1.234, 7]),
        ("T;N\n1;1.234\n0,5;7\n", ",", [1234, 7]),
        ("T N\n1 1.234.567,5\n0,5 7\n", ",", [1234567.5, 7]),
    ],
)
def test_ambiguous_marks_are_refused_until_they_are_told(sheet, text, told, numbers):
    file = sheet(text)
    for read in (lambda: file.numbers(["N"]), lambda: file.column("N")):
        with pytest.raises(ValueError, match="--decimal . or --decimal , sets") as error:
            read()
        assert len(str(error.value)) < 400
    file = open_text("data.csv", text.encode(), told)
    assert file.numbers(["N"]).ravel().tolist() == numbers
    assert file.column("N").values.tolist() == numbers


def test_points_in_a_file_of_decimal_commas_are_not_read_as_points(sheet):
    file = sheet("T;N;when\n1,5;7;01.02.2020\n2,25;1.5;02.02.2020\n")
    assert file.numbers(["T"]).ravel().tolist() == [1.5, 2.25]
    with pytest.raises(ValueError, match="'1.5' in line 3, column 'N'"):
        file.numbers(["N"])


def test_a_comma_far_below_decides(sheet):
    file = sheet("T;N\n" + "1;1.234\n" * 500 + "0,5;2\n")
    with pytest.raises(ValueError, match="500 of 501 cells are not numbers"):
        file.numbers(["N"])
    assert file.numbers(["T"])[-1] == 0.5


def test_commas_in_notes_decide_nothing(sheet):
    file = sheet("T;note\n" + "1.5;one, two\n" * 300)
    assert (file.numbers(["T"]) == 1.5).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a;b,c\n1;2,5\n3;4,5\n", "separated by commas or semicolons, .* write 'sep=' and the one"),
        ("T,p\n1,5,2,5\n1,25,3,5\n", "decimal commas need semicolons"),
        ("a,b\n1,2\n#3,4\n", "line 3 begins with '#3,4', which may be a comment or a cell"),
        ("a,b\nx,2\n# 3,4\n", "line 3 begins with '# 3,4', which may be a comment or a cell"),
        ("# only comments\n", "has comments only"),
        ("sep=;\n", "is empty"),
        ("T [K] p [bar]\n1 2\n3 4\n", "no column|names 1 columns"),
        ("1,2\n3,4\n", "has no header"),
        ("#\n1,2\n3,4\n", "has no header"),
    ],
)
def test_tables_that_can_be_read_in_two_ways_get_a_remedy(sheet, text, words):
    with pytest.raises(ValueError, match=words) as error:
        file = sheet(text)
        if file.names == ("T [K] p [bar]",):
            raise ValueError("no column T")
        file.numbers(file.names)
    assert len(str(error.value)) < 300


def test_comments_between_rows_are_kept_and_cells_with_the_mark_are_cells(sheet):
    text = '# by hand\na,b\n1,2\n# 5,6,7\n#N/A,3\n  # and "so\n4,5\n#6,7\n'
    file = sheet(text)
    numbers = file.numbers(["a", "b"])
    assert np.array_equal(numbers, [[1, 2], [np.nan, 3], [4, 5]], equal_nan=True)
    lines = list(file.with_columns({"c": np.arange(3.0)}))
    told = ["# by hand", "a,b,c", "1,2,0", "# 5,6,7", "#N/A,3,1", '  # and "so', "4,5,2", "#6,7"]
    assert lines == told


@pytest.mark.parametrize(
    "text", ["sep=;\nT;N\n1;2\n", '\n"sep=;"\nT;N\n1;2\n', "SEP=|\nT|N\n1|2\n"]
)
def test_notes_on_the_separator(sheet, text):
    file = sheet(text)
    assert file.names == ("T", "N") and file.numbers(["N"]) == [[2.0]]
    again = sheet("\n".join(file.with_columns({"q": np.array([0.5])})))
    assert again.numbers(["T", "N", "q"]).tolist() == [[1.0, 2.0, 0.5]]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_utf_16_with_a_mark_is_read(sheet, encoding):
    file = sheet("T [\u00b0C],p\n1,2\n".encode(encoding))
    assert file.names == ("T [\u00b0C]", "p") and file.numbers(["p"]) == [[2.0]]


def test_damaged_utf_16(sheet):
    with pytest.raises(ValueError, match="damaged text in UTF-16"):
        sheet("T,p\n1,2\n".encode("utf-16") + b"x")


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_the_mark_of_a_comment_is_no_name_that_shifts_the_others(sheet, separator):
    with pytest.raises(ValueError):
        sheet("# T pq rho\n1 2 3 4\n5 6 7 8.5\n".replace(" ", separator)).numbers(["T"])


def test_names_like_these_notes_are_names(sheet):
    assert sheet("sep=a,#b\n1,2\n").numbers(["#b"]) == [[2.0]]
    assert sheet("#,b\n1,2\n3,4\n").numbers(["b"]).tolist() == [[2.0], [4.0]]


def test_all_columns_that_are_no_numbers_are_named(sheet):
    with pytest.raises(
        ValueError, match="3 of 6 cells .* column 'a'; there are more in c; correct"
    ):
        sheet("a,b,c\nx,1,y\n2,3,z\n").numbers("abc")


def test_columns_are_numbers_or_text(sheet):
    file = sheet("a,b,c\n1, x,NA\nnan,,-3\n")
    a, b, c = map(file.column, file.names)
    assert (a.kind, b.kind, c.kind) == ("number", "text", "number")
    assert b.values.dtype == object and b.values.tolist() == ["x", None]
    assert np.array_equal([a.values, c.values], [[1, np.nan], [np.nan, -3]], equal_nan=True)
