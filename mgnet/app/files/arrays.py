"""NumPy archives as files with columns; every size is checked before memory is allocated."""

from __future__ import annotations

import math
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from mgnet.app.files.columns import (
    Column,
    DataFile,
    check_names,
    listed,
    refuse_too_many,
    shown,
)
from mgnet.app.files.records import csv_line, more_cells

__all__ = ["ArrayFile", "open_archive"]

# Bounds on the unpacked size of an archive: a multiple of its size, and bytes in any case. Numbers
# count as doubles. A table that is compressed more can be written without compression.
MOST_UNPACKED, ALWAYS_UNPACKED = 100, 2**26
LONGEST_HEADER = 2**16
LAST_CODE, SURROGATES = 0x10FFFF, 0xD800 >> 11
BLOCK = 2**20  # bytes that are unpacked at once
NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f(2|4|8|12|16))")
TEXT_OR_DATES = re.compile(r"[<>|=]?([US][1-9]\d{0,8}|M8\[[A-Za-z0-9]{1,9}\])")
NO_NUMBERS = re.compile(r"[<>|=]?([cSUVa]\d{1,9}|[Mm]8(\[.*\])?|O\d?)|\[.*\]", re.DOTALL)
FIELD = re.compile(
    r"""\s*['"](descr|fortran_order|shape)['"]\s*:\s*"""
    r"""('[^']*'|"[^"]*"|True|False|\((?:\s*\d{1,20}L?\s*,?)*\s*\)|\[.*\])\s*(?:,|$)""",
    re.DOTALL,
)


def open_archive(source: str, file: IO[bytes]) -> ArrayFile:
    """Read the columns of an .npz archive.

    Parameters
    ----------
    source : str
        Name of the file in messages.
    file : binary file
        File that is open for reading.

    Returns
    -------
    ArrayFile
        Columns of the archive.

    Raises
    ------
    ValueError
        If the archive is damaged, contains Python objects or no columns, or unpacks to far more
        than its size.

    Examples
    --------
    >>> import io
    >>> np.savez(file := io.BytesIO(), x=np.ones((3, 2)), y=np.arange(3))
    >>> open_archive("data.npz", file).names
    ('x0', 'x1', 'y')
    """
    columns: dict[str, np.ndarray] = {}
    others: dict[str, str] = {}
    names: list[str] = []
    try:
        room = max(MOST_UNPACKED * file.seek(0, os.SEEK_END), ALWAYS_UNPACKED)
        with ZipFile(file) as archive:
            for info in archive.infolist():
                name, suffix = os.path.splitext(info.filename)
                if suffix != ".npy":
                    raise ValueError(f"it holds '{shown(info.filename)}', which is not an array")
                array, kind, shape = _read(archive, info, room)
                room -= 0 if array is None else max(8, array.itemsize) * array.size
                parts = _parts(name, shape)
                refuse_too_many(f"{source}: array '{shown(name)}'", len(names) + len(parts))
                names += parts
                if array is None:
                    others |= dict.fromkeys(parts, kind)
                elif parts:
                    columns |= zip(parts, array.T if array.ndim == 2 else [array], strict=True)
    except (
        *(BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, IndexError),
        *(NotImplementedError, RuntimeError, OverflowError, MemoryError),  # also from zipfile
    ) as error:
        reason = shown(" ".join(str(error).split()) or type(error).__name__, 200)
        raise ValueError(
            f"{source} cannot be read as an .npz archive of plain arrays ({reason}); write it with "
            "numpy.savez"
        ) from None
    if not names:
        raise ValueError(
            f"{source} has no array with 1 or 2 dimensions; expected 1-D columns, or a 2-D array x "
            "and a 1-D target"
        )
    check_names(source, names)
    return ArrayFile(source, tuple(names), columns, others)


def _parts(name: str, shape: Sequence[int]) -> Sequence[str]:
    if len(shape) == 2:
        refuse_too_many(f"array '{shown(name)}'", shape[1])
        return [f"{name}{k}" for k in range(shape[1])]
    return [name] if len(shape) == 1 else []


def _read(
    archive: ZipFile, info: ZipInfo, room: int
) -> tuple[np.ndarray | None, str, tuple[int, ...]]:
    """An array, its kind and its shape; the array is None if it does not consist of columns."""
    title = f"array '{shown(info.filename.removesuffix('.npy'))}'"
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{title} is compressed in another way than NumPy's arrays")
    with archive.open(info) as member:
        kind, rows_first, shape, start = _header(title, member)
        if kind.lstrip("<>|=").startswith("O"):
            raise ValueError(f"{title} holds Python objects")
        if not NUMBERS.fullmatch(kind) and not TEXT_OR_DATES.fullmatch(kind):
            return None, kind, shape
        try:
            dtype = np.dtype(kind)
        except TypeError:  # such as f12, which few machines support
            raise ValueError(f"{title} holds {kind}, which this machine does not support") from None
        count = math.prod(shape)
        if start + count * dtype.itemsize != info.file_size:
            raise ValueError(
                f"{title} of shape {_short(shape)} holds {info.file_size - start} bytes, not "
                f"{count * dtype.itemsize}"
            )
        if len(shape) > 2:
            return None, kind, shape
        if max(8, dtype.itemsize) * count > room:
            raise ValueError(
                f"{title} of shape {_short(shape)} is too large: an archive may unpack to "
                f"{MOST_UNPACKED} times its size, or {ALWAYS_UNPACKED >> 20} MiB, as doubles; a "
                "table that is compressed more must be stored without compression"
            )
        flat = np.empty(count, dtype)
        _fill(title, flat, member)
    if dtype.kind == "U":
        codes = flat.view(f"{dtype.str[0]}u4")
        if (codes > LAST_CODE).any() or (codes >> 11 == SURROGATES).any():
            raise ValueError(f"{title} contains codes that are not characters")
    return flat.reshape(shape, order="C" if rows_first else "F"), kind, shape


def _header(title: str, member: IO[bytes]) -> tuple[str, bool, tuple[int, ...], int]:
    """The kind, whether rows are contiguous, the shape, and the position of the first number."""
    start = member.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:7] not in (b"\1", b"\2", b"\3"):
        raise ValueError(f"{title} is not a NumPy array")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(member.read(width), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"{title} has a header of {length} bytes")
    text = member.read(length).decode("utf-8" if start[6] == 3 else "latin-1")
    inner = text.strip()
    told: dict[str, str] = {}
    place, end = 1, len(inner) - 1
    while inner[:1] + inner[-1:] == "{}" and (found := FIELD.match(inner, place, end)):
        told[found[1]] = found[2]
        place = found.end()
    if len(told) != 3 or inner[place:end].strip() or told["fortran_order"] not in ("True", "False"):
        raise ValueError(f"{title} has a damaged header")
    kind = told["descr"]
    kind = kind[1:-1] if kind[0] in "'\"" else kind
    if not NUMBERS.fullmatch(kind) and not NO_NUMBERS.fullmatch(kind):
        raise ValueError(f"{title} holds '{shown(kind)}', which is unknown to NumPy")
    shape = tuple(int(number) for number in re.findall(r"\d+", told["shape"]))
    return shown(kind), told["fortran_order"] == "False", shape, 8 + width + length


def _fill(title: str, flat: np.ndarray, member: IO[bytes]) -> None:
    """Read the numbers of a member in blocks, up to its end, where its checksum is verified."""
    raw, place = flat.view(np.uint8), 0
    while block := member.read(BLOCK):
        if place + len(block) > len(raw):
            raise ValueError(f"{title} contains more bytes than stated")
        raw[place : place + len(block)] = np.frombuffer(block, np.uint8)
        place += len(block)
    if place < len(raw):
        raise ValueError(f"{title} holds {place} bytes, not {len(raw)}")


def _short(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"


@dataclass(frozen=True, eq=False)
class ArrayFile(DataFile):
    """An .npz archive: 1-D arrays by name; the columns of a 2-D array x are x0, x1 and so on.

    Parameters
    ----------
    source : str
        Name of the file in messages.
    names : tuple of str
        Names of all columns.
    columns : dict of str to array of shape (rows,)
        Columns with real numbers, text or dates.
    others : dict of str to str
        Contents of the other columns, for messages.

    Examples
    --------
    >>> file = ArrayFile("x.npz", ("a", "b"), {"a": np.arange(2), "b": np.ones(2)})
    >>> list(file.with_columns({"c": np.array([5.0, 6.0])}))
    ['a,b,c', '0,1,5', '1,1,6']
    """

    source: str
    names: tuple[str, ...]
    columns: dict[str, np.ndarray] = field(repr=False)
    others: dict[str, str] = field(default_factory=dict, repr=False)

    def column(self, name: str) -> Column:
        if name in self.others:
            raise ValueError(
                f"{self.source}: array '{shown(name)}' holds {self.others[name]}; expected "
                "numbers, text or dates, convert it or choose other columns"
            )
        values = self.columns[name]
        kind = values.dtype.kind
        if kind == "M":
            return Column(name, "date", self._dates(name))
        if kind in "US":
            return Column(name, "text", self._text(name))
        with np.errstate(over="ignore"):
            return Column(name, "boolean" if kind == "b" else "number", values.astype(float))

    def _dates(self, name: str) -> np.ndarray:
        values = self.columns[name]
        dates = values.astype("datetime64[us]")
        finer = np.datetime_data(values.dtype)[0] in ("ns", "ps", "fs", "as")  # these always fit
        if not finer and (dates.astype(values.dtype) != values)[~np.isnat(values)].any():
            raise ValueError(
                f"{self.source}: array '{shown(name)}' has dates beyond the year 290000; correct "
                "them, or choose other columns"
            )
        return dates

    def _text(self, name: str) -> np.ndarray:
        try:
            text = [
                value.decode() if isinstance(value, bytes) else value
                for value in self.columns[name].tolist()
            ]
        except ValueError:
            raise ValueError(
                f"{self.source}: array '{shown(name)}' holds bytes that are not text; convert "
                "it, or choose other columns"
            ) from None
        return np.array([value or None for value in text], dtype=object)

    def numbers(self, wanted: Sequence[str]) -> np.ndarray:
        bad = [
            f"'{shown(name)}' holds {self.others.get(name) or self.columns[name].dtype.str}"
            for name in wanted
            if name in self.others or self.columns[name].dtype.kind in "USM"
        ]
        if bad:
            raise ValueError(
                f"{self.source}: {'array' if len(bad) == 1 else 'arrays'} {listed(bad)}, not real "
                "numbers; convert, or choose other columns"
            )
        rows = [len(self.columns[name]) for name in wanted]
        if len(set(rows)) > 1:
            text = listed([f"{name} {count}" for name, count in zip(wanted, rows, strict=True)])
            raise ValueError(
                f"{self.source}: arrays differ in length ({text}); every column needs one value "
                "per row"
            )
        numbers = np.empty((rows[0], len(wanted)))
        with np.errstate(over="ignore"):  # numbers of more than double precision
            for place, name in enumerate(wanted):
                numbers[:, place] = self.columns[name]
        return numbers

    def row_label(self, row: int) -> str:
        return f"row {row + 1}"

    def with_columns(self, more: Mapping[str, np.ndarray]) -> Iterator[str]:
        rows = len(next(iter(more.values())))
        kept = [other for other, values in self.columns.items() if len(values) == rows]
        yield csv_line([*kept, *more], ",")
        there = zip(*(self.columns[other] for other in kept), strict=True)
        for row, cells in zip(there, more_cells(more), strict=True):
            yield csv_line([*map(_exactly, row), *cells], ",")


def _exactly(value: Any) -> str:
    """A value as text; a number has exactly the digits that determine it."""
    if isinstance(value, np.datetime64):
        return "" if np.isnat(value) else str(value)
    if isinstance(value, np.bytes_):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.str_):
        return str(value)
    number = value.item() if value.dtype.kind in "biu" else float(value)
    if number != number:
        return ""
    return str(int(number) if isinstance(number, bool) else number).removesuffix(".0")
