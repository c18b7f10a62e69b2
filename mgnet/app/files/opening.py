"""Open files with columns: text (compressed or not), NumPy archives, Parquet, Excel."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

from mgnet.app.files.arrays import open_archive
from mgnet.app.files.columns import DataFile, shown
from mgnet.app.files.stream import is_packed, pipe_content, standard_input, unpacked
from mgnet.app.files.text import open_text

__all__ = ["open_data_file"]

HEAD = 2**16  # bytes that are examined before the rest is read
LONGEST_PATH = 300  # of a path in messages
ZIP, PARQUET, OLD_EXCEL = b"PK\x03\x04", b"PAR1", b"\xd0\xcf\x11\xe0"
EXPECTED = "expected a CSV, .npz, Parquet or Excel file"


def open_data_file(path: str | Path, decimal: str | None = None) -> DataFile:
    r"""Open a text file in any dialect, an .npz archive, a Parquet or an Excel file.

    Parameters
    ----------
    path : str or Path
        Path of a file or a pipe; "-" is standard input. Devices, which may never end, are refused.
    decimal : "." or ",", optional
        Decimal mark of a text file, if the file itself does not make it clear.

    Returns
    -------
    DataFile
        Columns of the file.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If the file is empty, of an unknown kind or without a header, or has two columns of the same
        name.
    ImportError
        If the library for Parquet or Excel is not installed.

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
    source = "standard input" if path == Path("-") else shown(str(path), LONGEST_PATH)
    is_pipe = path != Path("-") and _is_pipe(path)
    try:
        if path == Path("-"):
            return _open(source, io.BytesIO(standard_input()), "", decimal)
        if is_pipe:
            return _open(source, io.BytesIO(pipe_content(source, path)), "", decimal)
        with path.open("rb") as file:
            return _open(source, file, path.suffix.lower(), decimal)
    except PermissionError:
        raise PermissionError(f"{source} cannot be read: no permission") from None
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(f"{source} cannot be read ({error.strerror}); copy it elsewhere") from None
    except MemoryError:
        raise ValueError(f"{source} does not fit into the memory; split it") from None


def _is_pipe(path: Path) -> bool:
    """Whether a path is a pipe and not a regular file; anything else is refused."""
    source = shown(str(path), LONGEST_PATH)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{source} does not exist; {EXPECTED}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise OSError(f"{source} cannot be read ({reason}); {EXPECTED}") from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{source} is a folder; {EXPECTED}")
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise OSError(f"{source} is a device, which may never end; write it to a file")
    return stat.S_ISFIFO(mode)


def _open(
    source: str, file: IO[bytes], suffix: str, decimal: str | None, packed: bool = False
) -> DataFile:
    start = file.read(HEAD)
    file.seek(0)
    if suffix == ".npz":
        return open_archive(source, file)
    if start.startswith(PARQUET):
        from mgnet.app.files.parquet import open_parquet

        return open_parquet(source, file)
    if start.startswith(ZIP):
        return _open_zip(source, file)
    if start.startswith(OLD_EXCEL):
        raise ValueError(f"{source} is an old spreadsheet; save it as .xlsx or CSV")
    if is_packed(start) and not packed:
        return _open(source, io.BytesIO(unpacked(source, file)), "", decimal, packed=True)
    if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return open_text(source, start)  # is refused; the rest may exceed the memory
    content = file.read()
    if not content or content.isspace():
        raise ValueError(f"{source} is empty; expected a line of column names, then rows")
    return open_text(source, content, decimal)


def _open_zip(source: str, file: IO[bytes]) -> DataFile:
    try:
        with ZipFile(file) as archive:
            members = archive.namelist()
    except (BadZipFile, OSError, ValueError, NotImplementedError, OverflowError, IndexError):
        raise ValueError(f"{source} is a damaged zip archive; {EXPECTED}") from None
    file.seek(0)
    if "xl/workbook.xml" in members:
        from mgnet.app.files.excel import open_excel

        return open_excel(source, file)
    if members and all(name.endswith(".npy") for name in members):
        return open_archive(source, file)
    what = "an OpenDocument file" if "mimetype" in members else "a zip archive"
    remedy = "save it as .xlsx or CSV" if "mimetype" in members else "unpack it first"
    raise ValueError(f"{source} is {what}; {remedy}")
