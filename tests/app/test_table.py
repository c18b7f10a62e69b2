"""Law: a table is finite, complete and varied, or refused; its split loses no row."""

import time

import numpy as np
import pytest

from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data, Settings
from mgnet.app.fit import without_constants
from mgnet.app.table import Table, read_table, split


@pytest.fixture
def path(tmp_path):
    rows = "".join(f"{k},{k % 7},{k * 0.5},x\n" for k in range(30))
    (tmp_path / "data.csv").write_text("Temperature,pressure,rho,note\n" + rows)
    return tmp_path / "data.csv"


def x_of(table):
    """The numbers of a table without categories and dates."""
    return np.column_stack([column.values for column in table.inputs])


def test_inputs_in_the_order_asked_for(path):
    table = read_table(path, "rho", ["pressure", "Temperature"])
    assert table.names == ("pressure", "Temperature")
    assert x_of(table).dtype == table.y.dtype == np.float64
    assert x_of(table)[8].tolist() == [1.0, 8.0]
    assert table.y[8] == 4.0


def test_all_other_columns_by_default(path):
    assert read_table(path, "rho").names == ("Temperature", "pressure", "note")
    path.write_text(path.read_text() + "1,x,2,y\n")
    with pytest.raises(ValueError, match="1 of 31 cells are not numbers.*column 'pressure'"):
        read_table(path, "rho")


def test_units_of_numbers_are_kept(tmp_path):
    rows = "".join(f"{k},{k % 7},{'ab'[k % 2]},{0.5 * k}\n" for k in range(30))
    (tmp_path / "data.csv").write_text("T,p,kind,rho\nK,-,,kg/m3\n" + rows)
    table = read_table(tmp_path / "data.csv", "rho")
    assert dict(table.units) == {"T": "K", "rho": "kg/m3"}
    assert dict(split(table, 0.2, 0).units) == dict(table.units)


@pytest.mark.parametrize(
    ("name", "near"),
    [("temperature", "are Temperature"), ("presure", "are pressure"), ("zzz", "it has Temp")],
)
def test_a_missing_column_names_the_nearest(path, name, near):
    with pytest.raises(ValueError, match=f"no column '{name}'.*{near}"):
        read_table(path, "rho", [name])


def wide(columns, rows=12):
    names = tuple(f"c{k}" for k in range(columns))
    return names, np.random.default_rng(0).normal(size=(rows, columns))


def test_tens_of_thousands_of_columns_take_no_longer_each(tmp_path):
    """They took time by the square of their number: minutes here."""
    names, numbers = wide(20_000)
    np.savez(tmp_path / "data.npz", c=numbers)
    body = "\n".join(",".join(f"{v:.6g}" for v in row) for row in numbers)
    (tmp_path / "data.csv").write_text(f"{','.join(names)}\n{body}\n")
    start = time.process_time()
    for path in (tmp_path / "data.csv", tmp_path / "data.npz"):
        table = read_table(path, "c19999")
        assert table.names == names[:-1] and x_of(table).shape == (12, 19_999)
        assert np.allclose(x_of(table), numbers[:, :-1], rtol=1e-5)
        data = split(table, 0.2, 0)
        assert without_constants(data, Settings())[0] is data
        with pytest.raises(ValueError, match="no column 'd7'; the nearest names are c7"):
            read_table(path, "d7")
    assert time.process_time() - start < 20.0


def test_sentences_about_many_columns_are_short(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, c=np.ones((12, 3000)), y=np.arange(12.0))
    with pytest.raises(ValueError, match="in every input .c0, .*c7 and 2992 more"):
        read_table(path, "y")
    with pytest.raises(ValueError, match="no column '.{40}...'; it has c0, .*c7 and 2993 more"):
        read_table(path, "zyx" * 10_000)
    names, x = tuple(f"c{k}" for k in range(3000)), np.ones((12, 3000))
    data = Data(names, Targets(("y",)), x, np.arange(12.0), x[:1], np.ones(1))
    with pytest.raises(ValueError, match="no input varies .*c7 and 2992 more"):
        without_constants(data, Settings())


def test_missing_values_are_counted_or_dropped(path):
    with path.open("a") as file:
        file.write("1,,1,x\n,,1,x\n2,3,inf,x\n")
    with pytest.raises(ValueError, match="3 of 33 rows.*line 32, column 'pressure'.*drop-missing"):
        read_table(path, "rho", ["Temperature", "pressure"])
    table = read_table(path, "rho", ["Temperature", "pressure"], drop_missing=True)
    assert (len(table.y), table.dropped) == (30, 3)


def test_a_table_of_holes_has_too_few_rows(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + ",1\n2,\n" * 20)
    with pytest.raises(ValueError, match="too few complete rows, 0; at least 10"):
        read_table(path, "b", drop_missing=True)
    path.write_text("a,b\n" + ",1\n" * 20)
    with pytest.raises(ValueError, match="no input is left: column 'a' left out: it is empty"):
        read_table(path, "b", drop_missing=True)


def test_a_lonely_target_is_refused(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a\n1\n2\n")
    with pytest.raises(ValueError, match="no column besides the target"):
        read_table(path, "a")


def test_a_spread_beyond_double_is_refused(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + "".join(f"1e308,{k}\n-1e308,0.5\n" for k in range(10)))
    with pytest.raises(ValueError, match="spans more than a double"):
        read_table(path, "b")


def table(rows):
    return Table.of_numbers(("T",), "rho", np.arange(rows)[:, None] * 1.0, np.arange(rows) * 2.0)


@pytest.mark.parametrize(("held_out", "held"), [(0.2, 20), (0.98, 98), (0.014, 1)])
def test_every_row_is_in_one_part(held_out, held):
    data = split(table(100), held_out, seed=1)
    assert len(data.y_held) == held
    assert sorted(np.concatenate([data.y, data.y_held])) == list(range(0, 200, 2))
    assert np.array_equal(2.0 * data.x[:, 0], data.y)
    assert np.array_equal(2.0 * data.x_held[:, 0], data.y_held)


def test_the_seed_decides():
    parts = [split(table(50), 0.3, seed).y_held.tolist() for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


@pytest.mark.parametrize("held_out", [-0.1, 0.0, 0.001, 0.999, 1.0, 2.0, float("nan")])
def test_a_fraction_that_leaves_a_part_empty(held_out):
    with pytest.raises(ValueError, match="held-out fraction"):
        split(table(100), held_out, 0)


def test_training_rows_that_agree():
    rare = Table.of_numbers(("T",), "rho", np.arange(10.0)[:, None], np.eye(10)[0])
    answers = []
    for seed in range(20):
        try:
            answers.append(float(np.var(split(rare, 0.5, seed).y)))
        except ValueError as error:
            answers.append("training rows: 5 rows have the same value 0" in str(error))
    assert True in answers
    assert 0.0 not in answers and False not in answers
