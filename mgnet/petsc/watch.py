"""Waiting for other ranks that may have left: `Watch`.

A rank that leaves its script early waits for the others in MPI's finalization while they wait for
it, forever. While it waits, a rank therefore checks whether another one has reported that it left;
if so, it ends the job.
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
LOOK = 0.2  # seconds between two checks for ranks that left
PATIENCE = 1.0  # seconds of waiting after which a rank that left is taken as the reason
LEFT = 6152  # tag
UNKNOWN = -1  # exit code of a rank that did not leave by `sys.exit`
_watches: list[Watch] = []
_keyval: list[int] = []


class Watch:
    """The calls that the ranks of a communicator make together, and the ranks that have left.

    All ranks create it together: `watch_of` creates one for each communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        The communicator of the ranks.
    whole : Watch, optional
        The watch of a communicator that contains this one. Messages to the user number the ranks as
        that communicator does, and its job is ended if a rank has left.

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
            # A separate communicator: a rank that has left must not take part in operations of the
            # others.
            self.exits, self.job = comm.Dup(), Job(comm) if whole is None else whole.job

    def arrive(self) -> None:
        """Wait until all ranks make this call; the next MPI call then waits for no other rank."""
        self.calls += 1
        if self.several:
            self._wait(self.comm.Ibarrier(), needs=self.calls)

    def wait(self, *requests: MPI.Request, ahead: int = 0) -> None:
        """Wait for requests in one call of every rank, including ranks without requests.

        A message may have been sent in a later call of the sender, up to `ahead` calls later.
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
                if now - begun > SPIN:  # sleep for a share of the time already lost
                    time.sleep(min(0.05 * (now - begun), 0.01))

    def _look(self, waited: float, needs: int) -> None:
        """End the job if the awaited message will not come."""
        if must_end(waited):
            end_without_launcher()
        status = MPI.Status()
        while self.exits.Iprobe(MPI.ANY_SOURCE, LEFT, status):
            self._receive(status.Get_source())
        # A rank that left after so many calls has sent its part; another rank is only slow.
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
        """Notify the other ranks that this rank has left, with its exit code if that is known."""
        word = np.array([self.calls, *codes, UNKNOWN][:2], np.int64)
        others = set(range(self.comm.Get_size())) - {self.comm.Get_rank()}
        return [self.exits.Isend(word.copy(), other, LEFT) for other in sorted(others)]

    def finish(self, told: bool) -> None:
        """Receive messages that are still in transit; all ranks call this together."""
        for rank, has_told in enumerate(self.exits.allgather(told)):
            if has_told and rank not in self.left and rank != self.comm.Get_rank():
                self._receive(rank)


def watch_of(comm: MPI.Intracomm, whole: Watch | None = None) -> Watch:
    """The watch of a communicator, possibly part of `whole`; all its ranks call this together.

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
    """The communicators of this rank's row and column, if the ranks are numbered row by row.

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
    """Return the error, or another one with its text if it cannot be sent to other ranks.

    An error cannot be pickled if it contains a lock, for example, or if its class is local to a
    function; an error with its own arguments may be restored as another error.

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
    """All watches, in the order of their creation.

    Examples
    --------
    >>> watch_of(MPI.COMM_SELF) in watches()
    True
    """
    return list(_watches)
