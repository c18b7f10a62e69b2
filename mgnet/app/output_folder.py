"""The output folder: asked for permission before the work, and filled at once after it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["check_folder", "filled"]

PICTURES = ("edges.png", "convergence.png", "fit.png")
OURS = ("model.safetensors", "report.md", *PICTURES, "model.json")


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder that cannot be written, or that holds what we must not replace.

    Leaves nothing behind.

    Parameters
    ----------
    folder : Path
        It need not exist, nor need the folders above it.
    overwrite : bool
        Accept a folder with a former model.

    Raises
    ------
    OSError, ValueError

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     check_folder(Path(root, "new"))
    ...     Path(root, "new").exists()
    False
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"output folder {folder} is a file; choose another --out")
    try:
        inside = os.listdir(folder) if folder.exists() else []
        _probe(folder)
    except OSError as error:
        raise OSError(
            f"output folder {folder} cannot be written ({error.strerror}); choose another --out"
        ) from None
    if not inside:
        return
    if not _is_former_output(folder):
        raise ValueError(
            f"output folder {folder} is not empty and holds no model of mgnet; choose another --out"
        )
    if not overwrite:
        raise ValueError(
            f"output folder {folder} holds a model already; replace it with --overwrite, or choose "
            "another --out"
        )


def _probe(folder: Path) -> None:
    """Make the temporary folder that `filled` will make, and remove all that was made."""
    made = _make(folder)
    for path in reversed(made):
        path.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a temporary folder, the last entry, and what is missing above it."""
    name = f".{folder.name or 'mgnet'}-unfinished-{os.getpid()}"
    stage = (folder if folder.is_dir() else folder.parent) / name
    missing = [path for path in reversed(stage.parents) if not path.exists()]
    made: list[Path] = []
    try:
        for path in [*missing, stage]:
            path.mkdir()
            made.append(path)
    except OSError:
        for path in reversed(made):
            path.rmdir()
        raise
    return made


def _is_former_output(folder: Path) -> bool:
    try:
        content = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "mgnet" in json.dumps(content)


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files move to `folder` when the block ends without an error.

    Files of a former output that are not written anew are removed, other files stay.

    Parameters
    ----------
    folder : Path

    Yields
    ------
    Path

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     with filled(Path(root, "new")) as stage:
    ...         _ = (stage / "report.md").write_text("good")
    ...     [str(path.relative_to(root)) for path in Path(root).rglob("*")]
    ['new', 'new/report.md']
    """
    made = _make(folder)
    stage = made[-1]
    try:
        yield stage
        if not folder.is_dir():
            stage.rename(folder)
            return
        files = sorted(stage.iterdir(), key=lambda file: file.name == OURS[-1])  # the mark last
        for file in files:
            file.replace(folder / file.name)
        for name in set(OURS) - {file.name for file in files}:
            (folder / name).unlink(missing_ok=True)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):  # not empty: somebody else writes there
            for path in reversed(made[:-1]):
                path.rmdir()
        raise
    shutil.rmtree(stage, ignore_errors=True)
