"""Checks whether the launcher of this rank, `mpiexec` or its agent on a machine, is still alive.

A launcher that is killed cannot end its ranks, which would go on training unnoticed. This module
does not import MPI.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

__all__ = ["end_without_launcher", "finishing", "is_gone", "must_end", "watch_launcher"]

CODE = 143  # exit code after SIGTERM
LONGEST = 20.0  # seconds that a rank without a launcher may wait for others to finish a step
_parents: list[int] = []
_finishing: list[str] = []


def watch_launcher() -> None:
    """From now on, treat a change of the parent process as the end of the launcher."""
    if not _parents:
        _parents.append(os.getppid())


def is_gone() -> bool:
    """Whether the launcher has ended; False if nothing watches it.

    Examples
    --------
    >>> is_gone()
    False
    """
    return bool(_parents) and os.getppid() != _parents[0]


@contextmanager
def finishing() -> Iterator[None]:
    """Provide a context in which a rank outlives its launcher; the caller must check `is_gone`."""
    _finishing.append("")
    try:
        yield
    finally:
        _finishing.pop()


def must_end(waited: float) -> bool:
    """Whether a rank that has waited this long must end because its launcher has ended.

    Examples
    --------
    >>> must_end(3600.0)
    False
    """
    return is_gone() and (not _finishing or waited > LONGEST)


def end_without_launcher(code: int = CODE) -> NoReturn:
    """End this process at once, because MPI's own ways of ending need the launcher."""
    os._exit(code)
