"""Law: columns that describe no row are left out in words, or refused where they were asked for."""

import numpy as np
import pytest

from mgnet.app.columns.selection import chosen, input_names, read_columns, require
from mgnet.app.files.columns import Column
from mgnet.app.files.opening import open_data_file


@pytest.fixture
def file(tmp_path):
    def of(**columns):
        path = tmp_path / "data.csv"
        rows = zip(*columns.values(), strict=True)
        names = [name.removeprefix("_") for name in columns]
        lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
        return open_data_file(path)

    return of


def left(file, named=False):
    names = list(file.names)
    found = chosen(file, list(read_columns(file, names).values()), named)
    return [column.name for column in found.columns], found


ROWS = range(30)


def test_an_index_of_pandas_is_left_out(file):
    shuffled = np.random.default_rng(0).permutation(100)[:30]
    for index in (ROWS, shuffled, [f"car {k}" for k in ROWS]):
        names, found = left(file(_=index, a=np.sqrt(ROWS)))
        assert names == ["a"]
        counts = not isinstance(index, list)
        why = "it only numbers the rows" if counts else "30 different texts in 30 rows are not cat"
        assert f"column 1, which has no name, left out: {why}" in found.remarks[0]
        names, found = left(file(**{"Unnamed: 0": index, "a": np.sqrt(ROWS)}))
        assert names == ["a"] and len(found.remarks) == 1
    _, found = left(file(_=[k % 3 for k in ROWS], a=ROWS))
    assert found.wrong == ["column 1 has no name, but does not number the rows; name it"]


def test_a_number_of_the_row_is_left_out_unless_it_is_asked_for(file):
    table = file(ID=range(7, 37), t=ROWS, a=np.sqrt(ROWS))
    names, found = left(table)
    assert names == ["t", "a"] and "'ID' left out: it only numbers the rows" in found.remarks[0]
    assert left(table, named=True)[0] == ["ID", "t", "a"]


@pytest.mark.parametrize("levels", [16, 30])
def test_texts_that_tell_rows_apart(file, levels):
    table = file(name=[f"n{k % levels}" for k in ROWS], kind=["p", "q", "r"] * 10)
    names, found = left(table)
    assert names == ["kind"]
    assert f"{levels} different texts in 30 rows are not categories" in found.remarks[0]
    _, found = left(table, named=True)
    assert "column 'name' is not an input: " in found.wrong[0]


def test_few_rows_of_few_levels_are_categories(file):
    assert left(file(kind=["p", "q"] * 2))[0] == ["kind"]


def test_empty_columns(file):
    names, found = left(file(a=ROWS, b=[""] * 30))
    assert names == ["a"] and found.remarks == ["column 'b' left out: it is empty"]


def test_everything_wrong_is_told_at_once(file):
    table = file(
        p=[*ROWS[:-1], "x"],
        q=[*ROWS[:-2], "y", "z"],
        when=["1/2/2020", "3/4/2021"] * 15,
        a=ROWS,
    )
    names, found = left(table)
    assert names == ["a"]
    assert "column 'q'; there are more in p;" in found.wrong[0]
    assert "column 'when': dates such as '1/2/2020'" in found.wrong[1]


def test_dates_and_booleans_are_known(file):
    table = file(when=[f"{k + 1}.1.2020" for k in ROWS], sold=["yes", "no"] * 15)
    names, found = left(table)
    assert names == ["when", "sold"] and found.layouts == {"when": "day.month.year"}
    assert [column.kind for column in found.columns] == ["date", "boolean"]


def test_roles_of_columns(file):
    table = file(a=ROWS, b=ROWS, c=ROWS, d=ROWS)
    assert input_names(table, ["a"], None, ["b"], "c") == ["d"]
    assert input_names(table, ["a"], ["d", "b"]) == ["d", "b"]
    assert input_names(table, ["a"], ["d", "b"], ["b"]) == ["d"]
    for roles, words in [
        ((["a", "a"], None), "target 'a' is named twice"),
        ((["a"], ["b", "b"]), "input 'b' is named twice"),
        ((["a"], ["a", "b"]), "target 'a' is among the inputs"),
        ((["a"], ["b"], [], "b"), "weights column 'b' is among the inputs"),
        ((["a"], None, ["a"]), "target 'a' is also excluded"),
        ((["a"], None, [], "a"), "target 'a' cannot also be the weights"),
        ((["a"], None, ["b", "c", "d"]), "no column besides a"),
        ((["A"], ["x"], ["zz"]), "has no columns A, x, zz; the nearest names are a"),
    ]:
        with pytest.raises(ValueError, match=words):
            input_names(table, *roles)


def test_names_that_are_there(file):
    require(file(a=ROWS), ["a", "a"])


def test_columns_of_other_lengths(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(3), b=np.ones(4))
    with pytest.raises(ValueError, match=r"arrays differ in length \(a 3, b 4\)"):
        read_columns(open_data_file(tmp_path / "x.npz"), ["a", "b"])


def test_a_column_without_rows_is_no_reason_to_fail(file):
    found = chosen(file(a=[]), [Column("a", "number", np.empty(0))], named=False)
    assert len(found.columns) == 1
