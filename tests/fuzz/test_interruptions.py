"""A share of the fuzzer of interruptions: all or nothing, and one writer at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of POSIX")
def test_killed_and_racing_writers_leave_a_whole_output():
    """In a process of its own, since it forks."""
    command = [
        sys.executable,
        "-m",
        "tools.fuzz",
        "interruptions",
        "--writing",
        "4",
        "--writers",
        "5",
    ]
    done = subprocess.run(
        [*command, "--seed", "3"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "writing, seed 3: 4 trials" in done.stdout and "pairs, seed 3: 5" in done.stdout
