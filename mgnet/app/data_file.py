"""Files of columns: CSV text and NumPy archives, read without judging what the columns mean."""

from __future__ import annotations

import csv
import io
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

__all__ = ["ArrayFile", "DataFile", "TextFile", "open_data_file"]

SEPARATORS = ",;\t"
MISSING = {"", "na", "n/a", "nan", "null", "none"}


class DataFile(ABC):
    """Named columns of equal length.

    Attributes
    ----------
    source : str
        The file, for messages.
    names : tuple of str
        Of the columns; not empty, no name twice.
    """

    source: str
    names: tuple[str, ...]

    @abstractmethod
    def numbers(self, wanted: Sequence[str]) -> np.ndarray:
        """Columns as float64 of shape (rows, wanted), NaN where a cell is empty or says NaN.

        Raises
        ------
        ValueError
            If a cell of these columns is not a number, or if rows differ in length.
        """

    @abstractmethod
    def row_label(self, row: int) -> str:
        """Where a row stands in the file, in words."""

    @abstractmethod
    def with_column(self, name: str, column: np.ndarray) -> Iterator[str]:
        """Yield the file as CSV lines with one column more, empty where it is NaN."""


def open_data_file(path: str | Path) -> DataFile:
    r"""The columns of a CSV file (comma, semicolon or tab) or of an .npz archive.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    DataFile

    Raises
    ------
    OSError
        If there is no such file, or if it cannot be read.
    ValueError
        If it is empty, no text, no archive, has no header or two columns of one name.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "data.csv")
    ...     _ = path.write_text("T;p\n1;2\n3;\n")
    ...     file = open_data_file(path)
    >>> file.names, file.numbers(["p"]).ravel()
    (('T', 'p'), array([ 2., nan]))
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected a CSV file or an .npz archive")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a CSV file or an .npz archive")
    try:
        content = path.read_bytes()
    except PermissionError:
        raise PermissionError(f"{path} cannot be read: no permission") from None
    if not content.strip():
        raise ValueError(f"{path} is empty; expected a line of column names, then rows")
    return _open_archive(path) if path.suffix == ".npz" else _open_text(str(path), content)


# Text


def _open_text(source: str, content: bytes) -> TextFile:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{source} is not UTF-8 text: line {line} has the byte "
            f"0x{content[error.start]:02x}; save it as CSV in UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError(f"{source} has NUL bytes, so it is not a text file; save it as CSV")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    blank = len(text) - len(text.lstrip("\n"))
    header, _, body = text[blank:].partition("\n")
    separator = max(SEPARATORS, key=re.sub('"[^"]*"', "", header).count)
    names = tuple(name.strip() for name in next(csv.reader([header], delimiter=separator)))
    if all(_number(name) is not None for name in names):
        raise ValueError(
            f"{source} has no header: line {blank + 1} is '{header[:40]}'; write the names of the "
            "columns there"
        )
    for number, name in enumerate(names, 1):
        if not name:
            raise ValueError(
                f"{source}: column {number} has no name in line {blank + 1}; name it, or write the "
                "file without it if it only counts the rows"
            )
    _refuse_twins(source, names)
    return TextFile(source, names, separator, header, body, blank + 2)


def _refuse_twins(source: str, names: Sequence[str]) -> None:
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ValueError(
            f"{source} has {names.count(twins[0])} columns called '{twins[0]}'; names must differ, "
            "rename one"
        )


@dataclass(frozen=True, eq=False)
class TextFile(DataFile):
    r"""A CSV file.

    Parameters
    ----------
    source : str
    names : tuple of str
    separator : str
    header, body : str
        The first line, and everything below it.
    first : int
        Line number of the first row.

    Examples
    --------
    >>> file = TextFile("x.csv", ("a", "b"), ",", "a,b", "1,2\n3,4\n", 2)
    >>> list(file.with_column("c", np.array([5.0, 6.0])))
    ['a,b,c', '1,2,5', '3,4,6']
    """

    source: str
    names: tuple[str, ...]
    separator: str
    header: str = field(repr=False)
    body: str = field(repr=False)
    first: int = 2

    def numbers(self, wanted: Sequence[str]) -> np.ndarray:
        columns = [self.names.index(name) for name in wanted]
        if '"' not in self.body and self._is_even():
            try:
                return np.loadtxt(
                    io.StringIO(self.body),
                    delimiter=self.separator,
                    usecols=columns,
                    ndmin=2,
                    comments=None,
                ).reshape(-1, len(columns))
            except ValueError:
                pass  # read again, slowly, to find the cell
        return self._read_cells(columns)

    def _is_even(self) -> bool:
        """Whether all lines have as many separators as the header, and none is blank."""
        raw = np.frombuffer(f"{self.body.strip(chr(10))}\n".encode(), np.uint8)
        ends = np.flatnonzero(raw == ord("\n"))
        marks = np.flatnonzero(raw == ord(self.separator))
        per_line = np.diff(np.searchsorted(marks, ends), prepend=0)
        lengths = np.diff(ends, prepend=-1)
        return bool((per_line == len(self.names) - 1).all() and (lengths > 1).all())

    def _read_cells(self, columns: list[int]) -> np.ndarray:
        rows, bad, sample = [], 0, ""
        for line, cells in self._rows():
            if len(cells) != len(self.names):
                raise ValueError(
                    f"{self.source}: line {line} has {len(cells)} cells, but line "
                    f"{self.first - 1} names {len(self.names)} columns; rows must be complete"
                )
            row = []
            for column in columns:
                number = _number(cells[column])
                if number is None:
                    bad += 1
                    sample = sample or (
                        f"'{cells[column].strip()[:30]}' in line {line}, column "
                        f"'{self.names[column]}'"
                    )
                row.append(math.nan if number is None else number)
            rows.append(row)
        if bad:
            comma = "; decimal commas must become points" if "," in sample.split("'")[1] else ""
            raise ValueError(
                f"{self.source}: {bad} of {len(rows) * len(columns)} cells are not numbers, the "
                f"first is {sample}{comma}; correct them, or choose other columns"
            )
        return np.array(rows).reshape(-1, len(columns))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and cells of every row that is not blank."""
        reader = csv.reader(io.StringIO(self.body), delimiter=self.separator)
        line = self.first
        try:
            for cells in reader:
                if cells:
                    yield line, cells
                line = self.first + reader.line_num
        except csv.Error as error:
            raise ValueError(
                f"{self.source}: the row that begins in line {line} cannot be read ({error}); is a "
                "quote not closed there?"
            ) from None

    def row_label(self, row: int) -> str:
        for number, (line, _) in enumerate(self._rows()):
            if number == row:
                return f"line {line}"
        raise ValueError(f"{self.source} has no row {row}; rows count from 0")

    def with_column(self, name: str, column: np.ndarray) -> Iterator[str]:
        if '"' in self.body:
            rows = (_join(cells, self.separator) for _, cells in self._rows())
        else:
            rows = (line for line in self.body.split("\n") if line)
        yield f"{self.header}{self.separator}{_join([name], self.separator)}"
        for row, value in zip(rows, column, strict=True):
            yield f"{row}{self.separator}{_text(value)}"


def _number(cell: str) -> float | None:
    """The number in a cell; NaN if it is missing, None if the cell holds something else."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return math.nan
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _join(cells: Sequence[str], separator: str) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter=separator, lineterminator="").writerow(cells)
    return line.getvalue()


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.10g}"


# Archives


def _open_archive(path: Path) -> ArrayFile:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (BadZipFile, ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read as an .npz archive of plain arrays ({error}); write it with "
            "numpy.savez"
        ) from None
    columns: dict[str, np.ndarray] = {}
    names = []
    for name, array in arrays.items():
        parts = {name: array} if array.ndim == 1 else {}
        if array.ndim == 2:
            parts = {f"{name}{k}": array[:, k] for k in range(array.shape[1])}
        columns |= parts
        names += parts
    if not columns:
        raise ValueError(
            f"{path} has no array with 1 or 2 dimensions; expected 1-D columns, or a 2-D array x "
            "and a 1-D target"
        )
    _refuse_twins(str(path), names)
    return ArrayFile(str(path), tuple(names), columns)


@dataclass(frozen=True, eq=False)
class ArrayFile(DataFile):
    """An .npz archive: 1-D arrays by name, the columns of a 2-D array x as x0, x1 and so on.

    Parameters
    ----------
    source : str
    names : tuple of str
    columns : dict of str to array of shape (rows,)

    Examples
    --------
    >>> file = ArrayFile("x.npz", ("a", "b"), {"a": np.arange(2), "b": np.ones(2)})
    >>> list(file.with_column("c", np.array([5.0, 6.0])))
    ['a,b,c', '0,1,5', '1,1,6']
    """

    source: str
    names: tuple[str, ...]
    columns: dict[str, np.ndarray] = field(repr=False)

    def numbers(self, wanted: Sequence[str]) -> np.ndarray:
        for name in wanted:
            kind = self.columns[name].dtype
            if kind.kind not in "biuf":
                raise ValueError(
                    f"{self.source}: array '{name}' holds {kind}, not real numbers; convert it, or "
                    "choose other columns"
                )
        rows = {name: len(self.columns[name]) for name in wanted}
        if len(set(rows.values())) > 1:
            text = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise ValueError(
                f"{self.source}: arrays differ in length ({text}); every column needs one value "
                "per row"
            )
        return np.stack([self.columns[name].astype(float) for name in wanted], axis=1)

    def row_label(self, row: int) -> str:
        return f"row {row + 1}"

    def with_column(self, name: str, column: np.ndarray) -> Iterator[str]:
        kept = [
            other
            for other, values in self.columns.items()
            if values.shape == column.shape and values.dtype.kind in "biuf"
        ]
        yield _join([*kept, name], ",")
        for row in zip(*(self.columns[other] for other in kept), column, strict=True):
            yield ",".join(_text(float(value)) for value in row)
