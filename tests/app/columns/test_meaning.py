"""Law: text means what all of it says; a few odd cells among numbers are mistakes."""

import numpy as np
import pytest

from mgnet.app.columns.meaning import looks_like_numbers, meant, read_booleans
from mgnet.app.files.columns import Column


def text(*cells):
    return Column("a", "text", np.array(cells, dtype=object))


@pytest.mark.parametrize("pair", [("yes", "No"), ("TRUE", "False"), ("t", "F"), ("Y", "n")])
def test_pairs_of_words_are_booleans(pair):
    rng = np.random.default_rng(0)
    true = rng.random(30) < 0.5
    column, _ = meant(text(*np.where(true, *pair)))
    assert column.kind == "boolean" and np.array_equal(column.values, true)


@pytest.mark.parametrize("cells", [("yes", "no", None), ("yes", "false"), ("m", "f"), ("yes", "x")])
def test_words_that_are_no_pair_or_lack_some_are_categories(cells):
    column = text(*cells)
    assert meant(column) == (column, "")


def test_dates_and_their_layout():
    column, layout = meant(text("1.2.2020", None, "13.2.2020"))
    assert (column.kind, layout) == ("date", "day.month.year")
    assert np.isnat(column.values).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="may begin with the day"):
        meant(text("1/2/2020"))


def test_numbers_lose_infinities_and_others_stay():
    numbers = Column("a", "number", np.array([1.0, np.inf, np.nan, -np.inf]))
    assert meant(numbers)[0].values.tolist()[0] == 1.0
    assert np.isnan(meant(numbers)[0].values[1:]).all() and np.isinf(numbers.values).any()
    dates = Column("a", "date", np.array(["2020-01-01"], dtype="datetime64[us]"))
    assert meant(dates) == (dates, "")
    empty, _ = meant(text(None, None))
    assert empty.kind == "number" and np.isnan(empty.values).all()


def test_words_of_truth():
    words = np.array(["Yes", "FALSE", "n", "T", None, "0"], dtype=object)
    np.testing.assert_array_equal(read_booleans(words), [1, 0, 0, 1, np.nan, np.nan])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1.5", "x"], True),
        (["1.5", "x", "y"], False),
        (["1,234.5", "-2e-3", None, "x"], True),
        (["1 000", "1'000"], True),
        (["2020-01-01", "12:30"], False),
        (["1.2.3", "4wd"], False),
        ([None], False),
    ],
)
def test_numbers_with_mistakes(cells, expected):
    assert looks_like_numbers(text(*cells)) == expected


def test_only_text_may_be_numbers_with_mistakes():
    assert not looks_like_numbers(Column("a", "number", np.ones(3)))
