"""Named columns of equal length from any file, and the way names are shown in messages."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mgnet.app.files.cells import is_number_like

__all__ = ["Column", "DataFile", "NoNumbers", "check_names", "listed", "refuse_too_many", "shown"]

MOST_COLUMNS = 500_000  # the smallest network with more inputs would exceed the limit on parameters
LONGEST_NAME = 1000
NAMED = 8  # names in one sentence
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a file, without interpretation.

    Attributes
    ----------
    name : str
        Name of the column.
    kind : "number", "text", "boolean" or "date"
        Kind of the values.
    values : array of shape (rows,)
        Numbers and booleans as float64, NaN where missing; text as objects, None where missing;
        dates as datetime64[us], NaT where missing.
    units : str or None
        Unit that a row below the names gives.

    Examples
    --------
    >>> Column("T", "number", np.array([285.0, np.nan]), "K")
    Column(name='T', kind='number', units='K')
    """

    name: str
    kind: str
    values: np.ndarray = field(repr=False)
    units: str | None = None


class DataFile(ABC):
    """Named columns of equal length.

    Attributes
    ----------
    source : str
        The file, for messages.
    names : tuple of str
        Names of the columns; not empty, all different.
    """

    source: str
    names: tuple[str, ...]

    @abstractmethod
    def column(self, name: str) -> Column:
        """A column as it is in the file, whatever it holds.

        Raises
        ------
        ValueError
            If rows differ in length, or the column holds values of another kind.
        """

    @abstractmethod
    def numbers(self, wanted: Sequence[str]) -> np.ndarray:
        """Columns as a new float64 array of shape (rows, wanted), NaN where a cell is empty or NaN.

        Raises
        ------
        ValueError
            If a cell of these columns is not a number, or if rows differ in length.
        """

    @abstractmethod
    def row_label(self, row: int) -> str:
        """The position of a row in the file, in words."""

    @abstractmethod
    def with_columns(self, more: Mapping[str, np.ndarray]) -> Iterator[str]:
        """Yield the file as CSV lines with additional columns: numbers, empty if NaN, or text."""


@dataclass
class NoNumbers:
    """Counts of the cells that should be numbers but are not.

    Attributes
    ----------
    places : dict of int to (str, str, str, int)
        For each column: its name, the position and content of the first such cell, and the number
        of such cells.
    commas : bool
        Whether one of these cells is a number with another decimal mark, or with grouped digits.

    Examples
    --------
    >>> bad = NoNumbers()
    >>> bad.add("line 3", 0, "T", "x")
    >>> bad.sentence("a.csv", 9)
    "a.csv: 1 of 9 cells are not numbers, the first is 'x' in line 3, column 'T'; correct them, \
or choose other columns"
    """

    places: dict[int, tuple[str, str, str, int]] = field(default_factory=dict)
    commas: bool = False

    def __bool__(self) -> bool:
        return bool(self.places)

    def add(self, where: str, place: int, name: str, cell: str) -> None:
        """Count a cell."""
        name, first, said, count = self.places.get(place, (name, where, cell, 0))
        self.places[place] = name, first, said, count + 1
        self.commas |= is_number_like(cell)

    def sentence(self, source: str, cells: int, told: bool = False) -> str:
        """The error message, with a remedy.

        Parameters
        ----------
        source : str
            Name of the file.
        cells : int
            Total number of cells in the requested columns.
        told : bool
            Whether the user gave the decimal mark.
        """
        bad = sum(count for *_, count in self.places.values())
        name, where, said, _ = next(iter(self.places.values()))
        text = (
            f"{source}: {bad} of {cells} cells are not numbers, the first is '{shown(said, 30)}' "
            f"in {where}, column '{shown(name)}'"
        )
        others = [name for name, *_ in self.places.values()][1:]
        if others:
            text += f"; there are more in {listed(others)}"
        if self.commas and not told:
            text += (
                "; points and commas may be decimal marks or group digits: --decimal . or "
                "--decimal , sets the decimal mark"
            )
        return f"{text}; correct them, or choose other columns"


def shown(text: str, most: int = 40) -> str:
    r"""A text from a file, for use in a message: on one line, printable, and not long.

    Parameters
    ----------
    text : str
        Text to show.
    most : int
        Largest number of characters of the text.
        Characters of the text.

    Examples
    --------
    >>> shown("two\nlines"), shown("x" * 1000, 5)
    ('two\\nlines', 'xxxxx...')
    """
    cut = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])
    return cut + "..." * (len(text) > most)


def listed(names: Sequence[str], most: int = NAMED) -> str:
    """The first names, and how many more there are.

    Parameters
    ----------
    names : sequence of str
        Names to list.
    most : int
        Largest number of names.

    Examples
    --------
    >>> listed("abc"), listed("abcdef", 2)
    ('a, b, c', 'a, b and 4 more')
    """
    text = ", ".join(map(shown, names[:most]))
    return f"{text} and {len(names) - most} more" if len(names) > most else text


def refuse_too_many(source: str, columns: int) -> None:
    """Refuse more columns than any network can handle.

    Parameters
    ----------
    source : str
        Name of the file.
    columns : int
        Number of columns.

    Raises
    ------
    ValueError
        If there are too many columns.

    Examples
    --------
    >>> refuse_too_many("x.csv", 3)
    """
    if columns > MOST_COLUMNS:
        raise ValueError(
            f"{source} has {columns} columns; at most {MOST_COLUMNS} are read, write fewer"
        )


def check_names(source: str, names: Sequence[str]) -> None:
    """Refuse columns with the same name, and names that are unreadable or too long.

    Parameters
    ----------
    source : str
        Name of the file.
    names : sequence of str
        Names to check.

    Raises
    ------
    ValueError
        If a name is not allowed.

    Examples
    --------
    >>> check_names("x.csv", ("a", "b"))
    """
    for number, name in enumerate(names, 1):
        if len(name) > LONGEST_NAME:
            raise ValueError(
                f"{source}: the name of column {number}, '{shown(name)}', has {len(name)} "
                f"characters; at most {LONGEST_NAME} are allowed, is a quote or a line end missing?"
            )
        if CONTROL.search(name):
            raise ValueError(
                f"{source}: the name of column {number}, '{shown(name)}', has a control character; "
                "rename it"
            )
    if len(set(names)) < len(names):
        twins = {name: count for name, count in Counter(names).items() if count > 1}
        first = min(twins)
        raise ValueError(
            f"{source} has {twins[first]} columns called '{shown(first)}'; names must differ, "
            "rename one"
        )
