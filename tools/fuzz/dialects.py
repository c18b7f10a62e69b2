"""Text tables of all dialects, damaged: each number is that of its own cell, or it is refused.

The oracle knows the dialect that a table was written in. Whatever is read of the damaged text must
be Python's own `float` of the cell that stands in that line and column, and every line that the
damage has left alone must be read. A table that is not damaged must be read.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import math
import re
from pathlib import Path

import numpy as np

from mgnet.app.files.columns import DataFile
from mgnet.app.files.opening import open_data_file
from mgnet.app.files.text import open_text
from tools.fuzz.odd_tables import CELLS

__all__ = ["Fuzzer"]

WORDS = "", "NA", "N/A", "#N/A", "NaN", "null", "None", "?", "-", ".", "missing", "#DIV/0!", "#REF!"
ODD = [cell for cell in CELLS if len(cell) < 40] + [
    *("1,234", "1.234", "-12,345", "1,234,567", "1.234.567", "1.234,5", "1,234.5", "0,5", "0.5"),
    *("1,5", "1.5", "7", "1e3", "#5", "K", "Smp", "[K]", "TOA5", "sep=;", *WORDS),
]
PIECES = [",", ";", "\t", " ", ".", '"', "#", "\n", "\n\n", "0", "7", "-", "e", "K", "x", "\r", "'"]
PIECES += ["#c\n", "\n# c, d; e f\n", "\nsep=;\n", "  ", ",,", "1,5", "\u00b0", "\ufeff", "\xa0"]
PACK = {"": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
DECISIVE = re.compile(
    r"[+-]?(?!\d{1,3},\d{3}(?!\d))(?:\d+,\d*|,\d+)(?:[eE][+-]?\d+)?|[+-]?\d+(?:\.\d{3})+,\d*"
)


class Fuzzer:
    """Opens, reads, and writes with a column more."""

    refusals = ValueError, OSError

    def prepare(self, folder: Path) -> None:
        (folder / "ready").touch()

    def draw(self, rng: np.random.Generator, folder: Path) -> str:
        table = _Table(rng)
        text, told = table.text(), []
        for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.2, 0.4, 0.25, 0.15]))):
            text, done = _damaged(rng, text, table.separator)
            told.append(done)
        encoding = str(rng.choice(["utf-8", "utf-8-sig", "utf-16"], p=[0.8, 0.1, 0.1]))
        packing = str(rng.choice(list(PACK), p=[0.85, 0.05, 0.05, 0.05]))
        ends = str(rng.choice(["\n", "\r\n", "\r"], p=[0.7, 0.2, 0.1]))
        content = text.replace("\n", ends).encode(encoding)
        (folder / "table.csv").write_bytes(PACK[packing](content))
        truth = {
            "text": text.replace("\n", ends).replace("\r\n", "\n").replace("\r", "\n"),
            "body": table.body,
            "separator": table.separator,
            "decimal": table.decimal,
            "names": table.names,
            "whole": not told,
        }
        (folder / "truth.json").write_text(json.dumps(truth))
        return f"{table.style} {packing} {encoding} {ends!r}; {told}"[:600]

    def use(self, folder: Path) -> bool:
        truth = json.loads((folder / "truth.json").read_text())
        try:
            file = open_data_file(folder / "table.csv")
            right = _is_right(file, truth)
        except (ValueError, OSError) as error:
            sentence = str(error)
            if not sentence.isprintable() or len(sentence) > 700 or "table.csv" not in sentence:
                raise RuntimeError("the refusal is not a sentence of mgnet") from error
            if truth["whole"]:
                raise RuntimeError("a good table is refused") from error
            raise
        return right


class _Table:
    """A table in some dialect."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.separator = str(rng.choice([",", ";", "\t", " "], p=[0.35, 0.25, 0.15, 0.25]))
        self.decimal = str(rng.choice([".", ","]))
        width, rows = int(rng.integers(2, 7)), int(rng.integers(6, 40))
        names = ["T", "p", "rho", "q5", "note", "z"][:width]
        if self.separator != " " and rng.random() < 0.3:
            names[1] = "p [MPa]"
        form = str(rng.choice(["{:.6g}", "{:.17g}", "{:.2f}", "{:.4e}", "{:.1f}"]))
        scale = 10.0 ** rng.integers(-3, 4)
        table = [[form.format(v) for v in row] for row in scale * rng.normal(size=(rows, width))]
        table[int(rng.integers(rows))][0] = "0.5"  # decides on the mark
        if width > 4 and rng.random() < 0.6:
            for row in table:
                row[4] = str(rng.choice(["good", "bad", "so-so", "x1"]))
        table = [[cell.replace(".", self.decimal) for cell in row] for row in table]
        if rng.random() < 0.3:
            for _ in range(int(rng.integers(1, 5))):
                row = table[int(rng.integers(1, rows))]
                row[int(rng.integers(1, width))] = self._missing(rng)
        self.names, self.gap = names, " " * int(rng.integers(1, 4))
        self.quoted = bool(self.separator != " " and rng.random() < 0.2)
        self.head, self.style = self._drawn_head(rng, width)
        self.body = [self._line(row, rng) for row in table]

    def _missing(self, rng: np.random.Generator) -> str:
        words = [word for word in WORDS if word or self.separator != " "]
        return str(rng.choice(words))

    def _line(self, cells: list[str], rng: np.random.Generator | None = None) -> str:
        if self.separator == " ":
            pad = 10 if len(self.gap) == 3 and rng is not None else 0
            return self.gap.join(cell.rjust(pad) for cell in cells)
        if self.quoted or any(self.separator in cell for cell in cells):
            return self.separator.join(f'"{cell}"' for cell in cells)
        return self.separator.join(cells)

    def _drawn_head(self, rng: np.random.Generator, width: int) -> tuple[list[str], str]:
        names = self._line(self.names)
        kinds = ["plain", "units", "comments", "hash", "sep", "logger", "title"]
        kind = str(rng.choice(kinds))
        units = self._line((["K", "bar", "kg/m3", "[m]", "-", "s"])[:width])
        if kind == "units":
            return [names, units], kind
        if kind == "comments":
            return ["# by hand, in May", "#", names], kind
        if kind == "hash":
            return ["# by hand", f"# {names}".replace('"', "")], kind
        if kind == "sep" and self.separator != " ":
            return [f"sep={self.separator}", names], kind
        if kind == "logger" and self.separator == ",":
            smp = self._line((["Smp", "Avg", "", "Max", "", "Smp"])[:width])
            return ['"TOA5","x","CR1000"', names, units, smp], kind
        if kind == "title" and self.separator != " ":
            return ["A title", "", names], kind
        return [names], "plain"

    def text(self) -> str:
        return "\n".join([*self.head, *self.body]) + "\n"


def _damaged(rng: np.random.Generator, text: str, separator: str) -> tuple[str, str]:
    kind = str(rng.choice(["cell", "insert", "delete", "replace", "line", "cut", "twice", "lose"]))
    place = int(rng.integers(len(text))) if text else 0
    piece = str(rng.choice(PIECES))
    lines = text.split("\n")
    at = int(rng.integers(len(lines)))
    if kind == "cell":
        cells = lines[at].split(separator)
        piece = ODD[int(rng.integers(len(ODD)))]
        cells[int(rng.integers(len(cells)))] = piece
        lines[at] = separator.join(cells)
        return "\n".join(lines), f"cell {piece!r} in line {at + 1}"
    if kind == "insert":
        return text[:place] + piece + text[place:], f"insert {piece!r} at {place}"
    if kind == "delete":
        return text[:place] + text[place + 1 :], f"delete at {place}"
    if kind == "replace":
        return text[:place] + piece + text[place + 1 :], f"replace by {piece!r} at {place}"
    if kind == "line":
        return "\n".join([*lines[:at], piece, *lines[at:]]), f"line {piece!r} before {at + 1}"
    if kind == "twice":
        return "\n".join([*lines[:at], lines[at], *lines[at:]]), f"line {at + 1} twice"
    if kind == "lose":
        return "\n".join([*lines[:at], *lines[at + 1 :]]), f"line {at + 1} lost"
    return text[:place], f"cut at {place}"


def _is_right(file: DataFile, truth: dict) -> bool:
    lines = truth["text"].removeprefix("\ufeff").split("\n")
    separator, decimal = truth["separator"], truth["decimal"]
    header = _cells(lines, file.dialect.header, separator)  # type: ignore[attr-defined]
    header = [name.strip() for name in header]
    header[0] = header[0].lstrip("# \t").strip() or header[0]
    if separator == " " and header[0] == "#":
        del header[0]
    sure = any(
        DECISIVE.fullmatch(cell.strip())
        for number in range(1, len(lines) + 1)
        for cell in _cells(lines, number, separator)
    )
    read = 0
    for name in (name for name in truth["names"] if name in file.names):
        try:
            numbers = file.numbers([name])[:, 0]
        except ValueError:
            if truth["whole"] and name != "note":
                raise
            continue
        if len(numbers) < 3 and not truth["whole"]:
            raise ValueError("table.csv has too few rows to know another dialect from damage")
        read += 1
        where = [int(file.row_label(row).split()[-1]) for row in range(len(numbers))]
        if name not in header or not _all_read(lines, where, truth["body"], file):
            return False
        place = header.index(name)
        for number, line in zip(numbers, where, strict=True):
            cells = _cells(lines, line, separator)
            cell = cells[place].strip() if place < len(cells) else "no cell"
            if not _same(number, cell, decimal, sure):
                return False
    if not read:
        raise ValueError("table.csv has no column that is read")
    return _writes(file, truth)


def _all_read(lines: list[str], where: list[int], body: list[str], file: DataFile) -> bool:
    """Whether every line that is as it was has been read, but for lines within a quoted cell."""
    kept, read = set(body), set(where)
    last = file.dialect.first  # type: ignore[attr-defined]
    left = [k for k, line in enumerate(lines, 1) if k >= last and line in kept and k not in read]
    return not left or any('"' in lines[k - 2] for k in left)


def _cells(lines: list[str], line: int, separator: str) -> list[str]:
    if separator == " ":
        return [word.strip('"') for word in re.split("[ \t]+", lines[line - 1].strip(" \t"))]
    rest = (f"{text}\n" for text in lines[line - 1 :])
    return next(csv.reader(rest, delimiter=separator), [""]) or [""]


def _same(number: float, cell: str, decimal: str, sure: bool) -> bool:
    if math.isnan(number):
        return cell.lower() in {word.lower() for word in WORDS} | MORE or _float(cell) != number
    if decimal == "," and sure:
        return "." not in cell and _float(cell.replace(",", ".")) == number
    return _float(cell) == number or (sure and _float(cell.replace(",", ".")) == number)


MORE = {"n/a", "nan", "-nan", "null", "none", "#n/a", "--", "---", "\\n", "#value!"}


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _writes(file: DataFile, truth: dict) -> bool:
    """Whether the table with a column more is the same table, and has this column."""
    try:
        rows = len(file.column(file.names[0]).values)
    except ValueError:
        return True
    new = np.arange(rows) / 4 + 0.5
    lines = list(file.with_columns({"new one": new}))
    try:
        again = open_text("table.csv", "\n".join(lines).encode())
        found = again.numbers(["new one"])[:, 0]
    except (ValueError, KeyError):  # a head or a comment alone may be ambiguous
        return not truth["whole"] and (not rows or any(line.startswith("#") for line in lines))
    return bool(np.array_equal(found, new))
