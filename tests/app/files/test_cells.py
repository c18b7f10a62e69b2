"""Law: a cell is the number that Python reads in it, or nothing, or no number."""

import math

import numpy as np
import pytest

from mgnet.app.files.cells import MISSING, Marks, evidence, is_missing, is_number_like, number


@pytest.mark.parametrize("seed", range(3))
def test_numbers_in_both_dialects_are_what_python_reads(seed):
    rng = np.random.default_rng(seed)
    for value in rng.normal(size=200) * 10.0 ** rng.integers(-12, 12, 200):
        for form in ("{:.6g}", "{:.3f}", "{:.17g}", "{:.2e}", " {:+.1f} "):
            text = form.format(value)
            assert number(text) == float(text)
            assert number(text.replace(".", ","), Marks(",")) == float(text)
            assert number(text.replace(".", ","), Marks(",", grouped=True)) == float(text)


@pytest.mark.parametrize("seed", range(3))
def test_grouped_digits_are_numbers_only_where_that_is_told(seed):
    rng = np.random.default_rng(seed)
    for value in rng.integers(1000, 10**9, 100) + rng.integers(0, 4, 100) / 4:
        text = f"{value:,.2f}"
        swapped = text.translate(str.maketrans(",.", ".,"))
        assert number(text, Marks(".", grouped=True)) == value
        assert number(swapped, Marks(",", grouped=True)) == value
        for marks in (Marks("."), Marks(","), Marks("")):
            assert number(text, marks) is None and number(swapped, marks) is None
        assert (evidence(text), evidence(swapped)) == ("point", "comma")


@pytest.mark.parametrize("text", ["12,34", "1,23,456", "0,123", "1,2345", ",123", "1234,567"])
def test_what_is_no_group_of_three_is_not_joined(text):
    assert number(text, Marks(".", grouped=True)) is None
    assert number(text.replace(",", "."), Marks(",", grouped=True)) is None


@pytest.mark.parametrize("text", ["1,234", "-12,345", "999,000", "1,234e5"])
def test_what_may_be_either_is_neither_until_it_is_known(text):
    assert evidence(text) == "comma?" and evidence(text.replace(",", ".")) == "point?"
    assert number(text, Marks("")) is None and number(text.replace(",", "."), Marks("")) is None
    assert number(text, Marks(",")) == float(text.replace(",", "."))


@pytest.mark.parametrize("word", sorted(MISSING))
def test_missing(word):
    for text in (word, f" {word.upper()}\t"):
        assert is_missing(text) and math.isnan(number(text)) and is_number_like(text)


@pytest.mark.parametrize("text", ["-999", "0", "x", "1_000", "0x1A", "1 000", "--1", "1,5,2", "#5"])
def test_what_is_not_missing(text):
    assert not is_missing(text)
    assert number(text) is None or number(text) == float(text)
    assert is_number_like(text) == (text in ("-999", "0"))


def test_every_spelling_that_pandas_knows_is_known():
    known = "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None"
    for word in f"{known}|n/a|nan|null".split("|"):
        assert is_missing(word)
