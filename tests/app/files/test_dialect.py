"""Law: the separator is the one by which the first rows fit one another; or it is asked for."""

import io

import pytest

from mgnet.app.files.dialect import Dialect, find_dialect


def dialect(text):
    return find_dialect("x", io.StringIO(text))


@pytest.mark.parametrize(
    ("text", "separator", "names"),
    [
        ("a,b\n1,2\n", ",", ("a", "b")),
        ("a, K;b, m\n1;2\n", ";", ("a, K", "b, m")),  # more commas than semicolons
        ("a\tb c\n1\t2\n", "\t", ("a", "b c")),
        (" a   b\n 1  22\n", " ", ("a", "b")),
        ("a b\n1,5 2,5\n", " ", ("a", "b")),
        ("a b\n1\n2\n", ",", ("a b",)),  # one column
        ("note\nx y\n", ",", ("note",)),
        ("a;note\n1;so, so\n2;no\n", ";", ("a", "note")),
        ("# a;b\n1,5;2,5\n1,5;3,5\n", ";", ("a", "b")),
        ("# a b\n1,5 2,5\n", " ", ("a", "b")),
        ('"a;x",b\n1,2\n', ",", ("a;x", "b")),
        ("a;b\n", ";", ("a", "b")),
        ("place, 2019, 2020\nA, 1, 2\n", ",", ("place", "2019", "2020")),
    ],
)
def test_separators(text, separator, names):
    found = dialect(text)
    assert (found.separator, found.names) == (separator, names)


def test_words_do_not_take_the_place_of_cells_between_tabs():
    found = dialect("Tp [MPa]\trho\n" + "1\t2\t3\n" * 5)  # a tab was lost: two names, three words
    assert (found.separator, found.names) == ("\t", ("Tp [MPa]", "rho"))  # and no row has two cells


def test_lines_are_counted_as_in_the_file():
    found = dialect("\n# by hand\n\nsep,T\n-,K\n\ny,1\nz,2\n")
    assert (found.header, found.below, found.first, found.comments) == (4, (5,), 6, True)
    assert found.units == (None, "K") and found.numeric == (False, True)
    assert found.width == 2


@pytest.mark.parametrize("text", ["a;b,c\n1;2,5\n", "a,b;c\n1,5;2\n"])
def test_two_ways_are_asked_about(text):
    with pytest.raises(ValueError, match="cells may be separated by"):
        dialect(text)
    for mark in ",;\t":
        if mark in text:
            assert dialect(f"sep={mark}\n{text}").separator == mark


def test_only_the_first_lines_are_read():
    def lines():
        yield "a,b\n"
        for _ in range(10**4):
            yield "1,2\n"
        raise AssertionError("a sample is enough")

    taken = lines()
    assert find_dialect("x", taken) == Dialect(",", ("a", "b"), numeric=(True, True))
