"""Replace a folder, or the model in it, with another in a single step."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["bring_back", "discard", "exchange", "kept_aside", "put", "replace_pair", "sync"]

JSON, WEIGHTS = "model.json", "model.safetensors"
SHOWN = ("report.md", "edges.png", "convergence.png", "inputs.png", "fit.png")
ASIDE = re.compile(r"model-[0-9a-f]{16}\.safetensors")  # see `kept_aside`
MARK, FORMER = "-unfinished-", ".former"
HERE, SWAP = -100, 2  # AT_FDCWD, and both systems' number for an exchange


def exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders with one system call (Linux, macOS).

    Parameters
    ----------
    one, other : Path
        Folders on one file system, neither inside the other.

    Raises
    ------
    OSError
        If the system, the file system or the permissions do not allow it; nothing is changed then.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     a, b = Path(root, "a"), Path(root, "b")
    ...     a.mkdir(), b.mkdir(), (a / "file").touch()
    ...     try:
    ...         exchange(a, b)
    ...         os.listdir(b)
    ...     except OSError:  # of a system that cannot
    ...         os.listdir(a)
    (None, None, None)
    ['file']
    """
    system = ctypes.CDLL(None, use_errno=True) if sys.platform != "win32" else object()
    swap, names = ctypes.c_uint(SWAP), (os.fsencode(one), os.fsencode(other))
    if rename := getattr(system, "renameat2", None):
        failed = rename(HERE, names[0], HERE, names[1], swap)
    elif rename := getattr(system, "renamex_np", None):
        failed = rename(*names, swap)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def kept_aside(digest: str) -> str:
    """The name of new weights while the usual name still belongs to those of another model.

    Examples
    --------
    >>> kept_aside("0123456789abcdef0123456789abcdef")
    'model-0123456789abcdef.safetensors'
    """
    return f"model-{digest[:16]}.safetensors"


def replace_pair(weights: Path, told: Path, folder: Path) -> None:
    """Move new weights and their JSON file into a folder, replacing an earlier pair.

    The JSON file contains the digest of its weights. The weights are first given a name with this
    digest, and their usual name once the JSON file is in place. The weights that belong to the JSON
    file are thus next to it at every moment, under one of the two names.

    Parameters
    ----------
    weights, told : Path
        Files on the file system of the folder.
    folder : Path
        Folder to move them to.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     _ = Path(root, "a").write_bytes(b"weights"), Path(root, "b").write_text("{}")
    ...     replace_pair(Path(root, "a"), Path(root, "b"), Path(root))
    ...     sorted(os.listdir(root))
    ['model.json', 'model.safetensors']
    """
    aside = folder / kept_aside(hashlib.sha256(weights.read_bytes()).hexdigest())
    try:
        weights.replace(aside)
        told.replace(folder / JSON)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # the model is complete under the other name, too
        aside.replace(folder / WEIGHTS)


def put(stage: Path, target: Path) -> None:
    """Move a folder to a path, and replace the folder that is there, if any.

    Files in the old folder that `mgnet fit` did not write are moved to the new one. If the system
    cannot exchange these two folders, or a folder inside the old one cannot be moved, files are
    moved individually (see `replace_pair`).

    Parameters
    ----------
    stage : Path
        Folder next to the target, or inside it. Afterwards it is removed, or contains the old
        output.
    target : Path
        Folder to replace.

    Raises
    ------
    OSError
        If nothing has changed; with `errno` None if the model was replaced but a report is missing.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     Path(root, "stage").mkdir()
    ...     put(Path(root, "stage"), Path(root, "out"))
    ...     os.listdir(root)
    ['out']
    """
    if not target.is_dir():
        stage.rename(target)
    else:
        here = Path(os.path.realpath("."))
        inside = stage.parent == target or here == target or target in here.parents
        if inside or not all(map(_can_move, _others(target))):
            _put_inside(stage, target)
        else:
            _link_others(target, stage)
            try:
                exchange(stage, target)
            except OSError:
                _put_inside(stage, target)
            else:
                bring_back(stage, target, newer=True)
    sync(target.parent)


def _others(folder: Path) -> Iterator[Path]:
    """Files and folders in a folder that mgnet did not write."""
    for path in folder.iterdir():
        ours = path.name in (JSON, WEIGHTS, *SHOWN, FORMER) or ASIDE.fullmatch(path.name)
        if not ours and not (path.name.startswith(".") and MARK in path.name):
            yield path


def _can_move(path: Path) -> bool:
    """Whether a user's file or folder can be moved to another folder."""
    if path.is_symlink() or not path.is_dir():
        return True
    return os.access(path, os.W_OK) and not os.path.ismount(path)


def _link_others(target: Path, stage: Path) -> None:
    """Link the user's files into the stage, so that they never disappear.

    A folder cannot have two names, so a symbolic link to its future position stands for it.
    """
    for path in _others(target):
        with suppress(OSError, NotImplementedError):  # a file system without links
            if path.is_symlink() or not path.is_dir():
                os.link(path, stage / path.name, follow_symlinks=False)
            else:
                os.symlink(Path("..", stage.name, path.name), stage / path.name)


def _stands_in(path: Path) -> bool:
    return path.is_symlink() and MARK in os.readlink(path) and os.readlink(path)[:2] == ".."


def bring_back(former: Path, target: Path, newer: bool = False) -> None:
    """Move files and folders that mgnet did not write from an old folder to its replacement.

    Parameters
    ----------
    former, target : Path
        Old folder, and its replacement.
    newer : bool
        Whether to keep the file of the old folder if both folders have one of the same name.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     a, b = Path(root, "a"), Path(root, "b")
    ...     a.mkdir(), b.mkdir(), (a / "notes.txt").touch(), (a / "model.json").touch()
    ...     bring_back(a, b)
    ...     os.listdir(b)
    (None, None, None, None)
    ['notes.txt']
    """
    for path in _others(former) if former.is_dir() else ():
        there = target / path.name
        with suppress(OSError):  # it stays in place, and `discard` keeps it
            if _stands_in(path):
                path.unlink()
            elif _stands_in(there):
                exchange(path, there)
                path.unlink()
            elif not os.path.lexists(there):
                path.rename(there)
            elif path.is_symlink() or not path.is_dir():
                if newer and not os.path.samestat(path.lstat(), there.lstat()):
                    path.replace(there)
                path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a file or a folder that mgnet wrote; a folder with other files is kept.

    Parameters
    ----------
    path : Path
        File or folder to remove.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     (Path(root, "a")).touch()
    ...     discard(Path(root, "a"))
    ...     os.listdir(root)
    []
    """
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif not any(_others(path)):
        shutil.rmtree(path, ignore_errors=True)


def _put_inside(stage: Path, target: Path) -> None:
    """Replace a folder file by file: remove the old report, exchange the model, add a report."""
    inside = target / stage.name
    try:
        if stage.parent != target:
            _move_into(stage, inside)
        moved = _put_aside([target / name for name in SHOWN], inside / FORMER)
        try:
            _put_model(inside, target)
        except OSError:
            for path in moved:
                path.rename(target / path.name)
            raise
        try:
            for name in SHOWN:
                if (inside / name).exists():
                    (inside / name).replace(target / name)
        except OSError as error:
            raise OSError(
                f"the model in {target} is the new one, but its report cannot be moved there "
                f"({error.strerror}); repeat the fit for it"
            ) from None
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def _move_into(stage: Path, inside: Path) -> None:
    for path in _others(stage):
        path.unlink()  # a link to an entry of the target
    try:
        stage.rename(inside)
    except OSError:  # a mount point
        inside.mkdir()
        for path in stage.iterdir():
            shutil.copyfile(path, inside / path.name)
            sync(inside / path.name)


def _put_aside(paths: list[Path], folder: Path) -> list[Path]:
    """Move those of these files that exist; return their new paths."""
    folder.mkdir()
    for path in paths:
        if path.exists():
            path.rename(folder / path.name)
    return list(folder.iterdir())


def _put_model(inside: Path, target: Path) -> None:
    told, weights = inside / JSON, inside / WEIGHTS
    if told.exists() and weights.exists():
        replace_pair(weights, told, target)
        return
    for path in (weights, told):
        if path.exists():
            path.replace(target / path.name)
        else:
            (target / path.name).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk, if the system supports this.

    Examples
    --------
    >>> sync(Path("."))
    """
    with suppress(PermissionError, IsADirectoryError):  # folders on Windows
        stream = os.open(path, os.O_RDONLY)
        try:
            os.fsync(stream)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                raise
        finally:
            os.close(stream)
