"""Whether the launcher that started this rank still lives: `mpiexec`, or its agent on a machine.

A launcher that is killed cannot end its ranks: they would train on, and nobody would know. Imports
no MPI.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

__all__ = ["end_without_launcher", "finishing", "is_gone", "must_end", "watch_launcher"]

CODE = 143  # as after SIGTERM
LONGEST = 20.0  # seconds that a rank may wait for others, to finish a step, without a launcher
_parents: list[int] = []
_finishing: list[str] = []


def watch_launcher() -> None:
    """From now on a change of the parent process means that the launcher is gone."""
    if not _parents:
        _parents.append(os.getppid())


def is_gone() -> bool:
    """Whether it is; False where nobody watches it.

    Examples
    --------
    >>> is_gone()
    False
    """
    return bool(_parents) and os.getppid() != _parents[0]


@contextmanager
def finishing() -> Iterator[None]:
    """Inside, a rank without a launcher may go on: its caller asks `is_gone`, saves and ends."""
    _finishing.append("")
    try:
        yield
    finally:
        _finishing.pop()


def must_end(waited: float) -> bool:
    """Whether a rank that waited for others so many seconds ends, as its launcher is gone.

    Examples
    --------
    >>> must_end(3600.0)
    False
    """
    return is_gone() and (not _finishing or waited > LONGEST)


def end_without_launcher(code: int = CODE) -> NoReturn:
    """End this process at once: MPI's own ways to end need the launcher."""
    os._exit(code)
