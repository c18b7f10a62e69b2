"""Ending a job of several ranks from one of them, with a text that is printed once: `Job`."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import sys
import termios
import time
from array import array
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir
from typing import NoReturn
from uuid import uuid4

from mpi4py import MPI

from mgnet.petsc.launcher import end_without_launcher, is_gone

__all__ = ["Job", "flush"]

TURN, LAST_TURN = 0.4, 4.0  # seconds; of machines, one after another
READ = 20.0  # seconds that a launcher may take to read what was printed
ON_THE_WAY = 0.2  # seconds; MPICH's mpiexec drops what it has not forwarded when a rank aborts
KILLED = 60.0  # seconds that the rank that prints may take to end the others
FREE, TAKEN = b"0", b"1"


class Job:
    """The ranks of a communicator, as something that one of them can end.

    All ranks make it together. Those of one machine share a file without a name, in which the first
    that ends the job makes a mark: the others neither print nor abort.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm

    Examples
    --------
    >>> job = Job(MPI.COMM_SELF)
    >>> job.is_mine(), job.is_mine()
    (True, False)
    """

    def __init__(self, comm: MPI.Intracomm):
        self.comm = comm
        path = Path(gettempdir(), comm.bcast(f"mgnet-{uuid4().hex}"))
        machines = comm.allgather(socket.gethostname())
        self.turn = sorted(set(machines), key=machines.index).index(machines[comm.Get_rank()])
        self.file = _opened(path)
        comm.Barrier()
        with suppress(OSError):
            path.unlink()
        if self.file is None:  # no room for a byte: ranks take turns
            self.turn = comm.Get_rank()

    def is_mine(self) -> bool:
        """Whether this rank is the one that ends the job."""
        time.sleep(min(TURN * self.turn, LAST_TURN))
        if self.file is None:
            return True
        fcntl.flock(self.file, fcntl.LOCK_EX)
        free = os.pread(self.file, 1, 0) == FREE
        os.pwrite(self.file, TAKEN, 0)
        fcntl.flock(self.file, fcntl.LOCK_UN)
        return free

    def end(self, text: str, code: int) -> NoReturn:
        """End all ranks; print the text, behind the rank, unless another one has printed.

        Parameters
        ----------
        text : str
            Ends with a line feed.
        code : int
            Of the launcher: 1 to 255.
        """
        if self.is_mine():
            with suppress(OSError, ValueError):  # nobody reads it, or it is closed
                sys.stderr.write(f"[rank {self.comm.Get_rank()}] {text}")
            flush()
            time.sleep(ON_THE_WAY)
        else:
            time.sleep(KILLED)
        if is_gone():
            end_without_launcher(code)
        self.comm.Abort(code)
        os._exit(code)


def flush() -> None:
    """Give what was printed to the launcher, and wait until it has read that."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    until = time.monotonic() + READ
    with suppress(OSError):
        while any(map(_unread, (1, 2))) and not is_gone() and time.monotonic() < until:
            time.sleep(0.01)


def _unread(number: int) -> int:
    """Bytes in a pipe that its reader has not read; 0 for what is no pipe."""
    if not stat.S_ISFIFO(os.fstat(number).st_mode):
        return 0
    count = array("i", [0])
    fcntl.ioctl(number, termios.FIONREAD, count)
    return count[0]


def _opened(path: Path) -> int | None:
    with suppress(OSError):
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if os.pwrite(number, FREE, 0) == len(FREE):
            return number
    return None
