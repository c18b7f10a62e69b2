"""Convert a column to numbers: unchanged, one column per level, or days since a date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgnet.app.columns.dates import LAYOUTS, date_text, read_dates
from mgnet.app.columns.meaning import read_booleans
from mgnet.app.files.columns import Column, shown

__all__ = ["CYCLES", "BooleanCode", "CategoryCode", "Code", "DateCode", "NumberCode"]

RARE = 5  # rows; a level with fewer training rows belongs to "other"
MOST_LEVELS = 50  # most frequent levels with a column of their own
MOST_RARE = 1000  # rare levels whose names are kept, so that they do not count as new
CYCLES = "hour", "weekday", "month"
MISSING, OTHER = "(missing)", "(other)"
DAY = np.timedelta64(1, "D")
EARLIEST, LATEST = np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31", "us")


@dataclass(frozen=True)
class NumberCode:
    """The code of a numeric column, which is not changed.

    Examples
    --------
    >>> NumberCode("T").features
    ('T',)
    """

    name: str

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs that the column becomes."""
        return (self.name,)

    def encode(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """Inputs of shape (rows, features), NaN if missing; and a mask of rows with a new level.

        Raises
        ------
        ValueError
            If the column holds values of another kind; the message does not name the column.
        """
        if column.kind not in ("number", "boolean"):
            raise ValueError(f"holds {column.kind}, but numbers were fitted")
        values = np.where(np.isinf(column.values), np.nan, column.values)
        return values[:, None], np.zeros(len(values), bool)

    def told(self, value: float) -> str:
        """A value of the first feature, as text."""
        return f"{value:g}"

    def described(self) -> dict[str, Any]:
        """Description for model.json."""
        return {"name": self.name, "kind": "number"}


@dataclass(frozen=True)
class BooleanCode:
    """The code of a boolean column: 1 for true and 0 for false.

    Examples
    --------
    >>> words = Column("sold", "text", np.array(["yes", "no", None], dtype=object))
    >>> BooleanCode("sold").encode(words)[0].ravel()
    array([ 1.,  0., nan])
    """

    name: str

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs that the column becomes."""
        return (self.name,)

    def encode(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """Encode the column like `NumberCode.encode`."""
        values = column.values
        if column.kind == "text":
            values = read_booleans(values)
            wrong = np.isnan(values) & _there(column)
        else:
            wrong = _there(column) & ~np.isin(values, (0.0, 1.0))
        _refuse(column, wrong, "neither true nor false")
        return np.asarray(values, dtype=float)[:, None], np.zeros(len(values), bool)

    def told(self, value: float) -> str:
        """A value of the feature, as text."""
        return f"{value:g}"

    def described(self) -> dict[str, Any]:
        """Description for model.json."""
        return {"name": self.name, "kind": "boolean"}


@dataclass(frozen=True)
class CategoryCode:
    """The code of a text column: an input for each level, which is 1 in rows with this level.

    Parameters
    ----------
    name : str
        Name of the column.
    levels : tuple of (str or None)
        Levels with a column of their own; None represents empty cells.
    rare : tuple of (str or None)
        Levels that share the column "other" with all new levels; if there are none, a new level has
        no column.

    Examples
    --------
    >>> texts = np.array(["a"] * 6 + ["b", "c"] + [None] * 5, dtype=object)
    >>> code = CategoryCode.of(Column("kind", "text", texts))
    >>> code.features
    ('kind=a', 'kind=(missing)', 'kind=(other)')
    >>> code.encode(Column("kind", "text", np.array(["b", "z"], dtype=object)))
    (array([[0., 0., 1.],
           [0., 0., 1.]]), array([False,  True]))
    """

    name: str
    levels: tuple[str | None, ...]
    rare: tuple[str | None, ...] = ()

    @classmethod
    def of(cls, column: Column) -> CategoryCode:
        """The code that fits these training rows."""
        counts = Counter(column.values.tolist())
        order = sorted(counts, key=lambda level: (level is None, level or ""))
        ranked = sorted(reversed(order), key=lambda level: -counts[level])
        kept = [level for level in ranked if counts[level] >= RARE]
        kept = set(kept[: MOST_LEVELS - (len(ranked) > MOST_LEVELS)])
        rare = [level for level in ranked if level not in kept][:MOST_RARE]
        return cls(column.name, tuple(filter(kept.__contains__, order)), tuple(rare))

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs that the column becomes, all different."""
        made: list[str] = []
        for level in self.levels:
            start = text = f"{self.name}={MISSING if level is None else shown(level)}"
            while text in made:  # levels that differ only beyond the shown part
                text = f"{start} ({made.count(text) + len(made)})"
            made.append(text)
        return (*made, *[f"{self.name}={OTHER}"] * bool(self.rare))

    def encode(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """Encode the column like `NumberCode.encode`; empty cells are a level, not missing."""
        places = {level: place for place, level in enumerate(self.levels)}
        places |= dict.fromkeys(self.rare, len(self.levels))
        texts = _texts(column, places)
        found = np.array([places.get(text, -1) for text in texts], dtype=int)
        new, width = found < 0, len(self.levels) + bool(self.rare)
        if self.rare:
            found[new] = len(self.levels)
        return np.eye(width + 1)[found][:, :width], new

    def told(self, value: float) -> str:
        """A value of a feature, as text."""
        return f"{value:g}"

    def described(self) -> dict[str, Any]:
        """Description for model.json."""
        return {
            "name": self.name,
            "kind": "text",
            "levels": list(self.levels),
            "rare": list(self.rare),
        }


def _texts(column: Column, known: dict[str | None, int]) -> list[str | None]:
    """The cells as text; numbers become the known level of equal value, however it is written."""
    if column.kind == "text":
        return column.values.tolist()
    if column.kind == "date":
        return [None if np.isnat(date) else date_text(date) for date in column.values]
    if column.kind == "boolean":
        words: dict[float, str | None] = {1.0: "True", 0.0: "False"}
        return [words.get(value) for value in column.values.tolist()]
    numbers: dict[float, str | None] = {}
    for level in known:
        try:
            numbers[float(level or "")] = level
        except ValueError:
            pass
    return [
        None if value != value else numbers.get(value, f"{value:.17g}")
        for value in column.values.tolist()
    ]


@dataclass(frozen=True)
class DateCode:
    """The code of a date column: days since the first date in training, and optional cycles.

    Parameters
    ----------
    name : str
        Name of the column.
    first : datetime64[us]
        First date of the training rows.
    layout : str
        Layout of the dates if the file stores them as text; empty if it stores dates.
    cycles : tuple of str
        Some of `CYCLES`; each becomes a sine and a cosine.

    Examples
    --------
    >>> dates = np.array(["2024-01-01", "2024-01-02T06:00"], dtype="datetime64[us]")
    >>> code = DateCode("when", dates[0], "", ("hour",))
    >>> code.features
    ('when [days]', 'when: sin hour', 'when: cos hour')
    >>> code.encode(Column("when", "date", dates))[0].round(3).tolist()
    [[0.0, 0.0, 1.0], [1.25, 1.0, 0.0]]
    """

    name: str
    first: np.datetime64
    layout: str = ""
    cycles: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs that the column becomes."""
        circles = (f"{self.name}: {part} {cycle}" for cycle in self.cycles
                   for part in ("sin", "cos"))  # fmt: skip
        return (f"{self.name} [days]", *circles)

    def encode(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """Encode the column like `NumberCode.encode`."""
        dates = column.values
        if column.kind == "text":
            layout = self.layout or "year-month-day"
            dates = read_dates(dates, layout)
            _refuse(column, np.isnat(dates) & _there(column), f"no dates such as {layout}")
        elif column.kind != "date":
            _refuse(column, _there(column), "no dates")
            dates = np.full(len(dates), np.datetime64("NaT", "us"))
        parts = [(dates - self.first) / DAY]
        for cycle in self.cycles:
            angle = 2.0 * np.pi * _turns(dates, cycle)
            parts += [np.sin(angle), np.cos(angle)]
        numbers = np.column_stack(parts)
        numbers[np.isnat(dates)] = np.nan
        return numbers, np.zeros(len(dates), bool)

    def told(self, value: float) -> str:
        """A number of days as a date."""
        micro = np.clip(value * 86_400e6, float((EARLIEST - self.first).astype(int)),
                        float((LATEST - self.first).astype(int)))  # fmt: skip
        return date_text(self.first + np.timedelta64(round(float(micro)), "us"))

    def described(self) -> dict[str, Any]:
        """Description for model.json."""
        return {
            "name": self.name,
            "kind": "date",
            "first": str(self.first),
            "layout": self.layout,
            "cycles": list(self.cycles),
        }

    @staticmethod
    def is_layout(text: Any) -> bool:
        """Whether a value is a valid `layout`."""
        return isinstance(text, str) and (not text or text in LAYOUTS)


def _turns(dates: np.ndarray, cycle: str) -> np.ndarray:
    """Fraction of the day, of the week (in whole days) or of the year (in whole months)."""
    if cycle == "hour":
        return (dates - dates.astype("datetime64[D]")) / DAY
    if cycle == "weekday":
        return ((dates.astype("datetime64[D]").astype(int) + 3) % 7) / 7.0
    return (dates.astype("datetime64[M]").astype(int) % 12) / 12.0


Code = NumberCode | BooleanCode | CategoryCode | DateCode


def _there(column: Column) -> np.ndarray:
    """Mask of the rows that have a value."""
    values = column.values
    if column.kind == "text":
        return np.array([text is not None for text in values], dtype=bool)
    return np.logical_not(np.isnat(values) if column.kind == "date" else np.isnan(values))


def _refuse(column: Column, wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        rows: Sequence[int] = np.flatnonzero(wrong).tolist()
        cell = shown(str(column.values[rows[0]]), 30)
        raise ValueError(f"holds {what} in {len(rows)} of {len(wrong)} rows, first '{cell}'")
