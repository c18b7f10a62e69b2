"""Split lines of text into records of cells, with any separator."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from mgnet.app.files.columns import shown

__all__ = ["BLANKS", "Record", "csv_line", "more_cells", "number_text", "records", "split_cells"]

BLANKS = " "  # the separator that represents runs of blanks and tabs
WORD = re.compile(r'[ \t]*(?:"((?:[^"]|"")*)"|([^ \t"]+))(?=[ \t]|$)')


class Record(NamedTuple):
    r"""A row or a comment of a text.

    Attributes
    ----------
    line : int
        Number of the line where it begins.
    text : str
        Original text, without the newline at its end.
    cells : list of str, or None for a comment
        Cells of the row.

    Examples
    --------
    >>> list(records("x.csv", ["1,2\n"], ","))
    [Record(line=1, text='1,2', cells=['1', '2'])]
    """

    line: int
    text: str
    cells: list[str] | None


def records(
    source: str,
    lines: Iterable[str],
    separator: str,
    line: int = 1,
    is_comment: Callable[[str, int], bool] | None = None,
) -> Iterator[Record]:
    r"""Yield rows and comments of a text, without blank lines.

    Parameters
    ----------
    source : str
        Name of the file in messages.
    lines : iterable of str
        Lines that end in a newline.
    separator : str
        Separator of the cells.
    line : int
        Number of the first line.
    is_comment : callable, optional
        Whether a line that begins with "#" is a comment, given its text and number; False by
        default.

    Raises
    ------
    ValueError
        If a quote is not closed, or a cell continues after its closing quote.

    Examples
    --------
    >>> [record.cells for record in records("x", ["a  b\n", "1\t2\n"], " ")]
    [['a', 'b'], ['1', '2']]
    """
    lines = iter(lines)
    for text in lines:
        start, line = line, line + 1
        if text == "\n" or (separator == BLANKS and text.isspace()):
            continue
        if is_comment is not None and "#" in text and text.lstrip(" \t").startswith("#"):
            if is_comment(text, start):
                yield Record(start, text.removesuffix("\n"), None)
                continue
        taken = [text]
        try:
            cells = split_cells(text, separator, _noted(lines, taken))
        except csv.Error as error:
            raise ValueError(
                f"{source}: the row that begins in line {start} cannot be read "
                f"({shown(str(error), 100)}); is a quote not closed there?"
            ) from None
        line = start + len(taken)
        yield Record(start, "".join(taken).removesuffix("\n"), cells)


def _noted(lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    for text in lines:
        taken.append(text)
        yield text


def split_cells(text: str, separator: str, more: Iterable[str] = ()) -> list[str]:
    r"""The cells of a line, and of the lines after it while a quote is still open.

    Parameters
    ----------
    text : str
        Line to split.
    separator : str
        Separator of the cells.
    more : iterable of str
        The following lines.

    Raises
    ------
    csv.Error
        If a quote is not closed, or a cell continues after its closing quote.

    Examples
    --------
    >>> split_cells('1,"2,5"\n', ","), split_cells(' 1   "2 5"\n', " ")
    (['1', '2,5'], ['1', '2 5'])
    """
    if separator == BLANKS:
        return _words(text)
    if '"' not in text:
        return text.removesuffix("\n").split(separator)
    return next(csv.reader(chain([text], more), delimiter=separator, strict=True))


def _words(text: str) -> list[str]:
    text = text.removesuffix("\n")
    if '"' not in text:
        return [word for word in text.replace("\t", " ").split(" ") if word]
    words, place = [], 0
    text = text.rstrip(" \t")
    while place < len(text):
        found = WORD.match(text, place)
        if found is None:
            raise csv.Error("a quote within a word")
        words.append(found[2] if found[1] is None else found[1].replace('""', '"'))
        place = found.end()
    return words


def csv_line(cells: Sequence[str], separator: str) -> str:
    """Write cells as a line of a CSV file, quoted if necessary.

    Examples
    --------
    >>> csv_line(["a", "b,c"], ",")
    'a,"b,c"'
    """
    line, end = io.StringIO(), "\r\n"  # a cell with one of these characters is also quoted
    csv.writer(line, delimiter=separator, lineterminator=end).writerow(cells)
    return line.getvalue().removesuffix(end)


def more_cells(more: Mapping[str, np.ndarray], comma: bool = False) -> Iterator[tuple[str, ...]]:
    """The cells of additional columns, row by row: numbers (nothing for NaN), or text.

    Parameters
    ----------
    more : mapping of str to array of shape (rows,)
        Columns by name.
    comma : bool
        Whether the comma is the decimal mark.

    Examples
    --------
    >>> list(more_cells({"a": np.array([1.5, np.nan]), "b": np.array(["x", "y"])}))
    [('1.5', 'x'), ('', 'y')]
    """

    def text(value: float) -> str:
        return number_text(value).replace(".", "," if comma else ".")

    texts = (
        map(text if column.dtype.kind == "f" else str, column.tolist()) for column in more.values()
    )
    return zip(*texts, strict=True)


def number_text(value: float) -> str:
    """A predicted number as a cell; empty for NaN.

    Examples
    --------
    >>> number_text(0.5), number_text(float("nan"))
    ('0.5', '')
    """
    return "" if math.isnan(value) else f"{value:.10g}"
