"""Law: sentences about names are short and on one line, however many and long these are."""

import pytest

from mgnet.app.files.columns import check_names, listed, refuse_too_many, shown


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[31mred", "\u2028", "n" * 10**6, "\udcff", "\0" * 99]
)
def test_whatever_is_shown_is_short_and_printable(text):
    assert shown(text).isprintable()
    assert len(shown(text)) < 500
    assert shown("T [\xb0C] \u0394x") == "T [\xb0C] \u0394x"


def test_many_names_are_counted():
    assert listed([f"c{k}" for k in range(20_000)]).endswith("c6, c7 and 19992 more")
    assert listed([f"c{k}" for k in range(8)]).endswith("c6, c7")


def test_the_first_of_all_twins_is_named_and_counted():
    names = [f"c{k}" for k in range(100_000)]
    check_names("x", names)
    with pytest.raises(ValueError, match="x has 3 columns called 'c5'"):
        check_names("x", [*names, "c7", "c5", "c5"])


@pytest.mark.parametrize("name", ["a\tb", "\x7f", "\x85", "a\u2029", "n" * 1001])
def test_names_that_nobody_can_type(name):
    with pytest.raises(ValueError, match="the name of column 2"):
        check_names("x", ["good", name])


def test_more_columns_than_a_network_takes():
    refuse_too_many("x", 500_000)
    with pytest.raises(ValueError, match="x has 500001 columns"):
        refuse_too_many("x", 500_001)
