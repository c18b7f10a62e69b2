"""A lock on the output folder, so that only one process writes; it ends with that process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["lock_file", "locked"]

_held: dict[tuple[int, Path], bool] = {}  # by thread


def lock_file(folder: Path, place: Path) -> Path:
    """The path of the lock file of a folder.

    Examples
    --------
    >>> lock_file(Path("results/out"), Path("results")).as_posix()
    'results/.out-mgnet-lock'
    """
    return place / f".{folder.name or 'mgnet'}-mgnet-lock"


@contextmanager
def locked(folder: Path, place: Path) -> Iterator[bool]:
    """Prevent other processes and threads from writing to a folder.

    The lock is an `flock`: it ends when the process ends, for whatever reason. Its file names the
    process and is removed at the end; a file that a killed process has left behind has no effect. A
    thread that has the lock may take it again.

    Parameters
    ----------
    folder : Path
        Folder, with no symbolic links in its path. The folder need not exist.
    place : Path
        An existing, writable folder for the lock file.

    Yields
    ------
    bool
        Whether the lock is exclusive; it is not on Windows and on file systems without locks.

    Raises
    ------
    BlockingIOError
        If another process has the lock.
    OSError
        If the lock file cannot be created.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root, locked(Path(root, "out"), Path(root)):
    ...     os.listdir(root)
    ['.out-mgnet-lock']
    """
    own = threading.get_ident(), folder
    if own in _held:
        yield _held[own]
        return
    file = lock_file(folder, place)
    stream, alone = _take(folder, file)
    _held[own] = alone
    try:
        yield alone
    finally:
        del _held[own]
        with suppress(OSError):
            if alone:  # before another process takes it
                file.unlink()
        os.close(stream)
        with suppress(OSError):
            if not alone:
                file.unlink(missing_ok=True)


def _take(folder: Path, file: Path) -> tuple[int, bool]:
    """A descriptor of the file, which is locked if the file system supports locks."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    while True:
        stream = os.open(file, flags, 0o666)
        try:
            alone = _lock(stream)
            there = os.stat(file)
        except BlockingIOError:
            holder = os.read(stream, 200).decode(errors="replace").strip()
            os.close(stream)
            raise BlockingIOError(
                f"{folder} is being written by another mgnet"
                f"{f' ({holder})' if holder else ''}; wait for it, or choose another --out"
            ) from None
        except FileNotFoundError:  # the previous holder has removed the file
            os.close(stream)
            continue
        if os.path.samestat(there, os.fstat(stream)):
            break
        os.close(stream)
    os.ftruncate(stream, 0)
    os.write(stream, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return stream, alone


def _lock(stream: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return False
    return True
