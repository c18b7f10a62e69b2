"""Law: a column becomes what scikit-learn's encoder, or plain arithmetic on dates, makes of it."""

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder

from mgnet.app.columns.codes import (
    MOST_LEVELS,
    RARE,
    BooleanCode,
    CategoryCode,
    DateCode,
    NumberCode,
)
from mgnet.app.columns.dates import date_text
from mgnet.app.files.columns import Column


def text(values, name="a"):
    return Column(name, "text", np.array([*values, None], dtype=object)[:-1])


@pytest.mark.parametrize("seed", range(12))
def test_categories_are_those_of_scikit_learn(seed):
    """Drawn: rare levels and none, missing cells and none, more levels than have a column."""
    rng = np.random.default_rng(seed)
    known = [f"level {k}" for k in range(int(rng.choice([2, 6, 80])))]
    levels = np.array([*known, *[None] * (seed % 2)], dtype=object)
    shares = rng.dirichlet(np.full(len(levels), 0.5 if seed % 3 else 50.0))
    train = rng.choice(levels, 600, p=shares)
    other = np.concatenate([rng.choice(levels, 50, p=shares), ["new", "newer"]]).astype(object)
    oracle = OneHotEncoder(
        min_frequency=RARE, max_categories=MOST_LEVELS, handle_unknown="infrequent_if_exist"
    ).fit(train[:, None])
    code = CategoryCode.of(text(train))
    for cells in (train, other):
        x, new = code.encode(text(cells))
        assert np.array_equal(x, oracle.transform(cells[:, None]).toarray())  # type: ignore
        assert x.shape[1] == len(code.features) == len(set(code.features)) <= MOST_LEVELS
        assert np.array_equal(new, ~np.isin(cells.astype(str), train.astype(str)))


def test_levels_that_look_alike_have_names_that_differ():
    long = ["x" * 60 + end for end in "abc"]
    code = CategoryCode.of(text(np.repeat(long, 5)))
    assert len(set(code.features)) == 3
    odd = CategoryCode.of(text(["two\nlines"] * 5 + ["(missing)"] * 5 + [None] * 5))
    assert len(set(odd.features)) == 3 and all("\n" not in name for name in odd.features)


def test_levels_of_files_that_hold_other_kinds():
    code = CategoryCode.of(text(["1.0", "2", "b"] * 5))
    x, new = code.encode(Column("a", "number", np.array([1.0, 2.0, 3.0, np.nan])))
    assert x.argmax(1).tolist()[:2] == [0, 1] and new.tolist() == [False, False, True, True]
    words = CategoryCode.of(text(["True", None] * 5))
    x, new = words.encode(Column("a", "boolean", np.array([1.0, 0.0, np.nan])))
    assert x.tolist() == [[1, 0], [0, 0], [0, 1]] and new.tolist() == [False, True, False]
    days = CategoryCode.of(text(["2020-01-01", "x"] * 5))
    dates = np.array(["2020-01-01", "NaT"], dtype="datetime64[us]")
    assert days.encode(Column("a", "date", dates))[1].tolist() == [False, True]


@pytest.mark.parametrize("seed", range(4))
def test_dates_are_days_and_places_on_circles(seed):
    rng = np.random.default_rng(seed)
    first = datetime(1950 + 25 * seed, 3, 5, 6, 7)
    dates = [first + timedelta(seconds=int(s)) for s in rng.integers(-(10**9), 10**9, 50)]
    column = Column("t", "date", np.array([*dates, "NaT"], dtype="datetime64[us]"))
    code = DateCode("t", np.datetime64(first, "us"), "", ("month", "hour", "weekday"))
    x, _ = code.encode(column)
    assert x.shape[1] == len(code.features) == 7 and np.isnan(x[-1]).all()
    for row, date in zip(x[:-1], dates, strict=True):
        clock = (date.hour + (date.minute + date.second / 60) / 60) / 24
        turns = [(date.month - 1) / 12, clock, date.weekday() / 7]
        circles = [f(2 * math.pi * turn) for turn in turns for f in (math.sin, math.cos)]
        np.testing.assert_allclose(row, [(date - first).total_seconds() / 86400, *circles],
                                   rtol=1e-12, atol=1e-9)  # fmt: skip
        told = code.told(row[0])
        assert told.startswith(f"{date:%Y-%m-%d}"[:7]) or abs(row[0] - round(row[0])) < 1e-6


def test_dates_in_text_have_the_layout_of_the_training_rows():
    code = DateCode("t", np.datetime64("2020-01-01", "us"), "month/day/year")
    x, _ = code.encode(text(["1/3/2020", None], "t"))
    assert x[0, 0] == 2.0 and np.isnan(x[1, 0])
    with pytest.raises(ValueError, match="no dates such as month/day/year in 1 of 1 rows, .*13/1"):
        code.encode(text(["13/1/2020"], "t"))
    with pytest.raises(ValueError, match="no dates in 2 of 3 rows"):
        code.encode(Column("t", "number", np.array([1.0, np.nan, 2.0])))
    assert code.told(1e300).startswith("9999")


def test_booleans_of_any_file():
    code = BooleanCode("a")
    for column in (
        text(["yes", "No", None]),
        Column("a", "boolean", np.array([1.0, 0.0, np.nan])),
        Column("a", "number", np.array([1.0, 0.0, np.nan])),
    ):
        np.testing.assert_array_equal(code.encode(column)[0].ravel(), [1.0, 0.0, np.nan])
    for column in (text(["maybe"]), Column("a", "number", np.array([2.0]))):
        with pytest.raises(ValueError, match="neither true nor false in 1 of 1 rows"):
            code.encode(column)


def test_numbers_take_numbers_alone():
    x, _ = NumberCode("a").encode(Column("a", "number", np.array([1.0, np.inf])))
    assert x[0, 0] == 1.0 and np.isnan(x[1, 0])
    with pytest.raises(ValueError, match="holds text, but numbers were fitted"):
        NumberCode("a").encode(text(["x"]))


def test_every_time_of_day_is_shown_as_it_is_in_the_file():
    """Days are rounded doubles, and cutting instead of rounding showed 00:48:59 for 00:49."""
    first = np.datetime64("2024-01-01", "us")
    code = DateCode("when", first)
    dates = first + np.arange(0, 10_000) * np.timedelta64(49, "m")
    days = code.encode(Column("when", "date", dates))[0][:, 0]
    assert [code.told(day) for day in days] == [date_text(date) for date in dates]
