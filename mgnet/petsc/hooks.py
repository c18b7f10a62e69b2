"""What Python does when it ends, on several ranks: `end_all_ranks_on_error`.

An exception that nobody catches ends the job. A rank that leaves its script otherwise, by its last
line or by `sys.exit`, tells those that still wait for it (`Watch`).
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

SOON = 0.5  # seconds; who leaves later than the first by more is told of it
INTERRUPTED = 130  # exit code after Ctrl-C
_installed: list[int] = []  # the process
_left_with: list[tuple[int, int]] = []  # exit code, calls before it


def end_all_ranks_on_error(comm: Any = None) -> None:
    """Let an exception that nobody catches, on any rank, end the job on all of them.

    Otherwise the other ranks wait for the one that left. The first rank that fails prints its
    traceback, once; the exit code is 1, or 130 after Ctrl-C. A rank that leaves by `sys.exit` while
    another waits for it in a call of mgnet ends the job, too, with that exit code, or 1. Who waits
    for nobody is not disturbed: a rank may end later than the others, by any time. All ranks call
    this together.

    Parameters
    ----------
    comm : PETSc.Comm, optional
        `PETSC_COMM_WORLD` by default.

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
    """`sys.excepthook`."""

    def __init__(self, watch: Watch):
        self.watch, self.process = watch, os.getpid()

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self.process:  # a copy of this process, which is no rank
            sys.__excepthook__(kind, error, trace)
            return
        lines = "".join(traceback.format_exception(kind, error, trace)) + unread_line()
        self.watch.job.end(lines, INTERRUPTED if issubclass(kind, KeyboardInterrupt) else 1)


class _Noting:
    """`sys.exit` that notes the code: at its end Python tells it to nobody."""

    def __init__(self, exits: Callable[[Any], NoReturn]):
        self.exits = exits

    def __call__(self, status: Any = None, /) -> NoReturn:
        code = 0 if status is None else status & 255 if isinstance(status, int) else 1
        _left_with[:] = [(code, _calls())]
        self.exits(status)


def _calls() -> int:
    return sum(watch.calls for watch in watches())


def _leave() -> None:
    """Wait until all ranks leave, as MPI's own end does, and tell those who wait for this one."""
    if os.getpid() not in _installed or MPI.Is_finalized():
        return
    flush()
    several = [watch for watch in watches() if watch.several]
    barriers = [watch.exits.Ibarrier() for watch in several]
    # Noted, caught and followed by other calls, it is no reason to leave.
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
