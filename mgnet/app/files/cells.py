"""The content of a text cell: a number with a decimal point or comma, nothing, or other text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

__all__ = ["MISSING", "Marks", "evidence", "is_missing", "is_number_like", "number"]

# Texts that spreadsheets, databases and statistics programs write for a missing value. pandas
# treats the same ones as missing, except marks of one or more characters ("?", "-", ".") and the
# errors of spreadsheets. Lower case.
MISSING = frozenset(
    (
        *("", "na", "n/a", "n.a.", "<na>", "nan", "-nan", "null", "none", "missing", "\\n"),
        *("#n/a", "#n/a n/a", "#na", "#nv", "?", "-", "--", "---", "\u2013", "\u2014", ".", "..."),
        *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "1.#inf", "-1.#inf"),
        *("#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!", "#spill!", "#calc!"),
    )
)
EXPONENT = r"(?:[eE][+-]?\d+)?"
DECIMAL_COMMA = re.compile(rf"[+-]?(?:\d+,\d*|,\d+){EXPONENT}", re.ASCII)
DECIMAL_POINT = re.compile(rf"[+-]?(?:\d+\.\d*|\.\d+){EXPONENT}", re.ASCII)
COMMA_GROUPS = re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:,\d{{3}})+(\.\d*)?{EXPONENT}", re.ASCII)
POINT_GROUPS = re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:\.\d{{3}})+(,\d*)?{EXPONENT}", re.ASCII)


@dataclass(frozen=True)
class Marks:
    """How numbers are written.

    Parameters
    ----------
    decimal : "." or ",", or "" if unknown
        Decimal mark. If the mark is unknown, a cell that would be a different number with the other
        mark is not accepted as a number.
    grouped : bool
        Whether the other mark may separate groups of three digits.

    Examples
    --------
    >>> number("1,234", Marks(",")), number("1,234", Marks(".", grouped=True))
    (1.234, 1234.0)
    """

    decimal: str = "."
    grouped: bool = False


POINT = Marks()


def is_missing(cell: str) -> bool:
    """Whether a cell is empty or contains a mark for a missing value.

    Examples
    --------
    >>> is_missing(" #N/A"), is_missing("-999")
    (True, False)
    """
    return cell.strip().lower() in MISSING


def number(cell: str, marks: Marks = POINT) -> float | None:
    """The number in a cell; NaN if the cell marks a missing value, None if it holds other text.

    Parameters
    ----------
    cell : str
        Text of the cell.
    marks : Marks
        Decimal and grouping marks.

    Examples
    --------
    >>> number(" 1.5e3 "), number("NA"), number("1,5"), number("1,5", Marks(","))
    (1500.0, nan, None, 1.5)
    """
    cell = cell.strip()
    if cell.lower() in MISSING:
        return math.nan
    if "_" in cell:
        return None
    if marks is not POINT:
        told = _with_point(cell, marks)
        if told is None:
            return None
        cell = told
    try:
        return float(cell)
    except ValueError:
        return None


def _with_point(cell: str, marks: Marks) -> str | None:
    if marks.decimal == "":
        return None if "," in cell or POINT_GROUPS.fullmatch(cell) else cell
    groups, mark = (COMMA_GROUPS, ",") if marks.decimal == "." else (POINT_GROUPS, ".")
    if mark in cell:
        if not marks.grouped or not groups.fullmatch(cell):
            return None
        cell = cell.replace(mark, "")
    return cell.replace(",", ".")


def is_number_like(cell: str) -> bool:
    """Whether a cell marks a missing value, or is a number with either decimal mark.

    Examples
    --------
    >>> [is_number_like(cell) for cell in ("1,5", "1.234,5", "NA", "K", "2020-01-01")]
    [True, True, True, False, False]
    """
    return evidence(cell) != "text"


def evidence(cell: str) -> str:
    """Evidence in a cell about the decimal mark of its file.

    Parameters
    ----------
    cell : str
        Text of the cell.

    Returns
    -------
    str
        "comma" or "point" if the cell shows that this is the decimal mark, by using it or by
        grouping digits with the other mark; "comma?" or "point?" if this mark is either the decimal
        mark or groups digits; "none" for a missing value or a number without evidence; "text" for
        other cells.

    Examples
    --------
    >>> [evidence(cell) for cell in ("1,5", "1,234", "1,234,567", "1.234", "0.5", "7", "x")]
    ['comma', 'comma?', 'point', 'point?', 'point', 'none', 'text']
    """
    cell = cell.strip()
    for mark, groups, decimal, other in (
        (",", COMMA_GROUPS, DECIMAL_COMMA, "point"),
        (".", POINT_GROUPS, DECIMAL_POINT, "comma"),
    ):
        own = "comma" if mark == "," else "point"
        if groups.fullmatch(cell):
            return other if cell.count(mark) > 1 or "," in cell and "." in cell else f"{own}?"
        if decimal.fullmatch(cell):
            return own
    return "text" if number(cell) is None else "none"
