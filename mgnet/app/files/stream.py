"""Read bytes from pipes, standard input and compressed files, with a limit on their number."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

__all__ = ["is_packed", "pipe_content", "standard_input", "unpacked"]

BLOCK = 2**20
MOST_FROM_PIPE = 2**30
# Bounds on the unpacked size of a file: a multiple of its size, and bytes in any case.
MOST_UNPACKED, ALWAYS_UNPACKED = 100, 2**26
MOST_MEMORY = 2**28  # bound on the memory for unpacking a file
PATIENCE = 0.5  # seconds within which a named pipe must have a writer
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}


def is_packed(start: bytes) -> bool:
    r"""Whether a file that begins with these bytes is compressed with gzip, bzip2 or xz.

    Examples
    --------
    >>> is_packed(gzip.compress(b"T,p")), is_packed(b"T,p\n1,2")
    (True, False)
    """
    return any(start.startswith(mark) for mark in PACKED)


def unpacked(source: str, file: IO[bytes]) -> bytes:
    r"""Unpack a compressed file.

    Parameters
    ----------
    source : str
        Name of the file in messages.
    file : binary file
        File at its start.

    Raises
    ------
    ValueError
        If the file is damaged, or unpacks to far more than its size.

    Examples
    --------
    >>> import io
    >>> unpacked("x.csv.gz", io.BytesIO(gzip.compress(b"T,p\n1,2\n")))
    b'T,p\n1,2\n'
    """
    start = file.read(6)
    kind = next(name for mark, name in PACKED.items() if start.startswith(mark))
    room = max(MOST_UNPACKED * file.seek(0, os.SEEK_END), ALWAYS_UNPACKED)
    file.seek(0)
    content = bytearray()
    try:
        for block in _blocks(kind, file):
            content += block
            if len(content) > room:
                raise ValueError(
                    f"{source} unpacks to more than {MOST_UNPACKED} times its size, and more than "
                    f"{ALWAYS_UNPACKED >> 20} MiB; unpack it with {kind} first"
                )
    except (zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:100] or "it ends too early"
        raise ValueError(
            f"{source} cannot be unpacked by {kind} ({reason}); compress it again"
        ) from None
    return bytes(content)


def _blocks(kind: str, file: IO[bytes]) -> Iterator[bytes]:
    if kind == "xz":
        yield from _xz_blocks(file)
        return
    opened = gzip.GzipFile(fileobj=cast(BinaryIO, file)) if kind == "gzip" else bz2.BZ2File(file)
    with opened as content:
        while block := content.read(BLOCK):
            yield block


def _xz_blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Unpack xz with a limit on memory, which Python's own file object does not have."""
    data = file.read(BLOCK)
    while data:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY)
        while not decoder.eof:
            if decoder.needs_input and not data and not (data := file.read(BLOCK)):
                raise EOFError("it ends too early")
            yield decoder.decompress(data, BLOCK)
            data = b""
        data = (decoder.unused_data + file.read(BLOCK)).lstrip(b"\0")  # the next stream


def standard_input() -> bytes:
    """Read all of standard input.

    Raises
    ------
    ValueError
        If standard input is a terminal, or if there is too much input.
    """
    stream = sys.stdin.buffer
    if sys.stdin.isatty():
        raise ValueError("standard input is a terminal; pipe a table into it, or name a file")
    return _whole("standard input", stream)


def pipe_content(source: str, path: Path) -> bytes:
    """Read all of a named pipe or a shell's `<(...)`.

    Parameters
    ----------
    source : str
        Name of the pipe in messages.
    path : Path
        Path of the pipe.

    Raises
    ------
    OSError
        If no process writes to the pipe.
    ValueError
        If there is too much input.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        end = time.monotonic() + PATIENCE
        start = pipe.read(BLOCK)
        while start == b"" and time.monotonic() < end:  # no writer; None means a slow writer
            time.sleep(0.01)
            start = pipe.read(BLOCK)
        if start == b"":
            raise OSError(f"{source} is a pipe without a writer; start its writer, too")
        os.set_blocking(pipe.fileno(), True)
        return _whole(source, pipe, start or b"")


def _whole(source: str, stream: IO[bytes], start: bytes = b"") -> bytes:
    content = bytearray(start)
    while block := stream.read(BLOCK):
        content += block
        if len(content) > MOST_FROM_PIPE:
            raise ValueError(
                f"{source} gives more than {MOST_FROM_PIPE >> 20} MiB and may never end; write it "
                "to a file"
            )
    return bytes(content)
