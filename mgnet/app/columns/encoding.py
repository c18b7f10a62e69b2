"""Convert columns of a table to inputs of a network, as determined by the training rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mgnet.app.columns.codes import (
    CYCLES,
    BooleanCode,
    CategoryCode,
    Code,
    DateCode,
    NumberCode,
)
from mgnet.app.files.columns import Column, shown

__all__ = ["Encoding"]


@dataclass(frozen=True)
class Encoding:
    """The code of each column.

    Parameters
    ----------
    codes : tuple of Code
        One code for each column from which inputs are computed.
    left_out : frozenset of str
        Features that are not inputs because they did not vary.

    Examples
    --------
    >>> texts = np.array(["a", "b"] * 5, dtype=object)
    >>> columns = [Column("T", "number", np.arange(10.0)), Column("kind", "text", texts)]
    >>> encoding = Encoding.of(columns)
    >>> encoding.names, encoding.without(["kind=a"]).names
    (('T', 'kind=a', 'kind=b'), ('T', 'kind=b'))
    >>> encoding.encode({column.name: column for column in columns})[0][1]
    array([1., 0., 1.])
    """

    codes: tuple[Code, ...]
    left_out: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        columns: Iterable[Column],
        layouts: Mapping[str, str] | None = None,
        cycles: Sequence[str] = (),
    ) -> Encoding:
        """The encoding that fits these training rows.

        Parameters
        ----------
        columns : iterable of Column
            Columns from `meant`.
        layouts : mapping of str to str, optional
            Layouts of the columns whose dates were stored as text.
        cycles : sequence of str
            Cycles of all dates, as for `DateCode`.
        """
        layouts = layouts or {}
        codes: list[Code] = []
        for column in columns:
            if column.kind == "text":
                codes.append(CategoryCode.of(column))
            elif column.kind == "date":
                first, layout = np.min(column.values), layouts.get(column.name, "")
                codes.append(DateCode(column.name, first, layout, tuple(cycles)))
            else:
                kind = BooleanCode if column.kind == "boolean" else NumberCode
                codes.append(kind(column.name))
        return cls(tuple(codes))

    @classmethod
    def of_numbers(cls, names: Iterable[str]) -> Encoding:
        """The encoding of numeric columns, which leaves them unchanged."""
        return cls(tuple(map(NumberCode, names)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs of the network."""
        left = self.left_out
        return tuple(name for code in self.codes for name in code.features if name not in left)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns from which the inputs are computed."""
        return tuple(code.name for code in self.codes)

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the columns that must hold numbers."""
        return tuple(code.name for code in self.codes if isinstance(code, NumberCode))

    def without(self, features: Iterable[str]) -> Encoding:
        """The same encoding without some inputs, and without columns that then have no inputs."""
        left = self.left_out | set(features)
        codes = tuple(code for code in self.codes if not left.issuperset(code.features))
        kept = {name for code in codes for name in code.features}
        return replace(self, codes=codes, left_out=frozenset(left & kept))

    def encode(self, columns: Mapping[str, Column]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Convert rows to inputs, and find values that the training rows did not have.

        Parameters
        ----------
        columns : mapping of str to Column
            Columns of a file.

        Returns
        -------
        x : array of shape (rows, inputs)
            The inputs; NaN where a value is missing.
        new : dict of str to array of bool
            Mask of the rows with a new level, by column; only for columns that have such rows.

        Raises
        ------
        ValueError
            If columns hold values of another kind than in training; the message names all of them.
        """
        parts, new, wrong = [], {}, []
        for code in self.codes:
            try:
                numbers, rows = code.encode(columns[code.name])
            except ValueError as error:
                wrong.append(f"column '{shown(code.name)}' {error}")
                continue
            kept = [name not in self.left_out for name in code.features]
            parts.append(numbers if all(kept) else numbers[:, kept])
            if rows.any():
                new[code.name] = rows
        if wrong:
            raise ValueError(f"{'; '.join(wrong)}; correct them, or fit again")
        return np.concatenate(parts, axis=1), new

    def code(self, column: str) -> Code:
        """The code of a column."""
        return next(code for code in self.codes if code.name == column)

    def owner(self, feature: str) -> Code:
        """The code that produces an input."""
        return self._owners[feature]

    @cached_property
    def _owners(self) -> dict[str, Code]:
        return {name: code for code in self.codes for name in code.features}

    def told(self, feature: str, value: float) -> str:
        """A value of an input as text; a number of days becomes a date."""
        code = self.owner(feature)
        return code.told(value) if feature == code.features[0] else f"{value:g}"

    def columns_of(self, features: Iterable[str]) -> list[str]:
        """Names of the columns whose inputs are all given, and of the other given inputs."""
        there, named = set(features), list[str]()
        for code in self.codes:
            own = [name for name in code.features if name in there]
            named += [code.name] if len(own) == len(code.features) else own
        return named

    def described(self) -> dict[str, Any]:
        """Description for model.json."""
        return {
            "columns": [code.described() for code in self.codes],
            "left_out": sorted(self.left_out),
        }

    @classmethod
    def read(cls, columns: Any, left_out: Any) -> Encoding:
        """Build the encoding from the result of `described`.

        Raises
        ------
        ValueError
            If the description is invalid.
        """
        if not isinstance(columns, list) or not isinstance(left_out, list):
            raise ValueError("columns are not a list")
        codes = tuple(_code(told) for told in columns)
        names = [name for code in codes for name in (code.name, *code.features)]
        encoding = cls(codes, frozenset(map(_text, left_out)))
        if not encoding.left_out <= set(names) or len(set(encoding.columns)) < len(codes):
            raise ValueError("columns occur twice, or are left out but missing")
        return encoding


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("the description of a column has no text where one is expected")
    return value


def _code(told: Any) -> Code:
    kinds = {"number": NumberCode, "boolean": BooleanCode, "text": CategoryCode, "date": DateCode}
    kind = told.get("kind") if isinstance(told, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError("the description of a column has no kind")
    name = _text(told.get("name"))
    if kind == "text":
        return _categories(name, told)
    if kind == "date":
        return _dates(name, told)
    return kinds[kind](name)


def _categories(name: str, told: dict[str, Any]) -> CategoryCode:
    levels, rare = told.get("levels"), told.get("rare")
    if not isinstance(levels, list) or not isinstance(rare, list) or not levels + rare:
        raise ValueError("the description of a column has no levels")
    every = [level if level is None else _text(level) for level in levels + rare]
    if len(set(every)) < len(every):
        raise ValueError("the description of a column has a level twice")
    return CategoryCode(name, tuple(levels), tuple(rare))


def _dates(name: str, told: dict[str, Any]) -> DateCode:
    cycles, layout = told.get("cycles"), told.get("layout")
    known = isinstance(cycles, list) and all(isinstance(c, str) and c in CYCLES for c in cycles)
    if not known or not DateCode.is_layout(layout) or len(set(cycles)) < len(cycles):  # type: ignore
        raise ValueError("the description of a date has an unknown layout or cycle")
    try:
        first = np.datetime64(_text(told.get("first")), "us")
    except ValueError:
        first = np.datetime64("NaT")
    if np.isnat(first):
        raise ValueError("the description of a date has no first date")
    return DateCode(name, first, str(layout), tuple(cycles))  # type: ignore[arg-type]
