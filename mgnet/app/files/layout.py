"""The roles of the first rows of a table: lines of a data logger, names, units and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mgnet.app.files.cells import is_missing, is_number_like

__all__ = ["Layout", "find_layout", "numeric_columns"]

Row = Sequence[str]
LOGGERS = {"toa5", "toaci1", "tob1"}  # how Campbell's loggers begin the line that describes them
# Loggers write below the units how a value was computed from samples.
PROCESSING = {"smp", "avg", "max", "min", "tot", "std", "stddev", "med", "cov", "wvc", "tmx", "tmn"}
STAMPS = {"ts", "rn"}  # "units" of time stamps and record numbers
MOST_HEAD = 20  # rows above the names
BRACKETS = {"[": "]", "(": ")"}


@dataclass(frozen=True)
class Layout:
    """The roles of the first rows.

    Parameters
    ----------
    names : tuple of str
        Names of the columns.
    units : tuple of (str or None)
        Units of the columns; empty if no row has units.
    header : int
        Number of the row with names; -1 if a comment above all rows contains them.
    first : int
        Number of the first row with values.

    Examples
    --------
    >>> find_layout([["T", "p"], ["K", "bar"], ["1", "2"]])
    Layout(names=('T', 'p'), units=('K', 'bar'), header=0, first=2)
    """

    names: tuple[str, ...]
    units: tuple[str | None, ...] = ()
    header: int = 0
    first: int = 1


def find_layout(rows: Sequence[Row], comment: Row = ()) -> Layout | None:
    """The layout of rows; None if they do not fit together.

    Parameters
    ----------
    rows : sequence of sequence of str
        The first rows of a table; at least one.
    comment : sequence of str
        Cells of the last comment line above the rows, without its comment mark.

    Examples
    --------
    >>> find_layout([["1", "2"]], ["T", "p"]).names, find_layout([["T", "p"], ["1"]])
    (('T', 'p'), None)
    """
    marked = [row[0].strip().lower() in LOGGERS for row in rows[:MOST_HEAD]]
    logger = 1 + max((k for k, is_marked in enumerate(marked) if is_marked), default=-1)
    start = _first_even(rows[logger:]) + logger
    if len(comment) == len(rows[0]) and start == 0 and any(map(_is_value, rows[0])):
        if not any(map(_is_value, comment)) and all(name.strip() for name in comment):
            return Layout(tuple(name.strip() for name in comment), header=-1, first=0)
    if start == 0:
        return _below(rows, 0)
    names = [name.strip() for name in rows[start]]
    if start > MOST_HEAD or start + 1 >= len(rows) or len(set(names)) < len(names):
        return None
    if any(is_number_like(name) for name in names):
        return None
    found = _below(rows, start)
    titles = len(names) > 1 and all(len(row) == 1 for row in rows[:start])
    return found if logger or titles or found.first > start + 1 else None


def _first_even(rows: Sequence[Row]) -> int:
    """The first row that has the same number of cells as all rows after it."""
    start = len(rows) - 1
    while start > 0 and len(rows[start - 1]) == len(rows[-1]):
        start -= 1
    return start


def _below(rows: Sequence[Row], header: int) -> Layout:
    """The layout whose names are in this row; searches for rows of units below it."""
    names = tuple(name.strip() for name in rows[header])
    body = rows[header + 1 :]
    # A unit may be 1, for a ratio.
    start = int(len(body) > 1 and _among_units(body[0], body[1:]))
    more = next((k for k, row in enumerate(body[:3]) if k >= start and any(map(_is_value, row))), 0)
    plain = Layout(names, header=header, first=header + 1)
    if more == 0 or any("\n" in cell for row in body[:more] for cell in row):
        return plain
    last, units = body[more - 1], body[0]
    processed = any(cell.strip().lower() in PROCESSING for cell in last) and all(
        cell.strip().lower() in PROCESSING or is_missing(cell) for cell in last
    )
    if more == 1 and processed:
        return Layout(names, (), header, header + 2)
    if (more == 2 and not processed) or not _are_units(units, body[more:], processed):
        return plain
    return Layout(names, tuple(map(_unit, units)), header, header + 1 + more)


def _among_units(row: Row, body: Sequence[Row]) -> bool:
    """Whether a row has numbers, all of them 1, but has more texts above numeric columns."""
    ones = [cell for cell in row if _is_value(cell)]
    texts = [
        cell
        for cell, is_numeric in zip(row, numeric_columns(body, len(row)), strict=True)
        if is_numeric and not is_number_like(cell) and not is_missing(cell)
    ]
    return bool(ones) and all(cell.strip() == "1" for cell in ones) and len(ones) < len(texts)


def _are_units(units: Row, body: Sequence[Row], sure: bool) -> bool:
    """Whether a row without numbers contains the units of the numeric columns below it."""
    numeric = numeric_columns(body, len(units))
    told = [cell for cell, is_numeric in zip(units, numeric, strict=True) if is_numeric]
    if all(map(is_missing, told)):  # a row of missing values
        return False
    others = [k for k, is_numeric in enumerate(numeric) if not is_numeric]
    if any(not is_missing(units[k]) and any(row[k] == units[k] for row in body) for k in others):
        return False  # a category or a label, so this is a row of values
    alone = len(told) == 1 and any(
        not is_missing(units[k]) and units[k].strip().lower() not in STAMPS for k in others
    )
    return sure or not alone or any(_unit(cell) != cell.strip() for cell in told)


def numeric_columns(rows: Sequence[Row], width: int) -> tuple[bool, ...]:
    """For each column, whether it holds a number in these rows, and otherwise only missing values.

    Parameters
    ----------
    rows : sequence of sequence of str
        Rows of cells.
    width : int
        Number of columns.

    Examples
    --------
    >>> numeric_columns([["1", "a", ""], ["NA", "2", ""]], 3)
    (True, False, False)
    """
    complete = [row for row in rows if len(row) == width]
    return tuple(
        all(is_number_like(row[k]) for row in complete)
        and any(_is_value(row[k]) for row in complete)
        for k in range(width)
    )


def _is_value(cell: str) -> bool:
    return is_number_like(cell) and not is_missing(cell)


def _unit(cell: str) -> str | None:
    cell = cell.strip()
    if is_missing(cell):
        return None
    inner = cell[1:-1].strip()
    return inner if inner and BRACKETS.get(cell[0]) == cell[-1] else cell
