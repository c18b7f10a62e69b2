"""Text files: lines of cells in any dialect, read without interpreting the columns."""

from __future__ import annotations

import codecs
import csv
import io
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice

import numpy as np

from mgnet.app.files.cells import POINT, Marks, evidence, is_missing, is_number_like, number
from mgnet.app.files.columns import Column, DataFile, NoNumbers, shown
from mgnet.app.files.dialect import Dialect, find_dialect
from mgnet.app.files.records import BLANKS, Record, csv_line, more_cells, records, split_cells

__all__ = ["TextFile", "open_text"]

BLOCK = 2**16  # bytes that are decoded at once in a check
QUOTED_COMMA = re.compile(rb'"[\d\s.+-]{0,50},[\d\s.,eE+-]{0,50}"')  # perhaps part of a number
ODD_BLANKS = re.compile(rb"[\x0b\x0c\x1c-\x1f\x80-\xff]")  # NumPy may split words at these, too
OTHERS = {  # beginnings of other files
    b"\x1f\x8b": "compressed twice",
    b"BZh": "compressed twice",
    b"\xfd7zXZ": "compressed twice",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"\x93NUMPY": "one NumPy array, not an archive of columns",
    b"\x89HDF": "an HDF5 file",
    b"(\xb5/\xfd": "compressed by zstd",
    codecs.BOM_UTF32_LE: "text in UTF-32",
}
UTF_16 = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE


def open_text(source: str, content: bytes, decimal: str | None = None) -> TextFile:
    r"""Read the columns of a text.

    Parameters
    ----------
    source : str
        Name of the file in messages.
    content : bytes
        UTF-8, with or without a byte order mark, or UTF-16 with one.
    decimal : "." or ",", optional
        Decimal mark; the other mark may then group digits. By default it is inferred from the file.

    Returns
    -------
    TextFile
        Columns of the text.

    Raises
    ------
    ValueError
        If the content is not text, has no header, or has two columns with the same name.

    Examples
    --------
    >>> open_text("x.csv", b"T;p\n1,5;2\n3;\n").numbers(["T", "p"]).tolist()
    [[1.5, 2.0], [3.0, nan]]
    """
    content = _as_utf_8(source, content)
    return TextFile(source, content, find_dialect(source, _lines_of(content)), decimal)


def _as_utf_8(source: str, content: bytes) -> bytes:
    for start, kind in OTHERS.items():
        if content.startswith(start):
            raise ValueError(f"{source} is not UTF-8 text but {kind}; save it as CSV in UTF-8")
    if content.startswith(UTF_16):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeError:  # incomplete characters
            raise ValueError(
                f"{source} is damaged text in UTF-16; save it as CSV in UTF-8"
            ) from None
    if b"\0" in content:
        raise ValueError(f"{source} has NUL bytes, so it is not a text file; save it as CSV")
    # In blocks, since text may take 4 times as much.
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(content), BLOCK):
        kept = len(decoder.getstate()[0])
        try:
            decoder.decode(content[start : start + BLOCK], start + BLOCK >= len(content))
        except UnicodeDecodeError as error:
            place = start - kept + error.start
            line = content.count(b"\n", 0, place) + 1
            raise ValueError(
                f"{source} is not UTF-8 text: line {line} has the byte 0x{content[place]:02x}; "
                "save it as CSV in UTF-8"
            ) from None
    return content


def _lines_of(content: bytes) -> Iterator[str]:
    """Lines, each ending in a newline."""
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig")


@dataclass(frozen=True, eq=False)
class TextFile(DataFile):
    r"""A text of rows and columns.

    Lines are decoded on demand, so memory holds only the file itself and the numeric columns.

    Parameters
    ----------
    source : str
        Name of the file in messages.
    content : bytes
        The whole file, UTF-8 text.
    dialect : Dialect
        Format of the text.
    decimal : "." or ",", optional
        Decimal mark that the user gave.

    Examples
    --------
    >>> file = open_text("x.csv", b"a,b\n1,2\n3,4\n")
    >>> list(file.with_columns({"c": np.array([5.0, 6.0])}))
    ['a,b,c', '1,2,5', '3,4,6']
    """

    source: str
    content: bytes = field(repr=False)
    dialect: Dialect
    decimal: str | None = None

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.dialect.names

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def marks(self) -> Marks:
        """The decimal and grouping marks: those of the user, or those inferred from the cells."""
        if self.decimal is not None:
            return Marks(self.decimal, grouped=True)
        if not self._may_have_commas():
            return POINT
        doubt = point = False
        numeric = [place for place, is_numeric in enumerate(self.dialect.numeric) if is_numeric]
        for _, _, cells in self._rows():
            for place in numeric:
                cell = cells[place] if place < len(cells) else ""
                if "," in cell or (not point and "." in cell):
                    told = evidence(cell)
                    if told == "comma":
                        return Marks(",")
                    doubt |= told == "comma?"
                    point |= told == "point"
        return Marks("") if doubt and not point else POINT

    def _may_have_commas(self) -> bool:
        if self.dialect.separator == ",":
            return QUOTED_COMMA.search(self.content) is not None
        head = sum(line.count(",") for line in self._head())
        return self.content.count(b",") > head

    @cached_property
    def _quoted(self) -> bool:
        """Whether there are quotes below the names."""
        return self.content.count(b'"') > sum(line.count('"') for line in self._head())

    def _head(self) -> Iterator[str]:
        return islice(_lines_of(self.content), self.dialect.first - 1)

    def _lines(self) -> Iterator[str]:
        """Lines, beginning with the first row."""
        return islice(_lines_of(self.content), self.dialect.first - 1, None)

    def _records(self) -> Iterator[Record]:
        dialect = self.dialect
        return records(
            self.source, self._lines(), dialect.separator, dialect.first, self._is_comment
        )

    def _rows(self) -> Iterator[tuple[int, str, list[str]]]:
        """Line number, text and cells of every row that is not blank."""
        for line, text, cells in self._records():
            if cells is not None:
                yield line, text, cells

    def _is_comment(self, text: str, line: int) -> bool:
        """Whether a line that begins with # is a comment, and not a cell such as #N/A."""
        dialect, text = self.dialect, text.strip(" \t\n")
        try:
            cells = split_cells(text, dialect.separator)
        except csv.Error:
            cells = text.split(dialect.separator)
        if is_missing(cells[0]):
            return False
        is_usual = dialect.comments or text[1:2] in ("", " ", "\t")
        if len(cells) != dialect.width or (is_usual and dialect.numeric[0]):
            return True
        raise ValueError(
            f"{self.source}: line {line} begins with '{shown(text, 20)}', which may be a comment "
            "or a cell; delete the line, or quote the cell"
        )

    def numbers(self, wanted: Sequence[str]) -> np.ndarray:
        places = [self._places[name] for name in wanted]
        known = self.__dict__["_numeric"][0] if "_numeric" in self.__dict__ else {}
        if known.keys() >= set(places):
            return np.column_stack([known[place] for place in places])
        try:
            return self._read_plain(places)
        except ValueError:
            pass  # read again, slowly, to find the cell
        numbers, bad = self._read_cells(places)
        if bad:
            cells = len(places) * len(numbers)
            raise ValueError(bad.sentence(self.source, cells, self.decimal is not None))
        return numbers

    def column(self, name: str) -> Column:
        place = self._places[name]
        units = self.dialect.units[place] if self.dialect.units else None
        numbers, bad = self._numeric
        if place in numbers:
            return Column(name, "number", numbers[place].copy(), units)
        cells = [row[place].strip() for _, row in self._complete_rows()]
        if place in bad.places and all(map(is_number_like, cells)):  # they would be strange labels
            only = NoNumbers({place: bad.places[place]}, commas=True)
            raise ValueError(only.sentence(self.source, len(cells), self.decimal is not None))
        values = np.array([None if is_missing(cell) else cell for cell in cells], dtype=object)
        if all(value is None for value in values):
            return Column(name, "number", np.full(len(cells), np.nan), units)
        return Column(name, "text", values, units)

    @cached_property
    def _numeric(self) -> tuple[dict[int, np.ndarray], NoNumbers]:
        """The numeric columns, read together, and the cells that make others non-numeric."""
        places = [place for place, is_numeric in enumerate(self.dialect.numeric) if is_numeric]
        bad = NoNumbers()
        if not places:
            return {}, bad
        try:
            numbers = self._read_plain(places)
        except ValueError:
            numbers, bad = self._read_cells(places)
        columns = zip(places, np.ascontiguousarray(numbers.T), strict=True)
        return {place: column for place, column in columns if place not in bad.places}, bad

    def _read_plain(self, columns: list[int]) -> np.ndarray:
        """Read with NumPy's own reader; raise ValueError if mgnet might read a line differently."""
        separator, marks = self.dialect.separator, self.marks
        words = separator == BLANKS
        if self._quoted or marks not in (POINT, Marks(","), Marks(".", grouped=True)):
            raise ValueError("cells must be examined")
        if words and ODD_BLANKS.search(self.content):
            raise ValueError("words must be examined")
        comma, lines = marks.decimal == ",", 0

        def even() -> Iterator[str]:
            nonlocal lines
            others = self.dialect.width - 1
            for place, line in enumerate(self._lines(), self.dialect.first):
                if line == "\n" or (words and line.isspace()):
                    continue
                if "#" in line and line.lstrip(" \t").startswith("#"):
                    if self._is_comment(line, place):
                        continue
                count = len(line.split()) - 1 if words else line.count(separator)
                if count != others or line.isspace():
                    raise ValueError("a row is not complete")
                lines += 1
                # a point in a cell must not be read if the comma is the decimal mark
                yield line.replace(".", "!").replace(",", ".") if comma else line

        body = even()
        start = next(body, None)
        if start is None:
            return np.empty((0, len(columns)))
        numbers = np.loadtxt(
            chain([start], body),
            delimiter=None if words else separator,
            usecols=columns,
            ndmin=2,
            comments=None,
        )
        return numbers.reshape(lines, len(columns))

    def _read_cells(self, columns: list[int]) -> tuple[np.ndarray, NoNumbers]:
        """Numbers (NaN where a cell does not hold one), and the cells that are not numbers."""
        numbers, bad, marks = array("d"), NoNumbers(), self.marks
        for line, cells in self._complete_rows():
            for place in columns:
                value = number(cells[place], marks)
                if value is None:
                    bad.add(f"line {line}", place, self.names[place], cells[place].strip())
                    value = np.nan
                numbers.append(value)
        return np.array(numbers).reshape(-1, len(columns)), bad

    def _complete_rows(self) -> Iterator[tuple[int, list[str]]]:
        width = self.dialect.width
        for line, _, cells in self._rows():
            if len(cells) != width:
                comma = self.dialect.separator == "," and len(cells) > width
                hint = ""
                if comma and all(cell.strip().lstrip("+-").isdigit() for cell in cells):
                    hint = " (decimal commas need semicolons or tabs between cells)"
                raise ValueError(
                    f"{self.source}: line {line} has {len(cells)} cells, but line "
                    f"{self.dialect.header} names {width} columns; rows must be complete{hint}"
                )
            yield line, cells

    def row_label(self, row: int) -> str:
        for count, (line, _, _) in enumerate(self._rows()):
            if count == row:
                return f"line {line}"
        raise ValueError(f"{self.source} has no row {row}; rows count from 0")

    def with_columns(self, more: Mapping[str, np.ndarray]) -> Iterator[str]:
        dialect = self.dialect
        is_words, comma = dialect.separator == BLANKS, self.marks.decimal == ","
        for line, text in enumerate(self._head(), 1):
            text = text.removesuffix("\n")
            if line == dialect.header:
                yield self._longer(text, more)
            elif line in dialect.below:
                yield self._longer(text, ["-" if is_words else ""] * len(more))
            elif text:
                yield text
        values = more_cells(more, comma)
        for _, text, cells in self._records():
            if cells is None:
                yield text
                continue
            yield self._longer(text, (cell or "nan" * is_words for cell in next(values)))

    def _longer(self, text: str, cells: Iterable[str]) -> str:
        separator = self.dialect.separator
        if separator == BLANKS:
            text = text.rstrip(" \t")
        for cell in cells:
            text += f"{separator}{csv_line([cell], separator) if cell else ''}"
        return text
