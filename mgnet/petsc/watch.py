"""Waiting for other ranks, which may have left: `Watch`.

A rank that leaves its script early waits in MPI's end for the others, and these for it: for ever.
So a rank asks, while it waits, whether another one has told that it left; then it ends the job.
"""

from __future__ import annotations

import pickle
import time
from typing import Any

import numpy as np
from mpi4py import MPI

from mgnet.petsc.ending import Job
from mgnet.petsc.launcher import end_without_launcher, must_end, watch_launcher

__all__ = ["Watch", "portable", "rows_and_columns", "watch_of", "watches"]

SPIN = 1e-3  # seconds of waiting without sleep
LOOK = 0.2  # seconds between two looks for ranks that left
PATIENCE = 1.0  # seconds of waiting after which a rank that left is the reason
LEFT = 6152  # tag
UNKNOWN = -1  # exit code of a rank that did not leave by `sys.exit`
_watches: list[Watch] = []
_keyval: list[int] = []


class Watch:
    """The calls that the ranks of a communicator make together, and the ranks that left.

    Made by all ranks together: by `watch_of`, once for each communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    whole : Watch, optional
        That of a communicator of which this one is a part: its job ends, and its numbers are told.

    Examples
    --------
    >>> watch = Watch(MPI.COMM_SELF)
    >>> watch.arrive()
    >>> watch.allgather("alone")
    ['alone']
    """

    def __init__(self, comm: MPI.Intracomm, whole: Watch | None = None):
        self.comm, self.calls = comm, 0
        self.parts: dict[int, tuple[MPI.Intracomm, MPI.Intracomm]] = {}  # see `rows_and_columns`
        self.numbers = list(range(comm.Get_size()))
        if whole is not None:
            groups = comm.Get_group(), whole.comm.Get_group()
            self.numbers = MPI.Group.Translate_ranks(groups[0], self.numbers, groups[1])
        self.left: dict[int, tuple[int, int]] = {}
        self.several = comm.Get_size() > 1
        if self.several:
            watch_launcher()
            # Of its own: a rank that has left must not take part in what the others do.
            self.exits, self.job = comm.Dup(), Job(comm) if whole is None else whole.job

    def arrive(self) -> None:
        """Wait until all ranks make this call; the next one of MPI then waits for nobody."""
        self.calls += 1
        if self.several:
            self._wait(self.comm.Ibarrier(), needs=self.calls)

    def wait(self, *requests: MPI.Request, ahead: int = 0) -> None:
        """One call of every rank, those included that have no requests in it.

        What comes may be sent in a later call of the sender: so many `ahead`.
        """
        self.calls += 1
        self._wait(*requests, needs=self.calls + ahead)

    def allgather(self, value: Any) -> list[Any]:
        """The values of all ranks."""
        self.arrive()
        return self.comm.allgather(value)

    def _wait(self, *requests: MPI.Request, needs: int) -> None:
        if must_end(0.0):
            end_without_launcher()
        begun = looked = time.monotonic()
        for request in requests:
            while not request.Test():
                now = time.monotonic()
                if now - looked > LOOK:
                    looked = now
                    self._look(now - begun, needs)
                if now - begun > SPIN:  # a share of the time that is lost anyway
                    time.sleep(min(0.05 * (now - begun), 0.01))

    def _look(self, waited: float, needs: int) -> None:
        """End the job if what this rank waits for will not come."""
        if must_end(waited):
            end_without_launcher()
        status = MPI.Status()
        while self.exits.Iprobe(MPI.ANY_SOURCE, LEFT, status):
            self._receive(status.Get_source())
        # Who left after so many calls has sent its part; another rank is only slow.
        missing = [rank for rank, (calls, _) in self.left.items() if calls < needs]
        if missing and waited > PATIENCE:
            code = self.left[missing[0]][1]
            what = "" if code == UNKNOWN else f" with exit code {code}"
            self.job.end(
                f"waits for rank {self.numbers[missing[0]]}, which left the script"
                f"{what}; all ranks must make the same calls. The job ends\n",
                code if code > 0 else 1,
            )

    def _receive(self, source: int) -> None:
        word = np.empty(2, np.int64)
        self.exits.Recv(word, source, LEFT)
        self.left[source] = int(word[0]), int(word[1])

    def tell(self, codes: list[int]) -> list[MPI.Request]:
        """Tell the other ranks that this one has left, with an exit code if it is known."""
        word = np.array([self.calls, *codes, UNKNOWN][:2], np.int64)
        others = set(range(self.comm.Get_size())) - {self.comm.Get_rank()}
        return [self.exits.Isend(word.copy(), other, LEFT) for other in sorted(others)]

    def finish(self, told: bool) -> None:
        """Receive what is still on its way; all ranks are here."""
        for rank, has_told in enumerate(self.exits.allgather(told)):
            if has_told and rank not in self.left and rank != self.comm.Get_rank():
                self._receive(rank)


def watch_of(comm: MPI.Intracomm, whole: Watch | None = None) -> Watch:
    """The one of a communicator, perhaps a part of another; all its ranks call this together.

    Examples
    --------
    >>> watch_of(MPI.COMM_SELF) is watch_of(MPI.COMM_SELF)
    True
    """
    if not _keyval:
        _keyval.append(MPI.Comm.Create_keyval(nopython=True))
    number = comm.Get_attr(_keyval[0])
    if number is None:
        number = len(_watches)
        _watches.append(Watch(comm, whole))
        comm.Set_attr(_keyval[0], number)
    return _watches[number]


def rows_and_columns(comm: MPI.Intracomm, rows: int) -> tuple[MPI.Intracomm, MPI.Intracomm]:
    """The ranks in rows, one after another: those of this rank's row, and of its column.

    Examples
    --------
    >>> row, column = rows_and_columns(MPI.COMM_SELF, 1)
    >>> row.Get_size(), column.Get_size()
    (1, 1)
    """
    whole = watch_of(comm)
    if rows not in whole.parts:
        rank, columns = comm.Get_rank(), comm.Get_size() // rows
        parts = comm.Split(rank // columns, rank), comm.Split(rank % columns, rank)
        for part in parts:
            watch_of(part, whole)
        whole.parts[rows] = parts
    return whole.parts[rows]


def portable(error: Exception) -> Exception:
    """The error, or one with its text where it cannot be sent to other ranks as it is.

    An error that holds a lock, say, or whose class belongs to a function, cannot be pickled; one
    with arguments of its own may be read back as another error.

    Examples
    --------
    >>> portable(ValueError("no step"))
    ValueError('no step')
    >>> class LocalError(Exception):
    ...     def __reduce__(self):
    ...         raise TypeError
    >>> portable(LocalError("no step"))
    RuntimeError('LocalError: no step')
    """
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:
        again = None
    if type(again) is type(error):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def watches() -> list[Watch]:
    """All of them, in the order in which they were made.

    Examples
    --------
    >>> watch_of(MPI.COMM_SELF) in watches()
    True
    """
    return list(_watches)
