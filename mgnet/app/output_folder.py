"""The output folder: reserved before the training, and filled in a single step after it."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mgnet.app.exchange import ASIDE, JSON, MARK, bring_back, discard, put, sync
from mgnet.app.hold import Hold
from mgnet.app.lock import lock_file, locked

__all__ = ["check_folder", "claimed", "filled", "whole_file"]

TRIES = 20  # tries to keep a parent folder while other runs create and remove it
LARGEST = 2**26  # bytes of a model.json that is read to identify its origin


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder that cannot be written, or whose contents must not be replaced.

    The check leaves no files behind.

    Parameters
    ----------
    folder : Path
        Folder; it and its parents need not exist.
    overwrite : bool
        Whether to accept a folder with an earlier model.

    Raises
    ------
    OSError, ValueError
        If the folder cannot be used.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     check_folder(Path(root, "new"))
    ...     Path(root, "new").exists()
    False
    """
    with claimed(folder, overwrite):
        pass


@contextmanager
def claimed(folder: Path, overwrite: bool = False) -> Iterator[list[str]]:
    """Check a folder like `check_folder`, and reserve it so that no other process writes to it.

    Parameters
    ----------
    folder : Path
        Output folder.
    overwrite : bool
        Whether to accept a folder with an earlier model.

    Yields
    ------
    list of str
        Messages about files that killed runs have left behind and that `filled` will remove.

    Raises
    ------
    OSError, ValueError
        If the folder cannot be used; BlockingIOError if another run has reserved it.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     out = Path(root, "new")
    ...     with claimed(out), filled(out) as stage:
    ...         _ = (stage / "report.md").write_text("good")
    ...     os.listdir(root), os.listdir(out)
    (['new'], ['report.md'])
    """
    target = _target(folder)
    if target.is_symlink():
        raise OSError(f"output folder {folder} is a link to itself; choose another --out")
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"output folder {folder} is a file; choose another --out")
    with _locked(folder, target) as alone:
        _check(folder, target, overwrite)
        yield [
            f"found {path}, left by a run that was killed; it will be removed when this run has "
            "written"
            for path in (_left(target) if alone else [])
        ]


def _target(folder: Path) -> Path:
    """The real path of a folder, which need not exist; a symbolic link to it remains a link."""
    return Path(os.path.realpath(folder))


def _refusal(folder: Path, error: OSError) -> OSError:
    return OSError(
        f"output folder {folder} cannot be written ({error.strerror}); choose another --out"
    )


@contextmanager
def _locked(folder: Path, target: Path) -> Iterator[bool]:
    """The lock of a folder; its file is next to it, or inside if the parent is not writable.

    Parent folders are created, and removed again if they are still empty at the end.
    """
    made: list[Path] = []
    with ExitStack() as stack:
        stack.callback(_remove_empty, made)
        for tries in range(TRIES, 0, -1):
            try:
                _make_above(target, made)
                alone = stack.enter_context(locked(target, _place(target)))
                break
            except BlockingIOError:
                raise
            except OSError as error:
                # Another run may have removed a parent folder that it had created.
                if not isinstance(error, FileNotFoundError) or tries == 1:
                    raise _refusal(folder, error) from None
        yield alone


def _place(target: Path) -> Path:
    """The parent folder, or the folder itself if the parent is not writable."""
    if target.is_dir() and not os.access(target.parent, os.W_OK | os.X_OK):
        return target
    return target.parent


def _check(folder: Path, target: Path, overwrite: bool) -> None:
    try:
        if target.is_dir() and not os.access(target, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        inside = os.listdir(target) if target.exists() else []
        _make_stage(target).rmdir()
    except OSError as error:
        raise _refusal(folder, error) from None
    lock = lock_file(target, target).name
    if all(name == lock or _is_stage(name, target) for name in inside):
        return
    if not _is_former_output(target):
        raise ValueError(
            f"output folder {folder} is not empty and holds no model of mgnet; choose another --out"
        )
    if not overwrite:
        raise ValueError(
            f"output folder {folder} holds a model already; replace it with --overwrite, or choose "
            "another --out"
        )


def _is_former_output(folder: Path) -> bool:
    try:
        about = (folder / JSON).stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
            return False
        content = json.loads((folder / JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and (
        "mgnet" in content or "mgnet" in map(str, content.values())
    )


# Files and folders that are created on the way


def _make_above(target: Path, made: list[Path]) -> None:
    for path in [path for path in reversed(target.parents) if not path.exists()]:
        path.mkdir(exist_ok=True)  # another run may create it, too
        made.append(path)


def _remove_empty(made: list[Path]) -> None:
    with suppress(OSError):  # not empty: the output is there, or another run writes
        for path in reversed(made):
            path.rmdir()


def _make_stage(target: Path) -> Path:
    """A temporary folder in `_place`, with the permissions of the output folder if it exists."""
    start, number = f".{target.name or 'mgnet'}{MARK}{os.getpid()}", 1
    while True:
        stage = _place(target) / (start if number == 1 else f"{start}-{number}")
        try:
            stage.mkdir()
            break
        except FileExistsError:  # a killed process had the same number
            number += 1
    if target.is_dir():
        with suppress(OSError, AttributeError):  # Windows has no such groups
            os.chown(stage, -1, target.stat().st_gid)
        with suppress(OSError):
            shutil.copystat(target, stage)
    return stage


def _is_stage(name: str, target: Path) -> bool:
    return name.startswith(f".{target.name or 'mgnet'}{MARK}")


def _left(target: Path) -> list[Path]:
    """Folders that killed runs have left behind; only the owner of the lock can identify them."""
    places = {target.parent, target} if target.is_dir() else {target.parent}
    found = [p for place in places for p in place.iterdir() if _is_stage(p.name, target)]
    if target.is_dir():
        found += [path for path in target.iterdir() if ASIDE.fullmatch(path.name)]
    return sorted(found)


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """A temporary folder that replaces `folder` when the block ends without an error.

    Files of an earlier output that are not written again are removed; other files are kept. If the
    system can exchange two folders, the old output remains complete until the new output is,
    however the process ends. If folders cannot be exchanged (some network file systems, a parent
    folder that is not writable, the working folder, a mount point), only the model is complete at
    every moment; the report and the pictures follow immediately.

    Parameters
    ----------
    folder : Path
        Output folder.

    Yields
    ------
    Path
        Temporary folder to write to.

    Raises
    ------
    BlockingIOError
        If another process writes to it.
    OSError
        If files cannot be written; an earlier output is then unchanged.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     with filled(Path(root, "new")) as stage:
    ...         _ = (stage / "report.md").write_text("good")
    ...     [str(path.relative_to(root)) for path in Path(root).rglob("*")]
    ['new', 'new/report.md']
    """
    target = _target(folder)
    with _locked(folder, target) as alone:
        left = _left(target) if alone else []
        stage, whole = _make_stage(target), False
        try:
            yield stage
            with Hold() as hold:
                for path in (*stage.iterdir(), stage):
                    sync(path)
                put(stage, target)
                whole = True
                for path in left:
                    bring_back(path, target)
                    discard(path)
            hold.check()
        except OSError as error:
            if error.errno is None:
                raise
            raise _refusal(folder, error) from None
        finally:
            with Hold():
                if whole:
                    discard(stage)
                else:
                    shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name next to a file; the new file replaces it when the block ends.

    Parameters
    ----------
    path : Path
        File to write; a link to a file remains a link.

    Yields
    ------
    Path
        Temporary path to write to.

    Raises
    ------
    OSError, ValueError
        If the file cannot be written; an existing file is then unchanged.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     with whole_file(Path(root, "new.csv")) as unfinished:
    ...         _ = unfinished.write_text("good")
    ...     os.listdir(root)
    ['new.csv']
    """
    target = _target(path)
    if target.exists() and not target.is_file():
        raise ValueError(
            f"{path} is not a file; name a file to write, or leave out --out for stdout"
        )
    try:
        with locked(target, target.parent) as alone:
            unfinished = target.with_name(f".{target.name}{MARK}{os.getpid()}")
            for left in _left(target) if alone else ():
                discard(left)
            try:
                yield unfinished
                with Hold() as hold:
                    sync(unfinished)
                    if target.exists():
                        with suppress(OSError):
                            shutil.copymode(target, unfinished)
                    unfinished.replace(target)
                hold.check()
            finally:
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(
            f"{path} cannot be written ({error.strerror}); name another file in --out"
        ) from None
