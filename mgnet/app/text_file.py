"""CSV files: text in lines, read without judging what the columns mean."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np

from mgnet.app.named_columns import Column, DataFile, check_names, refuse_too_many, shown

__all__ = ["TextFile", "csv_line", "more_cells", "open_text"]

SEPARATORS = ",;\t"
MISSING = {"", "na", "n/a", "nan", "null", "none"}
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", re.ASCII)
BLOCK = 2**16  # bytes that are decoded at once, in a check
OTHERS = {  # how other files begin
    b"PK\x03\x04": "a zip archive, such as a spreadsheet or an .npz archive of another name",
    b"\x1f\x8b": "compressed by gzip",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"\x93NUMPY": "one NumPy array, not an archive of columns",
    b"PAR1": "a Parquet file",
    b"\x89HDF": "an HDF5 file",
    codecs.BOM_UTF16_LE: "text in UTF-16",
    codecs.BOM_UTF16_BE: "text in UTF-16",
}


def open_text(source: str, content: bytes) -> TextFile:
    r"""The columns of a text.

    Parameters
    ----------
    source : str
        For messages.
    content : bytes
        UTF-8, with or without a mark at the start.

    Returns
    -------
    TextFile

    Raises
    ------
    ValueError
        If it is no text, has no header, or two columns of one name.

    Examples
    --------
    >>> open_text("x.csv", b"T;p\n1;2\n3;\n").names
    ('T', 'p')
    """
    _check_text(source, content)
    number, header = next(
        (pair for pair in enumerate(_lines_of(content), 1) if pair[1] != "\n"), (0, "")
    )
    if not header:
        raise ValueError(f"{source} is empty; expected a line of column names, then rows")
    separator = max(SEPARATORS, key=re.sub('"[^"]*"', "", header).count)
    refuse_too_many(source, header.count(separator) + 1)
    try:
        cells = next(csv.reader([header], delimiter=separator, strict=True))
    except csv.Error as error:
        raise ValueError(
            f"{source}: the column names in line {number} cannot be read ({_reason(error)}); is a "
            "quote not closed there?"
        ) from None
    if re.match(r'"?sep=\W*$', header, re.IGNORECASE):
        raise ValueError(
            f"{source}: line {number} is '{shown(header.strip())}', a note for spreadsheets; "
            "delete this line, the separator is found without it"
        )
    names = tuple(name.strip() for name in cells)
    if all(_number(name) is not None for name in names):
        raise ValueError(
            f"{source} has no header: line {number} is '{shown(header.strip())}'; write the names "
            "of the columns there"
        )
    if "" in names[1:]:
        raise ValueError(
            f"{source}: column {names.index('', 1) + 1} has no name in line {number}; name it, or "
            "write the file without it if it only counts the rows"
        )
    if names[0].startswith("#"):
        raise ValueError(
            f"{source}: the first column is called '{shown(names[0])}' in line {number}; remove "
            "the '#', or give the column another name"
        )
    check_names(source, names)
    return TextFile(source, names, separator, content, number + 1)


def _reason(error: csv.Error) -> str:
    return shown(str(error), 100)


def _check_text(source: str, content: bytes) -> None:
    for start, kind in OTHERS.items():
        if content.startswith(start):
            raise ValueError(f"{source} is not UTF-8 text but {kind}; save it as CSV in UTF-8")
    if b"\0" in content:
        raise ValueError(f"{source} has NUL bytes, so it is not a text file; save it as CSV")
    decoder = codecs.getincrementaldecoder("utf-8")()  # by blocks: text may take 4 times as much
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


def _lines_of(content: bytes) -> Iterator[str]:
    """Lines with their ends, all of them a newline."""
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig")


@dataclass(frozen=True, eq=False)
class TextFile(DataFile):
    r"""A CSV file.

    Lines are decoded when they are asked for, so what is held is the file itself.

    Parameters
    ----------
    source : str
    names : tuple of str
    separator : str
    content : bytes
        The whole file, which is UTF-8 text.
    first : int
        Line number of the first row; the header is the line above.

    Examples
    --------
    >>> file = TextFile("x.csv", ("a", "b"), ",", b"a,b\n1,2\n3,4\n", 2)
    >>> list(file.with_columns({"c": np.array([5.0, 6.0])}))
    ['a,b,c', '1,2,5', '3,4,6']
    """

    source: str
    names: tuple[str, ...]
    separator: str
    content: bytes = field(repr=False)
    first: int = 2

    def column(self, name: str) -> Column:
        place = self.names.index(name)
        if not self._quoted:
            try:
                return Column(name, "number", self._read_plain([place])[:, 0])
            except ValueError:
                pass  # text, or a row that must be named
        cells = [row[place].strip() for row in self._complete_rows()]
        numbers = [_number(cell) for cell in cells]
        if None not in numbers:
            return Column(name, "number", np.array(numbers, dtype=float))
        text = [
            None if number != number else cell for cell, number in zip(cells, numbers, strict=True)
        ]
        return Column(name, "text", np.array(text, dtype=object))

    def read(self, wanted: Sequence[str]) -> list[Column]:
        places = {name: place for place, name in enumerate(self.names)}
        if not self._quoted:
            try:
                numbers = self._read_plain([places[name] for name in wanted])
                return [Column(n, "number", c) for n, c in zip(wanted, numbers.T, strict=True)]
            except ValueError:
                pass  # some are text
        return self._read_kinds({name: places[name] for name in wanted})

    def _read_kinds(self, wanted: Mapping[str, int]) -> list[Column]:
        """Numbers by one pass through the file, text by another."""
        found: dict[str, array[float] | list[str | None]] = {name: array("d") for name in wanted}
        text: dict[str, int] = {}
        for cells in self._complete_rows():
            for name, numbers in found.items():
                if name not in text:
                    number = _number(cells[wanted[name]])
                    if number is None:
                        text[name] = wanted[name]
                    else:
                        numbers.append(number)  # type: ignore[arg-type]
        found |= {name: [] for name in text}
        for cells in self._complete_rows() if text else ():
            for name, place in text.items():
                cell = cells[place].strip()
                found[name].append(None if cell.lower() in MISSING else cell)  # type: ignore
        return [
            Column(name, "text", np.array(values, dtype=object))
            if name in text
            else Column(name, "number", np.array(values, dtype=float))
            for name, values in ((name, found[name]) for name in wanted)
        ]

    def numbers(self, wanted: Sequence[str]) -> np.ndarray:
        places = {name: place for place, name in enumerate(self.names)}
        columns = [places[name] for name in wanted]
        if not self._quoted:
            try:
                return self._read_plain(columns)
            except ValueError:
                pass  # read again, slowly, to find the cell
        return self._read_cells(columns)

    @property
    def _header(self) -> str:
        return next(islice(_lines_of(self.content), self.first - 2, None)).removesuffix("\n")

    @property
    def _quoted(self) -> bool:
        """Whether there are quotes below the header."""
        return self.content.count(b'"') > self._header.count('"')

    def _lines(self) -> Iterator[str]:
        """Lines below the header."""
        return islice(_lines_of(self.content), self.first - 1, None)

    def _read_plain(self, columns: list[int]) -> np.ndarray:
        """By NumPy's own reader; ValueError unless it reads every line as we would."""
        lines = 0

        def even() -> Iterator[str]:
            nonlocal lines
            marks = len(self.names) - 1
            for line in self._lines():
                if line == "\n":
                    continue
                if line.count(self.separator) != marks or line.isspace():
                    raise ValueError("a row is not complete")
                lines += 1
                yield line

        body = even()
        start = next(body, None)
        if start is None:
            return np.empty((0, len(columns)))
        numbers = np.loadtxt(
            chain([start], body),
            delimiter=self.separator,
            usecols=columns,
            ndmin=2,
            comments=None,
        )
        return numbers.reshape(lines, len(columns))

    def _complete_rows(self) -> Iterator[list[str]]:
        for line, cells in self._rows():
            if len(cells) != len(self.names):
                raise ValueError(
                    f"{self.source}: line {line} has {len(cells)} cells, but line "
                    f"{self.first - 1} names {len(self.names)} columns; rows must be complete"
                )
            yield cells

    def _read_cells(self, columns: list[int]) -> np.ndarray:
        numbers, bad, sample = array("d"), 0, ""
        commas = grouped = 0
        for line, cells in self._rows():
            if len(cells) != len(self.names):
                raise ValueError(
                    f"{self.source}: line {line} has {len(cells)} cells, but line "
                    f"{self.first - 1} names {len(self.names)} columns; rows must be complete"
                )
            for column in columns:
                number = _number(cells[column])
                if number is None:
                    if not bad:
                        sample = (
                            f"'{shown(cells[column].strip(), 30)}' in line {line}, column "
                            f"'{shown(self.names[column])}'"
                        )
                    bad += 1
                    commas += "," in cells[column]
                    grouped += THOUSANDS.fullmatch(cells[column].strip()) is not None
                numbers.append(math.nan if number is None else number)
        if bad:
            hint = ""
            if commas:  # 1,234 is a decimal number, too, where something else parts the cells
                decimal = "decimal commas must become points, thousands separators must go"
                plain = grouped == commas and self.separator == ","
                hint = f"; {'remove the thousands separators' if plain else decimal}"
            raise ValueError(
                f"{self.source}: {bad} of {len(numbers)} cells are not numbers, the first is "
                f"{sample}{hint}; correct them, or choose other columns"
            )
        return np.array(numbers).reshape(-1, len(columns))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and cells of every row that is not blank."""
        reader = csv.reader(self._lines(), delimiter=self.separator, strict=True)
        line = self.first
        try:
            for cells in reader:
                if cells:
                    yield line, cells
                line = self.first + reader.line_num
        except csv.Error as error:
            raise ValueError(
                f"{self.source}: the row that begins in line {line} cannot be read "
                f"({_reason(error)}); is a quote not closed there?"
            ) from None

    def row_label(self, row: int) -> str:
        for number, (line, _) in enumerate(self._rows()):
            if number == row:
                return f"line {line}"
        raise ValueError(f"{self.source} has no row {row}; rows count from 0")

    def with_columns(self, more: Mapping[str, np.ndarray]) -> Iterator[str]:
        separator = self.separator
        yield f"{self._header}{separator}{csv_line(list(more), separator)}"
        if self._quoted:
            rows = (csv_line(cells, separator) for _, cells in self._rows())
        else:
            rows = (line.removesuffix("\n") for line in self._lines() if line != "\n")
        for row, cells in zip(rows, more_cells(more), strict=True):
            yield f"{row}{csv_line(['', *cells], separator)}"


def _number(cell: str) -> float | None:
    """The number in a cell; NaN if it is missing, None if the cell holds something else."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return math.nan
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def csv_line(cells: Sequence[str], separator: str) -> str:
    """Cells as a line of a CSV file, quoted where they need it.

    Examples
    --------
    >>> csv_line(["a", "b,c"], ",")
    'a,"b,c"'
    """
    line, end = io.StringIO(), "\r\n"  # a cell with one of these characters is quoted, too
    csv.writer(line, delimiter=separator, lineterminator=end).writerow(cells)
    return line.getvalue().removesuffix(end)


def more_cells(more: Mapping[str, np.ndarray]) -> Iterator[tuple[str, ...]]:
    """The cells of more columns, row by row.

    Examples
    --------
    >>> list(more_cells({"a": np.array([1.5, np.nan]), "b": np.array(["x", "y"])}))
    [('1.5', 'x'), ('', 'y')]
    """
    texts = (
        map(number_text if column.dtype.kind == "f" else str, column.tolist())
        for column in more.values()
    )
    return zip(*texts, strict=True)


def number_text(value: float) -> str:
    """A predicted number as a cell; nothing for NaN.

    Examples
    --------
    >>> number_text(0.5), number_text(float("nan"))
    ('0.5', '')
    """
    return "" if math.isnan(value) else f"{value:.10g}"
