"""Law: of two writers one has the lock; the other is told who; what the dead left is no lock."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mgnet.app import lock
from mgnet.app.lock import locked

pytestmark = pytest.mark.skipif(lock.fcntl is None, reason="locks of POSIX")


def other_thread(folder):
    def take():
        with locked(folder, folder.parent) as alone:
            return alone

    with ThreadPoolExecutor() as pool:
        return pool.submit(take).result()


def test_the_second_is_refused_and_told_who_is_the_first(tmp_path):
    out = tmp_path / "out"
    with locked(out, tmp_path) as alone:
        assert alone
        with pytest.raises(BlockingIOError, match=rf"being written by .*process {os.getpid()} on"):
            other_thread(out)
        with locked(out, tmp_path):  # the same thread may
            pass
        with pytest.raises(BlockingIOError):
            other_thread(out)
    assert other_thread(out)
    assert os.listdir(tmp_path) == []


HOLD = """
import os, sys
from pathlib import Path
from mgnet.app.lock import locked
with locked(Path(sys.argv[1], "out"), Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_leaves_a_file_but_no_lock(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match=f"process {child.pid} on"):
            other_thread(tmp_path / "out")
        child.kill()
    assert os.listdir(tmp_path) == [".out-mgnet-lock"]
    assert other_thread(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_locked_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_lock", lambda stream: False)
    with locked(tmp_path / "out", tmp_path) as alone:
        assert not alone
