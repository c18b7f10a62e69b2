"""Law: `python -m mgnet` is the command."""

import subprocess
import sys
from pathlib import Path

import mgnet

ROOT = Path(__file__).resolve().parent.parent


def test_module_runs_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "mgnet", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"mgnet {mgnet.__version__}\n")
