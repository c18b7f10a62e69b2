"""Files of columns, opened: CSV text and NumPy archives."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mgnet.app.array_file import open_archive
from mgnet.app.named_columns import DataFile, shown
from mgnet.app.text_file import open_text

__all__ = ["open_data_file"]

HEAD = 2**16  # bytes that are looked at before the rest is read
LONGEST_PATH = 300  # that messages show


def open_data_file(path: str | Path) -> DataFile:
    r"""The columns of a CSV file (comma, semicolon or tab) or of an .npz archive.

    Parameters
    ----------
    path : str or Path
        Of an ordinary file: a pipe or a device might never end.

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
    _require_file(path)
    source = shown(str(path), LONGEST_PATH)
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".npz":
                return open_archive(source, file)
            content = file.read(HEAD)
            if b"\0" not in content:  # else it is no text, and may be larger than the memory
                file.seek(0)
                content = file.read()
    except PermissionError:
        raise PermissionError(f"{source} cannot be read: no permission") from None
    except OSError as error:
        raise OSError(f"{source} cannot be read ({error.strerror}); copy it elsewhere") from None
    except MemoryError:
        raise ValueError(f"{source} does not fit into the memory; split it") from None
    if not content or content.isspace():
        raise ValueError(f"{source} is empty; expected a line of column names, then rows")
    return open_text(source, content)


def _require_file(path: Path) -> None:
    source, expected = shown(str(path), LONGEST_PATH), "expected a CSV file or an .npz archive"
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{source} does not exist; {expected}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise OSError(f"{source} cannot be read ({reason}); {expected}") from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{source} is a folder; {expected}")
    if not stat.S_ISREG(mode):
        raise OSError(f"{source} is a pipe or a device, which may never end; write it to a file")
