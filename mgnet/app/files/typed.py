"""Files whose cells have types (Parquet and Excel), after they have been read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np

from mgnet.app.files.cells import is_missing, is_number_like
from mgnet.app.files.columns import Column, DataFile, listed, shown
from mgnet.app.files.records import csv_line, more_cells

__all__ = ["TypedFile", "cell_text", "column_of", "text_column"]


@dataclass(frozen=True, eq=False)
class TypedFile(DataFile):
    """Columns that were read, and the original cells of the file.

    Parameters
    ----------
    source : str
        Name of the file in messages.
    names : tuple of str
        Names of all columns.
    columns : dict of str to Column
        Columns by name.
    others : dict of str to str
        Contents of columns of other kinds, for messages.
    rows : callable
        Function that returns the rows as sequences of Python objects, for `with_columns`.
    labels : sequence of int
        Number of each row in the file.

    Examples
    --------
    >>> column = Column("a", "number", np.array([1.0, 2.5]))
    >>> file = TypedFile("x", ("a",), {"a": column}, {}, lambda: iter([(1,), (2.5,)]), range(1, 3))
    >>> list(file.with_columns({"c": np.array([5.0, 6.0])}))
    ['a,c', '1,5', '2.5,6']
    """

    source: str
    names: tuple[str, ...]
    columns: dict[str, Column] = field(repr=False)
    others: dict[str, str] = field(repr=False)
    rows: Callable[[], Iterator[Sequence[object]]] = field(repr=False)
    labels: Sequence[int] = field(repr=False)

    def column(self, name: str) -> Column:
        if name in self.others:
            raise ValueError(
                f"{self.source}: column '{shown(name)}' holds {self.others[name]}; expected "
                "numbers, text, booleans or dates, convert it or choose other columns"
            )
        return self.columns[name]

    def numbers(self, wanted: Sequence[str]) -> np.ndarray:
        bad = [
            f"'{shown(name)}' holds {self.others.get(name) or self.columns[name].kind + 's'}"
            for name in wanted
            if name in self.others or self.columns[name].kind not in ("number", "boolean")
        ]
        if bad:
            raise ValueError(
                f"{self.source}: column{'s' * (len(bad) > 1)} {listed(bad)}, not numbers; "
                "convert, or choose other columns"
            )
        return np.array([self.columns[name].values for name in wanted], dtype=float).T.copy()

    def row_label(self, row: int) -> str:
        return f"row {self.labels[row]}"

    def with_columns(self, more: Mapping[str, np.ndarray]) -> Iterator[str]:
        yield csv_line([*self.names, *more], ",")
        units = [self.columns[n].units if n in self.columns else None for n in self.names]
        if any(units):
            yield csv_line([*(unit or "" for unit in units), *[""] * len(more)], ",")
        for row, cells in zip(self.rows(), more_cells(more), strict=True):
            yield csv_line([*map(cell_text, row), *cells], ",")


def cell_text(value: object) -> str:
    """A cell as text; a number has exactly the digits that determine it.

    Examples
    --------
    >>> [cell_text(value) for value in (None, 2.0, 0.1, True, 2**60)]
    ['', '2', '0.1', '1', '1152921504606846976']
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def text_column(name: str, values: Sequence[object], units: str | None = None) -> Column:
    """A column of text, with None for missing cells.

    Examples
    --------
    >>> text_column("a", ["x", "NA", None]).values
    array(['x', None, None], dtype=object)
    """
    text = [cell_text(value).strip() for value in values]
    found = np.empty(len(text), dtype=object)
    found[:] = [None if is_missing(cell) else cell for cell in text]
    return Column(name, "text", found, units)


def column_of(name: str, values: Sequence[object], units: str | None = None) -> Column | str:
    """A column of Python objects, or a description of its content if it is not a column.

    Parameters
    ----------
    name : str
        Name of the column.
    values : sequence of object
        Cells.
    units : str, optional
        Unit of the column.

    Examples
    --------
    >>> column_of("a", [1, None, 2.5]).values, column_of("a", [1, "2,5"])
    (array([1. , nan, 2.5]), 'numbers that are stored as text')
    """
    kept = [None if isinstance(value, str) and is_missing(value) else value for value in values]
    kinds = {_kind(value) for value in kept if value is not None}
    if kinds <= {"number"}:
        return Column(name, "number", _floats(kept), units)
    if kinds == {"boolean"}:
        return Column(name, "boolean", _floats(kept), units)
    if kinds == {"date"}:
        dates = ["NaT" if value is None else value for value in kept]
        return Column(name, "date", np.array(dates, dtype="datetime64[us]"), units)
    if kinds <= {"number", "text"} and all(
        is_number_like(value) for value in kept if isinstance(value, str)
    ):
        return "numbers that are stored as text"
    return text_column(name, kept, units)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "date" if isinstance(value, datetime | date) else "text"


def _floats(values: Sequence[object]) -> np.ndarray:
    return np.array([np.nan if value is None else _float(value) for value in values], dtype=float)


def _float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:  # for integers
        return np.inf if value > 0 else -np.inf  # type: ignore[operator]
