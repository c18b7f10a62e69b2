"""Damage that any file may suffer: flipped bits, lost and doubled parts, other kinds of file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

__all__ = ["damage_file", "odd_number"]

ODD = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "0", "-1", "1e308", "5e-324", "99999999999",
    str(2**63), str(10**30), "0.5", "true", "null", '"x"', '""', "[]", "{}", "[[[[]]]]", '"1"',
)  # fmt: skip


def odd_number(rng: np.random.Generator) -> str:
    """A JSON value that fits few places."""
    return str(rng.choice(ODD))


def damage_file(rng: np.random.Generator, path: Path) -> str:
    """Damage a file in one of the ways; return what was done."""
    content = bytearray(path.read_bytes())
    kind = rng.choice(
        ["flip", "flips", "cut", "drop", "double", "zeros", "insert", "empty", "remove", "folder",
         "fifo", "garbage"],
        p=[0.3, 0.12, 0.12, 0.1, 0.08, 0.08, 0.08, 0.02, 0.02, 0.02, 0.02, 0.04],
    )  # fmt: skip
    n = max(len(content), 1)
    a, b = sorted(int(k) for k in rng.integers(0, n, 2))
    if kind in ("flip", "flips") and content:
        for _ in range(1 if kind == "flip" else int(rng.integers(2, 20))):
            place, bit = int(rng.integers(len(content))), int(rng.integers(8))
            content[place] ^= 1 << bit
    elif kind == "cut":
        del content[a:]
    elif kind == "drop":
        del content[a:b]
    elif kind == "double":
        content[b:b] = content[a:b]
    elif kind == "zeros":
        content[a:b] = bytes(b - a)
    elif kind == "insert":
        content[a:a] = rng.bytes(int(rng.integers(1, 50)))
    elif kind == "empty":
        content.clear()
    elif kind == "garbage":
        content = bytearray(rng.bytes(len(content)))
    if kind in ("remove", "folder", "fifo"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
    else:
        path.write_bytes(content)
    return f"{kind} {path.name} {a} {b}"
