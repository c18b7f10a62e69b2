"""Law: `python -m mgnet` is the command."""

import subprocess
import sys
from pathlib import Path

import pytest

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


WITHOUT = "import sys; sys.modules[{name!r}] = None; from mgnet.__main__ import command; command()"


@pytest.mark.parametrize("name", ["click", "numpy"])
def test_without_its_libraries_it_says_what_to_install(name):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(name=name), "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    sentence = (
        "mgnet: the command needs click, which is not installed; install it with pip install "
        "'mgnet-solvers[app]'\n"
    )
    if name == "click":
        assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)
    else:  # no part of the extra
        assert done.returncode == 1 and "mgnet-solvers[app]" not in done.stderr


def test_the_script_is_the_module():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'mgnet = "mgnet.__main__:command"' in text
