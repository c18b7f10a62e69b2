"""Law: SECURITY.md promises what tests hold; here are the promises that no other file tests.

The inputs are harmless: the only thing that the pickles could do is to make a folder.
"""

import ast
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mgnet import Schedule, Step

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/\S+\.py)::(\w+)`", PAGE)))


def test_every_promise_names_tests():
    table = PAGE.split("## What is promised")[1]
    rows = re.findall(r"^\| (.*) \| (.*) \|$", table, re.MULTILINE)[2:]
    assert len(rows) > 15
    assert all("`tests/" in tests for _, tests in rows)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_named_test_exists(file, name):
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


# What could run foreign code: a call, or the module that it comes from.
RUNNERS = {"eval", "exec", "os.system", "os.popen", "torch.load", "np.load", "numpy.load"}
MODULES = {"pickle", "joblib", "cloudpickle", "dill", "shelve", "marshal", "subprocess", "yaml"}
ALLOWED = {
    # A program that the library generated from the tensor operations of a block.
    ("mgnet/depth/batched/graphs.py", "exec"),
    # An error of this rank, pickled a line before, to see whether other ranks could be sent it.
    ("mgnet/petsc/watch.py", "pickle"),
}


def runners(path: str, text: str) -> set[tuple[str, str]]:
    """What a file calls or imports that could run foreign code."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in RUNNERS:
            found.add((path, ast.unparse(node.func)))
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        found |= {(path, name.split(".")[0]) for name in names if name.split(".")[0] in MODULES}
    return found


def test_the_library_calls_nothing_that_runs_foreign_code():
    found: set[tuple[str, str]] = set()
    for file in (ROOT / "mgnet").rglob("*.py"):
        found |= runners(file.relative_to(ROOT).as_posix(), file.read_text())
    assert found == ALLOWED


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from joblib import load", "torch.load(f, weights_only=True)", "eval('1')"],
)
def test_a_runner_is_seen(text):
    assert len(runners("a.py", text)) == 1


class Makes:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_is_refused_unread(tmp_path):
    from mgnet.app.files.opening import open_data_file
    from mgnet.app.model_file import read_model
    from mgnet.checkpoint.storage import read_file

    made = tmp_path / "made"
    pickled = pickle.dumps(Makes(made))
    for name in ("table.csv", "run.pt", "model.json", "model.safetensors"):
        (tmp_path / name).write_bytes(pickled)
    np.savez(tmp_path / "table.npz", x=np.array([Makes(made)], dtype=object))
    for read in (
        lambda: open_data_file(tmp_path / "table.csv").columns(["x"]),
        lambda: open_data_file(tmp_path / "table.npz").columns(["x"]),
        lambda: read_model(tmp_path),
        lambda: read_file(tmp_path / "run.pt", "Checkpoint"),  # and the files of resumable_steps
    ):
        with pytest.raises(ValueError):
            read()
    assert not made.exists()
    with zipfile.ZipFile(tmp_path / "table.npz") as archive:
        pickle.loads(archive.read("x.npy").partition(b"\n")[2])  # it would have
    assert made.exists()


def test_formulas_of_a_spreadsheet_are_not_computed(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    from mgnet.app.files.opening import open_data_file

    book = openpyxl.Workbook()
    for row in (("x", "y"), (1.0, "=1+1"), (2.0, "=2+2")):
        book.active.append(row)
    book.save(tmp_path / "table.xlsx")  # without results, as no spreadsheet program saved it
    with pytest.raises(ValueError, match="formula"):
        open_data_file(tmp_path / "table.xlsx").columns(["x", "y"])


OPTIONS = "-mgnet_cycle W(1,1)\n"


def started(folder: Path, code: str) -> bool:
    """Whether a program has started PETSc, in a folder with files of options."""
    for name in (".petscrc", "petscrc"):
        (folder / name).write_text(OPTIONS)
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint('petsc4py.PETSc' in __import__('sys').modules)"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PETSC_OPTIONS": OPTIONS.strip()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1] == "True"


COMMAND = """
import sys
from mgnet.__main__ import command
sys.argv = ["mgnet", "schedule", "V(1,1)", "--levels", "3", *{more}]
try:
    command()
except SystemExit as ended:
    assert not ended.code
"""


def test_the_command_starts_petsc_for_an_option_of_it_alone(petsc, tmp_path):
    assert not started(tmp_path, COMMAND.format(more=[]))
    assert started(tmp_path, COMMAND.format(more=["-options_left", "0"]))


def test_reading_options_starts_nothing(tmp_path):
    code = """
from mgnet import gallery
from mgnet.options import solver_from_options
from mgnet.options.reader import OptionReader
solver_from_options(gallery.poisson(7))
"""
    assert not started(tmp_path, code)


def test_the_picture_of_the_longest_schedule_is_bounded():
    steps = [Step("down", 0), Step("solve", 1), Step("up", 0)]
    for repeats in (10, 150_000):
        schedule = Schedule(steps * repeats)
        assert len(str(schedule)) < 1_200_000
