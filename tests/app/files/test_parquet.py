"""Law: a column of a Parquet file is what pyarrow says it is, or it is refused."""

import io
import sys
from datetime import datetime, timezone
from decimal import Decimal

import numpy as np
import pytest

from mgnet.app.files.opening import open_data_file
from mgnet.app.files.parquet import open_parquet


def written(table, **options):
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(table, out := io.BytesIO(), **options)
    return out


def opened(arrays, **options):
    arrow = pytest.importorskip("pyarrow")
    return open_parquet("x.parquet", written(arrow.table(arrays), **options))


def test_numbers_of_every_type():
    arrow = pytest.importorskip("pyarrow")
    types = ["int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]
    arrays = {name: arrow.array(np.array([1, 0, 3]).astype(name)) for name in types}
    arrays |= {
        "holes": arrow.array([1, None, 3], arrow.int64()),
        "decimal": arrow.array([Decimal("1.25"), None, Decimal("3")]),
        "coded": arrow.array([1.5, 1.5, None]).dictionary_encode(),
        "none": arrow.nulls(3),
    }
    file = opened(arrays)
    numbers = file.numbers(file.names)
    assert numbers[:, :8].tolist() == [[1.0] * 8, [0.0] * 8, [3.0] * 8]
    rest = [[1, 1.25, 1.5, np.nan], [np.nan, np.nan, 1.5, np.nan], [3, 3, np.nan, np.nan]]
    assert np.array_equal(numbers[:, 8:], rest, equal_nan=True)
    assert {file.column(name).kind for name in file.names} == {"number"}


def test_other_kinds():
    arrow = pytest.importorskip("pyarrow")
    instant = datetime(2020, 3, 1, 12, tzinfo=timezone.utc)
    file = opened(
        {
            "yes": arrow.array([True, None]),
            "text": arrow.array(["a", "NA"]),
            "coded": arrow.array(["b", None]).dictionary_encode(),
            "day": arrow.array([18000, None], arrow.int32()).cast(arrow.date32()),
            "nano": arrow.array([-1, None], arrow.int64()).cast(arrow.timestamp("ns")),
            "zone": arrow.array([instant, None], arrow.timestamp("ms", "Europe/Berlin")),
            "list": arrow.array([[1], [2]]),
        }
    )
    assert np.array_equal(file.column("yes").values, [1, np.nan], equal_nan=True)
    assert file.column("text").values.tolist() == ["a", None]
    assert file.column("coded").values.tolist() == ["b", None]
    for name, day in (("day", "2019-04-14"), ("nano", None), ("zone", "2020-03-01T12:00")):
        values = file.column(name).values
        assert values.dtype == "M8[us]" and np.isnat(values[1])
        assert day is None or values[0] == np.datetime64(day)
    assert file.column("nano").values[0] in np.array(["1969-12-31T23:59:59.999999", 0], "M8[us]")
    with pytest.raises(ValueError, match="'list' holds list<.*>; expected numbers"):
        file.column("list")
    with pytest.raises(ValueError, match="'text' holds texts, 'day' holds dates, not numbers"):
        file.numbers(["yes", "text", "day"])


def test_it_is_known_by_its_content_and_written_as_csv(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"id": [2**60 + 1, 5], "T": [0.1, None], "__index_level_0__": [0, 1]})
    (tmp_path / "data.csv").write_bytes(written(table).getvalue())
    file = open_data_file(tmp_path / "data.csv")
    assert file.names == ("id", "T")  # the index of pandas is none
    lines = list(file.with_columns({"q": np.array([0.5, 1.5])}))
    assert lines == ["id,T,q", "1152921504606846977,0.1,0.5", "5,,1.5"]
    assert file.row_label(1) == "row 2"


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_refused_in_one_sentence(seed):
    arrow = pytest.importorskip("pyarrow")
    rng = np.random.default_rng(seed)
    values = np.arange(200.0)
    content = written(
        arrow.table({"a": values, "b": [f"t{k}" for k in range(200)]}),
        write_page_checksum=True,
    ).getvalue()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # has no checksum
    for _ in range(100):
        damaged = bytearray(content)
        place = int(rng.integers(4, len(content)))
        damaged[place] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.2:
            del damaged[rng.integers(len(damaged)) :]
        try:
            file = open_parquet("x.parquet", io.BytesIO(damaged))
        except ValueError as error:
            assert str(error).startswith("x.parquet") and str(error).isprintable()
            assert len(str(error)) < 400
        else:
            if place < footer:
                assert file.column("a").values.tolist() == values.tolist()


def test_a_table_of_one_value_is_no_bomb():
    arrow = pytest.importorskip("pyarrow")
    rows = 50_000_000
    indices = arrow.DictionaryArray.from_arrays(np.zeros(rows, np.int8), [1.0])
    with pytest.raises(ValueError, match="unpacks to more than 100 times its size"):
        opened({"a": indices})


def test_without_the_library_there_is_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "data.parquet").write_bytes(b"PAR1 and more PAR1")
    with pytest.raises(ImportError, match=r"pip install 'mgnet-solvers\[tables\]', or save"):
        open_data_file(tmp_path / "data.parquet")
