"""Law: one rank prints, and not before the launcher has read everything does it end the job."""

import os
import threading
import time

import pytest


@pytest.fixture
def ending(petsc):
    from mgnet.petsc import ending

    return ending


def test_a_mark_is_made_once_and_leaves_no_file(ending, monkeypatch, tmp_path):
    monkeypatch.setattr(ending, "gettempdir", lambda: str(tmp_path))
    from mpi4py import MPI

    job = ending.Job(MPI.COMM_SELF)
    assert list(tmp_path.iterdir()) == []
    assert [job.is_mine() for _ in range(3)] == [True, False, False]
    monkeypatch.setattr(ending, "gettempdir", lambda: str(tmp_path / "missing"))
    taking_turns = ending.Job(MPI.COMM_SELF)
    assert taking_turns.file is None and taking_turns.is_mine()


class Comm:
    """Of two ranks, of which this is the second, on one machine."""

    def __init__(self):
        self.ended = []

    def Get_rank(self):  # noqa: N802, MPI's name
        return 1

    def Abort(self, code):  # noqa: N802, MPI's name
        self.ended.append(code)
        raise InterruptedError

    def Barrier(self):  # noqa: N802, MPI's name
        pass

    def bcast(self, value):
        return value

    def allgather(self, value):
        return [value, value]


def test_the_second_that_fails_leaves_the_end_to_the_first(ending, monkeypatch, capsys):
    comm = Comm()
    job, slept = ending.Job(comm), []
    assert job.turn == 0
    monkeypatch.setattr(time, "sleep", slept.append)
    for code, waits in ((3, ending.ON_THE_WAY), (4, ending.KILLED)):
        with pytest.raises(InterruptedError):
            job.end("it is broken\n", code)
        assert slept[-1] == waits
    assert comm.ended == [3, 4] and capsys.readouterr().err == "[rank 1] it is broken\n"


def test_a_pipe_is_read_before_the_end(ending, monkeypatch):
    reader, writer = os.pipe()
    former, read = os.dup(2), []

    def slow():
        time.sleep(0.1)
        read.append(os.read(reader, 100))

    os.dup2(writer, 2)
    try:
        os.write(2, b"a traceback")
        thread = threading.Thread(target=slow)
        thread.start()
        ending.flush()
        assert ending._unread(2) == 0
        thread.join()
        assert read == [b"a traceback"]
        monkeypatch.setattr(ending, "READ", 0.0)  # nobody reads: it does not wait for ever
        os.write(2, b"more")
        ending.flush()
        assert ending._unread(2) == 4
    finally:
        os.dup2(former, 2)
        for number in (reader, writer, former):
            os.close(number)
