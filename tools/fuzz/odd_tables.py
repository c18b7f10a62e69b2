"""Tables as people have them, and what may be wrong with them: CSV files and NumPy archives."""

from __future__ import annotations

import csv
import gzip
import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tools.fuzz.damage import damage_file

__all__ = ["draw_archive", "draw_text"]

CELLS = (
    "", " ", "NaN", "nan", "NA", "n/a", "null", "None", "inf", "-inf", "Infinity", "-nan",
    "1e999", "-1e999", "1e308", "-1e308", "5e-324", "1e-999", "0", "-0", "+5", ".5", "5.", "1e",
    "e5", "1_000", "1 000", "1,5", "1.5.2", "0x1A", "0b1", "1e5e5", "--1", "+-1", "\u22125",
    "\u0661\u0662", "\uff15", "\xa05", "5\xa0", "\u20075", "5\u200b", "\x0b5", "5\x0c", "\x1c5",
    "\x855", "true", "x", "#", "# 5", "%", "=1+1", "1d5", "1f", "1L", "1j", "nan(1)", "infinite",
    "1/2", "50%", "$5", "\u00bd", "'5'", '"', '""', '"5', '5"', '5"5', '"5" ', ' "5"', '"5"5',
    '"5""', "5\r", "\x1b[31m5", "\ufeff5", "\ufffd", "1" + "0" * 5000, "9" * 400,
    "0." + "3" * 3000, "1" * 200_000, "1e" + "9" * 500, "0" * 1000 + "7", str(2**53 + 1),
    str(2**63), "0.1" + "0" * 50 + "1", "2.2250738585072011e-308",
)  # fmt: skip
NAMES = (
    "", " ", "T", "p", "1", "nan", "T,p", "T;p", "T\tp", 'T"p', '"', "T\np", "#T", "\ufeffT",
    "T" * 1001, "n" * 200_000, "T\x1b[31m", "T\x85", "T\u2028", "$x_{$", "\u0394T [\xb0C]",
    "T" * 900, "_", "\\", "-", "--", "\U0001f600", "T\x00", "T\r",
)  # fmt: skip
ENCODINGS = "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "utf-7"
KINDS = (
    "<f8", ">f8", "<f4", "<f2", "<f16", "<i8", ">i4", "|i1", "|u1", "|b1", "<u8", "<c16", "<U3",
    "|S3", "<M8[s]", "|V8", "|O", "[('a', '<f8')]", "<f3", "f8", "<U99999999999", "", "<f8'",
    "\u00e9", "<f888",
)  # fmt: skip
SHAPES = (
    "(100000000000,)", "(12, 100000000000)", "(0, 1000000000000)", "(1000000000000, 0)", "(-3,)",
    "()", "(3,)", "(2, 6)", "(12, 1, 1)", "(4, 3)", "(99999999999999999999999,)", "(1e3,)",
    "(12L,)", "12", "(,)", "((12,),)", "(12,", "(True,)", "[12]", "(" + "1, " * 500 + "12)",
    "(" * 500 + ")" * 500, "(0,)",
)  # fmt: skip


def odd_name(rng: np.random.Generator, kept: list[str]) -> str:
    """A name that may be there, or is odd."""
    return str(rng.choice(kept)) if rng.random() < 0.5 else NAMES[rng.integers(len(NAMES))]


def draw_text(rng: np.random.Generator, path: Path) -> str:
    """Write a CSV file, mostly with something odd; return what was done."""
    separator = str(rng.choice([",", ";", "\t"], p=[0.6, 0.25, 0.15]))
    names = ["T", "p [MPa]", "rho", "q5", "note", "z"][: int(rng.integers(2, 7))]
    count = int(rng.integers(10, 40))
    numbers = rng.normal(size=(count, len(names))) * 10.0 ** rng.integers(-9, 9)
    style = str(rng.choice(["{:.6g}", "{:.17g}", "{:.3f}", "{:.0f}", " {:.4e} "]))
    rows = [[style.format(number) for number in row] for row in numbers]
    if "note" in names and rng.random() < 0.3:
        for row in rows:
            row[4] = str(rng.choice(["good", "a b", "x,y", 'he said "no"', "two\nlines", ""]))
    done = [f"{len(names)} columns, {count} rows, {separator!r} {style}"]
    for _ in range(int(rng.choice([0, 1, 2, 3, 5], p=[0.3, 0.4, 0.15, 0.1, 0.05]))):
        done.append(_edit_rows(rng, names, rows))
    quoting = int(rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, -1]))
    end = str(rng.choice(["\n", "\r\n", "\r"], p=[0.7, 0.2, 0.1]))
    text = _as_text([names, *rows], separator, quoting, end)
    if rng.random() < 0.25:
        text, told = _edit_text(rng, text, separator, end)
        done.append(told)
    encoding = str(rng.choice(ENCODINGS)) if rng.random() < 0.12 else "utf-8"
    content = text.encode(encoding, "replace")
    if rng.random() < 0.06:
        content, told = _other_kind(rng, content)
        done.append(told)
    path.write_bytes(content)
    if rng.random() < 0.15:
        done.append(damage_file(rng, path))
    return "; ".join([*done, f"quoting {quoting} {end!r} {encoding}"])


def _edit_rows(rng: np.random.Generator, names: list[str], rows: list[list[str]]) -> str:
    kind = str(rng.choice(
        ["cell", "cells", "column", "name", "short", "long", "blank", "swap", "drop", "many",
         "comment", "constant", "units", "double"],
        p=[0.3, 0.12, 0.08, 0.14, 0.06, 0.06, 0.05, 0.03, 0.03, 0.03, 0.03, 0.03, 0.02, 0.02],
    ))  # fmt: skip
    place, column = int(rng.integers(len(rows))), int(rng.integers(len(names)))
    odd = CELLS[rng.integers(len(CELLS))]
    row = rows[place]
    if kind in ("cell", "cells"):
        for _ in range(1 if kind == "cell" else int(rng.integers(2, 9))):
            row = rows[int(rng.integers(len(rows)))]
            row[column % max(len(row), 1) : column % max(len(row), 1) + 1] = [odd]
    elif kind in ("column", "constant", "double"):
        for other in rows:
            if kind == "double":
                other[column + 1 : column + 1] = other[column : column + 1]
            elif column < len(other):
                other[column] = odd if kind == "column" else "7"
        if kind == "double":
            names[column:column] = names[column : column + 1]
    elif kind == "name":
        names[column] = odd = odd_name(rng, names)
    elif kind == "short":
        del row[column:]
    elif kind == "long":
        row += [odd] * int(rng.integers(1, 4))
    elif kind == "blank":
        rows[place:place] = [[]] * int(rng.integers(1, 5))
    elif kind == "swap":
        rows[place], names[:] = list(names), list(row) or ["a"]
    elif kind == "drop":
        del rows[place:]
        rows += [[]] * (not rows)
    elif kind == "many":
        width = int(10.0 ** rng.uniform(2, 4))
        names += [f"c{k}" for k in range(width)]
        for other in rows:
            other += ["1"] * width
    elif kind == "comment":
        rows[place:place] = [["# a comment"]]
    elif kind == "units":
        rows[0:0] = [["kg"] * len(names)]
    return f"{kind} {place} {column} {odd[:20]!r}"


def _as_text(table: list[list[str]], separator: str, quoting: int, end: str) -> str:
    if quoting == -1:  # as it is
        return end.join(separator.join(row) for row in table) + end
    out = io.StringIO()
    form = {"delimiter": separator, "quoting": quoting, "lineterminator": end}
    writer = csv.writer(out, **form)
    writer.writerows(table)
    return out.getvalue()


def _edit_text(rng: np.random.Generator, text: str, separator: str, end: str) -> tuple[str, str]:
    """Edit characters, wherever they stand."""
    place = int(rng.integers(len(text)))
    kind = str(
        rng.choice(["insert", "cut", "other separator", "long line", "wide", "lead", "quotes"])
    )
    odd = str(
        rng.choice(
            ['"', "\0", "\n", "\r", separator, ";", ",", "\t", "'", "\x1a", "\u2028", "\ufeff"]
        )
    )
    if kind == "insert":
        text = text[:place] + odd * int(rng.choice([1, 1, 2, 3])) + text[place:]
    elif kind == "cut":
        text = text[:place]
    elif kind == "other separator":
        text = text[:place] + text[place:].replace(separator, odd)
    elif kind == "long line":
        text = (
            text[:place] + str(rng.choice(["1", "x", '"', " ", separator])) * 10**6 + text[place:]
        )
    elif kind == "wide":
        text = separator.join("ab") + separator * int(rng.choice([10**4, 10**6])) + end + text
    elif kind == "lead":
        text = (
            str(rng.choice([end * 3, " " + end, "\ufeff", "# made by hand" + end, "sep=;" + end]))
            + text
        )
    else:
        text = "".join(c + '"' * (rng.random() < 0.02) for c in text[:5000]) + text[5000:]
    return text, f"{kind} {odd!r} at {place}"


def _other_kind(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """The same table as another kind of file."""
    kind = str(rng.choice(["gzip", "zip", "npz", "npy", "pickle", "parquet", "twice"]))
    out = io.BytesIO()
    if kind == "gzip":
        content = gzip.compress(content)
    elif kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("xl/worksheets/sheet1.xml", content)
    elif kind == "npz":
        np.savez(out, T=np.arange(12.0), rho=np.arange(12.0) ** 2)
    elif kind == "npy":
        np.save(out, np.arange(12.0))
    elif kind == "pickle":
        content = b"\x80\x04" + content
    elif kind == "parquet":
        content = b"PAR1" + content + b"PAR1"
    else:
        content += content
    return out.getvalue() or content, kind


def draw_archive(rng: np.random.Generator, path: Path) -> str:
    """Write an .npz archive, mostly with something odd; return what was done."""
    rows = int(rng.integers(10, 20))
    arrays = {
        "T": rng.normal(size=rows),
        "x": rng.normal(size=(rows, 3)),
        "rho": rng.normal(size=rows),
    }
    kinds = ["<f8", ">f8", "<f4", "<f2", "|i1", "<i8", "<u8", "|b1", "<c16", "<U5", "<f16"]
    done = []
    for name in arrays:
        if rng.random() < 0.25:
            kind = str(rng.choice(kinds))
            with np.errstate(all="ignore"):
                arrays[name] = (100.0 * arrays[name]).astype(kind)
            done.append(f"{name} {kind}")
    if rng.random() < 0.2:
        odd = float(rng.choice([np.nan, np.inf, 1e308, -1e308, 5e-324]))
        arrays["T"] = arrays["T"].astype(float)
        arrays["T"][int(rng.integers(rows))] = odd
        done.append(f"T has {odd}")
    kinds = ["short", "scalar", "cube", "empty", "twin", "objects", "wide", "fortran"]
    more = str(rng.choice(["", *kinds], p=[0.6, *[0.05] * 8]))
    extra = {
        "short": np.ones(rows - 1), "scalar": np.float64(1.0), "cube": np.ones((rows, 2, 2)),
        "empty": np.ones((0, 3)), "twin": np.ones(rows), "objects": np.array([{}] * rows),
        "wide": np.ones((1, 30_000)), "fortran": np.asfortranarray(rng.normal(size=(rows, 2))),
    }  # fmt: skip
    if more:
        arrays["x0" if more == "twin" else "more"] = extra[more]
    write: Any = np.savez_compressed if rng.random() < 0.4 else np.savez
    with path.open("wb") as file:
        write(file, **arrays)
    done.append(more)
    chance = rng.random()
    if chance < 0.45:
        done.append(_edit_members(rng, path))
    elif chance < 0.6:
        done.append(damage_file(rng, path))
    elif chance < 0.65:
        path.write_bytes(_other_kind(rng, b"T,rho\n1,2\n")[0])
    elif chance < 0.8:
        done.append(_edit_directory(rng, path))
    return "; ".join(done)


def _edit_members(rng: np.random.Generator, path: Path) -> str:
    """Edit the header of an array, its name or how it is packed; checksums are right."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    kind = str(
        rng.choice(
            ["shape", "descr", "header", "length", "name", "packed", "bomb", "data", "other"]
        )
    )
    name = str(rng.choice(list(members)))
    content, told, packing = members.pop(name), "", zipfile.ZIP_DEFLATED
    start = 10 + int.from_bytes(content[8:10], "little")
    header, body = content[10:start].decode("latin-1"), content[start:]
    shape = header[header.index("(") : header.index(")") + 1]
    if kind == "shape":
        told = SHAPES[rng.integers(len(SHAPES))]
        header = header.replace(shape, told)
    elif kind == "descr":
        told = KINDS[rng.integers(len(KINDS))]
        before, _, after = header.partition(": ")
        header = f"{before}: {told if told[:1] == '[' else repr(told)}, {after.partition(', ')[2]}"
    elif kind == "header":
        told = str(
            rng.choice(
                ["{}", "", "{'descr'", "[" * 5000, "-" * 9000, header[:-9], header * 2, "{1: 2}"]
            )
        )
        header = told
    elif kind == "name":
        told = NAMES[rng.integers(len(NAMES) - 2)]  # zip has no names with NUL
        name = (told[:60_000] or "0") + str(rng.choice([".npy", "", ".txt", ".npy.npy"]))
    elif kind == "packed":
        packing = int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    elif kind == "bomb":
        count = int(rng.choice([10**6, 9 * 10**6]))
        header, body = header.replace(shape, f"({count},)"), bytes(8 * count)
    elif kind == "data":
        body = body[: int(rng.integers(len(body) + 1))] + b"1" * int(rng.integers(3))
    else:
        members["readme.txt"] = b"text"
    size = len(header.encode()) + int(rng.choice([-7, 9, 60_000])) * (kind == "length")
    members[name] = content[:8] + struct.pack("<H", size % 2**16) + header.encode() + body
    with zipfile.ZipFile(path, "w", packing) as archive:
        for other, data in members.items():
            archive.writestr(other, data)
    return f"{kind} of {name[:20]!r}: {told[:30]}"


def _edit_directory(rng: np.random.Generator, path: Path) -> str:
    """Edit a field of the archive's directory, or of the header before a member."""
    content = bytearray(path.read_bytes())
    mark = b"PK\x01\x02" if rng.random() < 0.7 else b"PK\x03\x04"
    places = [k for k in range(len(content)) if content[k : k + 4] == mark]
    fields = {
        "version": (6, 2), "flags": (8, 2), "method": (10, 2), "crc": (16, 4), "packed": (20, 4),
        "size": (24, 4), "name": (28, 2), "extra": (30, 2), "comment": (32, 2), "offset": (42, 4),
    }  # fmt: skip
    name = str(rng.choice(list(fields)))
    offset, width = fields[name]
    offset -= 2 * (mark == b"PK\x03\x04")
    place = places[int(rng.integers(len(places)))] + offset
    value = int(rng.choice([0, 1, 8, 12, 0xFF, 0xFFFF, 0xFFFFFFF, 0xFFFFFFFF])) % 256**width
    content[place : place + width] = value.to_bytes(width, "little")
    path.write_bytes(content)
    return f"{name} {value} at {place}"


def replace_by_device(rng: np.random.Generator, path: Path) -> str:
    """Put something that is not a file in the place of a table."""
    kind = str(rng.choice(["/dev/zero", "/dev/null", "/dev/random", "loop", "nowhere", "fifo"]))
    if path.is_dir():  # damaged to one
        path.rmdir()
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else kind)
    return kind
