"""Determine the kind of a column: numbers, booleans, dates, or categories in words."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from mgnet.app.columns.dates import date_layout, read_dates
from mgnet.app.files.columns import Column

__all__ = ["looks_like_numbers", "meant", "read_booleans"]

PAIRS = ("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n")  # in upper or lower case
WORDS = {word: float(place == 0) for pair in PAIRS for place, word in enumerate(pair)}
NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}([., ']\d{3})+)([.,]\d*)?([eE][+-]?\d+)?|[+-]?[.,]\d+")


def meant(column: Column) -> tuple[Column, str]:
    """The column with its text converted, and the layout of dates that were stored as text.

    A text column is boolean if no cell is missing and all cells come from one pair of words (true
    and false, yes and no, t and f, or y and n, in upper or lower case). It is a date column if all
    texts are dates in the same layout.

    Parameters
    ----------
    column : Column
        Column as it is in the file.

    Returns
    -------
    Column
        Column of kind "number" (NaN if infinite), "boolean", "date" or "text".
    str
        One of `dates.LAYOUTS`, or empty.

    Raises
    ------
    ValueError
        If days and months of dates cannot be distinguished.

    Examples
    --------
    >>> words = np.array(["Yes", "no", "no"], dtype=object)
    >>> column, _ = meant(Column("sold", "text", words))
    >>> column.kind, column.values
    ('boolean', array([1., 0., 0.]))
    """
    values = column.values
    if column.kind == "number":
        return replace(column, values=np.where(np.isinf(values), np.nan, values)), ""
    if column.kind != "text":
        return column, ""
    texts = sorted({text for text in values.tolist() if text is not None})
    if not texts:
        return replace(column, kind="number", values=np.full(len(values), np.nan)), ""
    lower = {text.lower() for text in texts}
    if any(lower <= set(pair) for pair in PAIRS) and not any(text is None for text in values):
        return replace(column, kind="boolean", values=read_booleans(values)), ""
    layout = date_layout(texts)
    if layout:
        return replace(column, kind="date", values=read_dates(values, layout)), layout
    return column, ""


def read_booleans(texts: np.ndarray) -> np.ndarray:
    """Convert words for true and false to 1 and 0, and missing or other texts to NaN.

    Examples
    --------
    >>> read_booleans(np.array(["T", "false", None, "maybe"], dtype=object))
    array([ 1.,  0., nan, nan])
    """
    known = {text: WORDS.get(text.lower(), np.nan) for text in {*texts.tolist()} - {None}}
    return np.array([known.get(text, np.nan) for text in texts.tolist()], dtype=float)


def looks_like_numbers(column: Column) -> bool:
    """Whether at least half of a text column consists of numbers, so that the rest may be mistakes.

    Examples
    --------
    >>> looks_like_numbers(Column("p", "text", np.array(["1.5", "2,5", "x", None], dtype=object)))
    True
    >>> looks_like_numbers(Column("name", "text", np.array(["a1", "b2"], dtype=object)))
    False
    """
    if column.kind != "text":
        return False
    texts = [text for text in column.values.tolist() if text is not None]
    known = {text: NUMBER.fullmatch(text) is not None for text in set(texts)}
    return bool(texts) and 2 * sum(known[text] for text in texts) >= len(texts)
