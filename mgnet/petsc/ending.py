"""A job of several ranks, which one rank can end with a message printed only once: `Job`."""

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

TURN, LAST_TURN = 0.4, 4.0  # seconds; machines take turns
READ = 20.0  # seconds that a launcher may take to read the output
ON_THE_WAY = 0.2  # seconds; MPICH's mpiexec drops output that is in transit when a rank aborts
KILLED = 60.0  # seconds within which the printing rank must have ended the others
FREE, TAKEN = b"0", b"1"


class Job:
    """The ranks of a communicator as a job that one of them can end.

    All ranks must create this object together. The ranks of one machine share an unnamed file, in
    which the first rank that ends the job sets a mark; the other ranks then neither print nor
    abort.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        The communicator of all ranks of the job.

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
        if self.file is None:  # the file has no room for a byte: ranks take turns
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
        """End all ranks; print the text after the rank's number, unless another rank has printed.

        Parameters
        ----------
        text : str
            Text to print, which ends with a newline.
        code : int
            Exit code of the launcher, from 1 to 255.
        """
        if self.is_mine():
            with suppress(OSError, ValueError):  # stderr is closed or has no reader
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
    """Flush the output and wait until the launcher has read it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    until = time.monotonic() + READ
    with suppress(OSError):
        while any(map(_unread, (1, 2))) and not is_gone() and time.monotonic() < until:
            time.sleep(0.01)


def _unread(number: int) -> int:
    """Number of unread bytes in a pipe; 0 if the descriptor is not a pipe."""
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
