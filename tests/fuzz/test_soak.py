"""A short soak: objects, files and threads stay as they are from step to step."""

import os
import subprocess
import sys
from pathlib import Path

from tools.fuzz.soak import Sample, grown

ROOT = Path(__file__).parents[2]
HOLDS = """
from tools.fuzz.soak import grown, soak
held = []
samples = soak(lambda number: held.append([number, {number}]), 300)
print(len(samples), grown(samples[0], samples[-1]))
"""


def run(*words):
    """In a process of its own, which holds little beside."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_short_run_leaves_nothing_behind():
    tasks = ["training"]
    told = run("-m", "tools.fuzz", "soak", *tasks, "--count", "24")
    assert told.count(": flat\n") == len(tasks)


def test_what_grows_is_named():
    assert "21 [" in (told := run("-c", HOLDS)) and "objects more" in told
    first = Sample(100.0, 10, 5, 1, 0, 2, 0, 0)
    last = first._replace(megabytes=106.0, files=6)
    assert grown(first, last) == ["memory from 100 to 106 MB", "files from 5 to 6"]
