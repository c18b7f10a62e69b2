"""Law: the scripts of docs/howto.md print what stands there, alone, with options and on ranks."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "howto.md").read_text()
SCRIPTS = re.findall(r"^``` \{ \.python \}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    \$ python script\.py(.*)\n    (.*)$", PAGE, re.MULTILINE)


def script_with(word: str, folder: Path) -> Path:
    """The one script of the page that has this word, as a file."""
    (found,) = (script for script in SCRIPTS if word in script)
    file = folder / "script.py"
    file.write_text(found)
    return file


@pytest.mark.parametrize(("options", "shown"), COMMANDS)
def test_options(request, tmp_path, options, shown):
    if options:
        request.getfixturevalue("petsc")
    script = script_with("solver_from_options(gallery", tmp_path)
    command = [sys.executable, str(script), *shlex.split(options)]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert printed.stdout == shown + "\n"


def test_the_page_shows_options_and_none():
    assert [bool(options) for options, _ in COMMANDS] == [False, True]


@pytest.mark.mpi
def test_ranks(mpiexec, tmp_path):
    script = str(script_with("distribute_layers(", tmp_path))
    # Found, not split: what two ranks print at once may run into one line.
    alone, both = (re.findall(r"\d\.\d{3}e-\d\d", mpiexec(script, ranks)) for ranks in (1, 2))
    assert both == 2 * alone and 0.0 < float(alone[0]) < 0.15


@pytest.mark.mpi
def test_a_matrix_of_scipy_over_ranks(mpiexec, tmp_path):
    script = str(script_with("createAIJ", tmp_path))
    shown = re.search(r"mpiexec -n 2 python script\.py\n    (RTOL .*)\n", PAGE)
    assert shown is not None
    assert [mpiexec(script, ranks).strip() for ranks in (1, 2)] == 2 * [shown[1]]
