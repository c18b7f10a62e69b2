"""Law: a rank whose launcher is gone ends; in a training that saves, after the step."""

import os
import subprocess
import sys
import textwrap
import time

import pytest

from mgnet.petsc import launcher


@pytest.fixture
def gone(monkeypatch):
    monkeypatch.setattr(launcher, "_parents", [os.getppid() + 1])


def test_nobody_watches_alone():
    assert not launcher.is_gone() and not launcher.must_end(1e9)


@pytest.mark.usefixtures("gone")
def test_who_saves_may_finish_the_step():
    assert launcher.is_gone() and launcher.must_end(0.0)
    with launcher.finishing():
        assert launcher.is_gone() and not launcher.must_end(1.0)
        assert launcher.must_end(1.01 * launcher.LONGEST)
    assert launcher.must_end(0.0)


def test_a_parent_that_dies_is_noticed(tmp_path):
    told = tmp_path / "told"
    child = f"""
        import os, time
        from pathlib import Path
        from mgnet.petsc import launcher
        launcher.watch_launcher()
        print("ready", flush=True)
        while not launcher.is_gone():
            time.sleep(0.01)
        Path({str(told)!r}).write_text("gone")
        launcher.end_without_launcher()
    """
    parent = """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
        child.stdout.readline()
    """
    command = [sys.executable, "-c", textwrap.dedent(parent), textwrap.dedent(child)]
    subprocess.run(command, check=True, timeout=120)
    until = time.monotonic() + 60
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < until
        time.sleep(0.01)
