"""Handling of the end of Python on several ranks: `end_all_ranks_on_error`.

An uncaught exception ends the job. A rank that leaves its script in another way, at its last line
or by `sys.exit`, notifies the ranks that still wait for it (`Watch`).
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from mpi4py import MPI
from petsc4py import PETSc

from mgnet.options.reader import unread_line
from mgnet.petsc.ending import flush
from mgnet.petsc.launcher import end_without_launcher, is_gone
from mgnet.petsc.watch import Watch, watch_of, watches

__all__ = ["end_all_ranks_on_error"]

SOON = 0.5  # seconds; a rank that leaves later than this after the first one is notified
INTERRUPTED = 130  # exit code after Ctrl-C
_installed: list[int] = []  # the number of this process
_left_with: list[tuple[int, int]] = []  # exit code, number of calls before it


def end_all_ranks_on_error(comm: Any = None) -> None:
    """Make an uncaught exception on any rank end the job on all ranks.

    Without this, the other ranks would wait for the rank that failed. The first rank that fails
    prints its traceback once; the exit code is 1, or 130 after Ctrl-C. A rank that leaves by
    `sys.exit` while another waits for it in a call of mgnet also ends the job, with that exit code,
    or 1. Ranks that do not wait for another rank are not interrupted: they may finish at any later
    time. All ranks must call this function together.

    Parameters
    ----------
    comm : PETSc.Comm, optional
        The communicator; `PETSC_COMM_WORLD` by default.

    Examples
    --------
    >>> import sys
    >>> before = sys.excepthook
    >>> end_all_ranks_on_error()
    >>> sys.excepthook is before  # alone, Python's own does
    True
    """
    world = (PETSc.COMM_WORLD if comm is None else comm).tompi4py()
    watch = watch_of(world)
    if not watch.several:
        return
    sys.excepthook = _Ending(watch)
    if os.getpid() not in _installed:
        _installed.append(os.getpid())
        sys.exit = _Noting(sys.exit)
        atexit.register(_leave)


class _Ending:
    """A replacement for `sys.excepthook` that ends the job."""

    def __init__(self, watch: Watch):
        self.watch, self.process = watch, os.getpid()

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self.process:  # a fork of this process, which is not a rank
            sys.__excepthook__(kind, error, trace)
            return
        lines = "".join(traceback.format_exception(kind, error, trace)) + unread_line()
        self.watch.job.end(lines, INTERRUPTED if issubclass(kind, KeyboardInterrupt) else 1)


class _Noting:
    """A replacement for `sys.exit` that stores the exit code, which `atexit` does not provide."""

    def __init__(self, exits: Callable[[Any], NoReturn]):
        self.exits = exits

    def __call__(self, status: Any = None, /) -> NoReturn:
        code = 0 if status is None else status & 255 if isinstance(status, int) else 1
        _left_with[:] = [(code, _calls())]
        self.exits(status)


def _calls() -> int:
    return sum(watch.calls for watch in watches())


def _leave() -> None:
    """Wait until all ranks leave, like MPI's own finalization, and notify ranks that wait."""
    if os.getpid() not in _installed or MPI.Is_finalized():
        return
    flush()
    several = [watch for watch in watches() if watch.several]
    barriers = [watch.exits.Ibarrier() for watch in several]
    # An exit that was caught and followed by other calls does not count as leaving.
    codes = [code for code, calls in _left_with if calls == _calls()]
    begun, told = time.monotonic(), []
    while not MPI.Request.Testall(barriers):
        waited = time.monotonic() - begun
        if is_gone():
            end_without_launcher()
        if waited > SOON and not told:
            told = [request for watch in several for request in watch.tell(codes)]
        time.sleep(min(0.05 * waited, 0.05))
    for watch in several:
        watch.finish(bool(told))
    MPI.Request.Waitall(told)
