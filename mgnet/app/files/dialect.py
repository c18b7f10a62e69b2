"""The dialect of a text: the separator of its cells, and the lines with names, units and values."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from mgnet.app.files.cells import is_missing, number
from mgnet.app.files.columns import check_names, refuse_too_many, shown
from mgnet.app.files.layout import Layout, find_layout, numeric_columns
from mgnet.app.files.records import BLANKS, Record, records, split_cells

__all__ = ["Dialect", "find_dialect"]

SEPARATORS = ",;\t"
SAMPLE = 100  # lines that are examined
NOTE = re.compile(r'"?sep=([^\w\s"]|\t| )"?\s*', re.IGNORECASE)
WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", BLANKS: "blanks"}


@dataclass(frozen=True)
class Dialect:
    """The format of a text.

    Parameters
    ----------
    separator : str
        A character, or " " for runs of blanks and tabs.
    names : tuple of str
        Names of the columns.
    units : tuple of (str or None)
        Units of the columns; empty if no row has units.
    header : int
        Number of the line with names.
    below : tuple of int
        Numbers of the lines between the names and the first row: units, and lines that loggers add.
    first : int
        Number of a line after the names and units, at or above the first row.
    comments : bool
        Whether there are comments (#) above the first row.
    numeric : tuple of bool
        For each column, whether it contains only numbers in the first rows.

    Examples
    --------
    >>> Dialect(";", ("T", "p")).width
    2
    """

    separator: str
    names: tuple[str, ...]
    units: tuple[str | None, ...] = ()
    header: int = 1
    below: tuple[int, ...] = ()
    first: int = 2
    comments: bool = False
    numeric: tuple[bool, ...] = field(default=(), repr=False)

    @property
    def width(self) -> int:
        """Number of cells in a row."""
        return len(self.names)


@dataclass(frozen=True)
class _Reading:
    """The first lines of a text, read with one separator."""

    separator: str
    rows: list[Record]
    layout: Layout

    @property
    def doubts(self) -> tuple[int, bool, bool]:
        """Reasons to doubt: names that are numbers, blanks as separators, lines above the names."""
        names = sum(number(name) is not None for name in self.layout.names)
        return names, self.separator == BLANKS, self.layout.header > 0


def find_dialect(source: str, lines: Iterable[str]) -> Dialect:
    r"""Find the dialect of a text.

    Parameters
    ----------
    source : str
        Name of the file in messages.
    lines : iterable of str
        Lines that end in a newline; only the first ones are read.

    Raises
    ------
    ValueError
        If no line has names, or two names are the same, or cells might be separated in two ways.

    Examples
    --------
    >>> found = find_dialect("x.csv", ["sep=;\n", "T;p\n", "K;bar\n", "1,5;2\n"])
    >>> found.names, found.units, found.first
    (('T', 'p'), ('K', 'bar'), 4)
    """
    told, comments, above, body = _top(list(islice(lines, SAMPLE)))
    if not body:
        what = "has comments only" if comments else "is empty"
        raise ValueError(f"{source} {what}; expected a line of column names, then rows")
    start = body[0]
    for mark in SEPARATORS:
        refuse_too_many(source, start.count(mark) + 1)
    comment = comments[-1][1].lstrip(" \t") if comments else ""
    found = []
    for separator in [told] if told else [*SEPARATORS, BLANKS]:
        if told or separator == BLANKS or any(separator in line for line in body):
            reading = _read(source, separator, body, above, comment)
            if reading is not None:
                found.append(reading)
    best = _choose(source, found) or _first_line_has_names(source, body, above, told)
    return _checked(source, best, comments, body, above)


def _top(lines: Sequence[str]) -> tuple[str, list[tuple[int, str]], int, list[str]]:
    """The separator from a "sep=" line, comments, the number of lines above the rest, the rest."""
    told, comments = "", []
    for place, line in enumerate(lines):
        if line.isspace():
            continue
        if not told and not comments and (note := NOTE.fullmatch(line)):
            told = note[1]
        elif line.lstrip(" \t").startswith("#"):
            comments.append((place + 1, line))
        else:
            return told, comments, place, list(lines[place:])
    return told, comments, len(lines), []


def _read(
    source: str, separator: str, body: Sequence[str], above: int, comment: str
) -> _Reading | None:
    rows, are_all = _rows(source, separator, body, above)
    if not rows or not are_all:
        return None
    table = [row.cells or [] for row in rows]
    layout = find_layout(table)
    for said in (comment.lstrip("# \t"), comment):
        if said is comment and separator in BLANKS + "\t":
            continue  # the mark is a name only if no blank separates it from the names
        if said and (layout is None or layout.header >= 0):
            with contextlib.suppress(csv.Error):
                layout = find_layout(table, split_cells(said, separator))
    if layout is None or len(layout.names) < 2:
        return None
    if separator == BLANKS and (layout.header > 0 or _have_marks(rows)):
        return None  # otherwise there are lines of prose above words
    return _Reading(separator, rows, layout)


def _have_marks(rows: Sequence[Record]) -> bool:
    """Whether a row uses commas, semicolons or tabs, so that blanks are not the separators."""
    for row in rows[:5]:
        words, cells = row.cells or [], row.text.split("\t")
        if any(word[-1:] in {",", ";"} for word in words):
            return True
        if len(cells) == len(words) > 1 and all(map(str.strip, cells)):
            return True
    return False


def _rows(
    source: str, separator: str, body: Sequence[str], above: int
) -> tuple[list[Record], bool]:
    """The rows of a sample, and whether all could be read (its end may cut off the last one)."""

    def is_comment(text: str, line: int) -> bool:
        return not is_missing(text.strip(" \t\n").partition(separator)[0])  # as #N/A

    rows: list[Record] = []
    lines = iter(body)
    try:
        for row in records(source, lines, separator, above + 1, is_comment):
            if row.cells is not None:
                rows.append(row)
    except ValueError:
        return rows, next(lines, None) is None
    return rows, True


def _choose(source: str, found: Sequence[_Reading]) -> _Reading | None:
    """The reading with the fewest doubts, or None; raise an error if several have the fewest."""
    fewest = min((reading.doubts for reading in found), default=None)
    best = [reading for reading in found if reading.doubts == fewest]
    if len(best) > 1:
        ways = " or ".join(WORDS.get(reading.separator, "marks") for reading in best)
        raise ValueError(
            f"{source}: cells may be separated by {ways}, rows fit both; write 'sep=' and the one "
            "that is meant as the first line"
        )
    return best[0] if best else None


def _first_line_has_names(source: str, body: Sequence[str], above: int, told: str) -> _Reading:
    """A reading with names in the first line; its rows do not fit, so reading them will fail."""
    plain = re.sub('"[^"]*"', "", body[0])
    separator = told or max(SEPARATORS, key=plain.count)
    try:
        cells = next(iter(records(source, body, separator, above + 1))).cells or []
    except ValueError as error:
        reason = str(error).partition("cannot be read ")[2]
        raise ValueError(
            f"{source}: the column names in line {above + 1} cannot be read {reason}"
        ) from None
    rows, _ = _rows(source, separator, body, above)
    return _Reading(separator, rows, Layout(tuple(name.strip() for name in cells)))


def _checked(
    source: str,
    best: _Reading,
    comments: Sequence[tuple[int, str]],
    body: Sequence[str],
    above: int,
) -> Dialect:
    layout, rows = best.layout, best.rows
    line = comments[-1][0] if layout.header < 0 else rows[layout.header].line
    names = layout.names
    refuse_too_many(source, len(names))
    if all(number(name) is not None for name in names):
        raise ValueError(
            f"{source} has no header: line {line} is '{shown(body[0].strip())}'; write the names "
            "of the columns there"
        )
    if "" in names[1:]:  # the first may be an index
        raise ValueError(
            f"{source}: column {names.index('', 1) + 1} has no name in line {line}; name it, or "
            "write the file without it if it only numbers the rows"
        )
    check_names(source, names)
    below = tuple(row.line for row in rows[layout.header + 1 : layout.first])
    last = line if layout.header < 0 else rows[layout.first - 1].line
    cells = [row.cells or [] for row in rows[layout.first :]]
    return Dialect(
        best.separator,
        names,
        layout.units,
        line,
        below,
        last + 1,
        bool(comments),
        numeric_columns(cells, len(names)),
    )
