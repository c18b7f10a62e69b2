"""Law: rows above the values are told apart by what stands in them, or not at all."""

import pytest

from mgnet.app.files.layout import find_layout, numeric_columns

NAMES, UNITS, VALUES = ["T", "p"], ["K", "bar"], [["1", "2"], ["3,5", "NA"]]
LINE = ["TOA5", "station", "x", "y", "z"]


@pytest.mark.parametrize(
    ("head", "header", "first", "units"),
    [
        ([NAMES], 0, 1, ()),
        ([NAMES, UNITS], 0, 2, ("K", "bar")),
        ([NAMES, ["(K)", "-"]], 0, 2, ("K", None)),
        ([LINE, NAMES], 1, 2, ()),
        ([LINE[:2], NAMES, UNITS], 1, 3, ("K", "bar")),
        ([LINE, NAMES, UNITS, ["Smp", ""]], 1, 4, ("K", "bar")),
        ([["Station", "B", "C"], NAMES, UNITS], 1, 3, ("K", "bar")),
        ([["A title"], [""], NAMES], 2, 3, ()),
        ([NAMES, ["Smp", "Avg"]], 0, 2, ()),
    ],
)
def test_head_rows(head, header, first, units):
    found = find_layout([*head, *VALUES])
    assert (found.names, found.header, found.first) == (("T", "p"), header, first)
    assert found.units == units


@pytest.mark.parametrize(
    "rows",
    [
        [["T", "p", "q"], NAMES, *VALUES],  # no title, no logger, no units
        [["T"], ["1", "p"], *VALUES],
        [["T"], ["p", "p"], *VALUES],
        [NAMES, ["1"], *VALUES],
        [NAMES, *VALUES, ["1"]],
    ],
)
def test_rows_that_do_not_fit(rows):
    assert find_layout(rows) is None


@pytest.mark.parametrize(
    ("comment", "header"), [(NAMES, -1), (["T"], 0), (["1", "p"], 0), (["", "p"], 0), ((), 0)]
)
def test_a_comment_has_names_only_if_it_fits_the_values(comment, header):
    assert find_layout(VALUES, comment).header == header
    assert find_layout([["a", "b"], *VALUES], comment).header == 0


def test_columns_of_numbers_in_whatever_dialect():
    rows = [["1", "1,5", "x", "", "NA"], ["2", "1.234,5", "1", "", "5"], ["short"]]
    assert numeric_columns(rows, 5) == (True, True, False, False, True)


@pytest.mark.parametrize(
    ("second", "body", "first"),
    [
        (["K", "bar", "1"], ["280", "4", "0.5"], 2),  # the unit of a ratio
        (["K", "", " 1 "], ["280", "4", "0.5"], 1),  # as many ones as units
        (["K", "bar", "2"], ["280", "4", "0.5"], 1),
        (["K", "1", "1"], ["280", "4", "0.5"], 1),
        (["Bern", "hydro", "1"], ["Zug", "wind", "4"], 1),  # values: texts stand below, too
        (["Bern", "NA", "1"], ["Zug", "3", "4"], 1),
    ],
)
def test_a_one_among_units_is_a_unit(second, body, first):
    found = find_layout([["a", "b", "c"], second, body, body])
    assert found.first == first
    assert found.units == (("K", "bar", "1") if first == 2 else ())
