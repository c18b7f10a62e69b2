"""Importing mgnet loads no heavy library, and warns when a foreign `mgnet` is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mgnet

ROOT = Path(mgnet.__file__).parents[1]


def python(code, *paths):
    """Run code in a fresh interpreter whose path begins with these folders."""
    path = os.pathsep.join(map(str, [*paths, ROOT]))
    process = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        cwd=paths[0] if paths else None,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout, process.stderr


def distribution(folder, name):
    info = folder / f"{name.replace('-', '_')}-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")


def test_import_loads_no_heavy_library():
    heavy = ["torch", "petsc4py", "mpi4py", "numba", "matplotlib", "pyamg", "click", "rich"]
    code = f"import sys, mgnet; print([name for name in {heavy} if name in sys.modules])"
    assert python(code)[0].strip() == "[]"


@pytest.mark.parametrize(("name", "warns"), [("mgnet", True), ("mgnet-other", False)])
def test_a_foreign_distribution_is_warned_of(tmp_path, name, warns):
    distribution(tmp_path, name)
    _, errors = python("import mgnet", tmp_path)
    assert ("another project's distribution 'mgnet' is installed" in errors) is warns
    assert ("reinstall 'mgnet-solvers'" in errors) is warns


def test_the_version_is_that_of_the_distribution(tmp_path):
    distribution(tmp_path, "mgnet-solvers")
    out, errors = python("import mgnet; print(mgnet.__version__)", tmp_path)
    assert out.strip() == "9.9"
    assert "mgnet" not in errors


def test_the_version_without_a_distribution():
    assert mgnet._version_of("no-such-distribution-of-mgnet") is None


def test_all_names_exist():
    assert len(set(mgnet.__all__)) == len(mgnet.__all__)
    for name in mgnet.__all__:
        assert getattr(mgnet, name) is not None
