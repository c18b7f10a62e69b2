"""Try a built wheel under every supported Python, each with the oldest and the newest NumPy.

For each Python that is found, a fresh virtual environment outside the tree gets the wheel with its
extra `app` and pytest; then the tests of the source distribution run there, without the folder
mgnet/ beside them, so that they can only import what the wheel installed: the examples of the
README and a selection of suites of the core and of each package. A Python that is not here is named
in a sentence and not counted.

    make dist                                  # writes the wheel and the source distribution
    python tools/wheel_matrix.py               # tries what lies in dist/
    python tools/wheel_matrix.py --only 3.12 --torch-index URL --interpreter /opt/python3.12

PyTorch's default build for Linux takes about five gigabytes of disk while a Python is tried;
`--torch-index` names the index of the small CPU build.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# Python -> the oldest NumPy from 1.26 on that has a wheel for it.
OLDEST_NUMPY = {
    "3.10": "1.26.4",
    "3.11": "1.26.4",
    "3.12": "1.26.4",
    "3.13": "2.1.0",
    "3.14": "2.3.2",
}
TEST_TOOLS = ["pytest>=9", "hypothesis>=6.100", "pyamg>=5.1"]
TESTS = [
    "tests/test_docs.py::test_examples_of_the_page[README.md]",
    *(f"tests/test_{name}.py" for name in ("solver", "hierarchy", "interpreter", "gauss_seidel")),
    *(f"tests/test_{name}.py" for name in ("krylov", "tensor_levels", "gallery", "__main__")),
    "tests/knots/test_kan.py",
    "tests/depth/network/test_ode_net.py",
    "tests/training/least_squares/test_levenberg_marquardt.py",
    "tests/checkpoint/test_checkpoint.py",
    "tests/estimators/test_estimator.py",
    "tests/estimators/test_rows.py",
]
VERSIONS = """
import numpy, scipy, torch
print(f"NumPy {numpy.__version__}, SciPy {scipy.__version__}, PyTorch {torch.__version__}")
"""


class Cell(NamedTuple):
    """One Python with one NumPy: the versions that pip chose, and how it went."""

    python: str
    versions: str
    outcome: str
    passed: bool


def version_of(interpreter: Path | str) -> str:
    """Return "3.12" and the like, or "" if the program is not a working Python."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def candidates(python: str, given: Iterable[str]) -> Iterator[Path | str]:
    """Yield the places where a Python may be: those given, the PATH, pyenv's, uv's."""
    yield from given
    found = shutil.which(f"python{python}")
    if found:
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{python}.*/bin/python"), reverse=True)
    if shutil.which("uv"):
        command = ["uv", "python", "find", "--no-python-downloads", python]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            yield done.stdout.strip()


def find(python: str, given: Iterable[str] = ()) -> Path | str | None:
    """Return an interpreter of this version, or None."""
    fitting = (place for place in candidates(python, given) if version_of(place) == python)
    return next(fitting, None)


def environment() -> dict[str, str]:
    """Return the environment without what could lead to another mgnet or another Python."""
    clean = {key: text for key, text in os.environ.items() if not key.startswith("PYTHON")}
    return {**clean, "OMP_NUM_THREADS": "1"}


def execute(command: list[str], folder: Path, log: Path) -> bool:
    """Run a command, its output at the end of a file, and say whether it succeeded."""
    with log.open("a") as out:
        print(f"\n$ {' '.join(command)}", file=out, flush=True)
        done = subprocess.run(
            command, cwd=folder, env=environment(), stdout=out, stderr=subprocess.STDOUT
        )
    return done.returncode == 0


def unpack_tests(sdist: Path, folder: Path) -> Path:
    """Unpack a source distribution without the library, so that only the wheel can be imported."""
    with tarfile.open(sdist) as archive:
        if sys.version_info >= (3, 12):
            archive.extractall(folder, filter="data")
        else:
            archive.extractall(folder)
    (unpacked,) = folder.iterdir()
    shutil.rmtree(unpacked / "mgnet")
    return unpacked


def try_python(
    python: str,
    interpreter: Path | str,
    wheel: Path,
    sdist: Path,
    torch_index: str,
    tests: list[str],
) -> Iterator[Cell]:
    """Install and test the wheel under one Python, with the newest NumPy and with the oldest."""
    log = sdist.parent / f"wheel-matrix-{python}.log"
    log.write_text("")
    with tempfile.TemporaryDirectory() as place:
        venv, tree = Path(place, "venv"), Path(place, "sdist")
        tree.mkdir()
        tree = unpack_tests(sdist, tree)
        program = str(venv / "bin" / "python")
        pip = [
            program,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--disable-pip-version-check",
        ]
        if not execute([str(interpreter), "-m", "venv", str(venv)], tree, log):
            yield Cell(python, "", f"no virtual environment could be made (see {log})", False)
            return
        index = ["--index-url", torch_index]
        if torch_index and not execute([*pip, "--no-deps", *index, "torch"], tree, log):
            yield Cell(python, "", f"PyTorch could not be installed (see {log})", False)
            return
        for end, numpy in (("newest", "numpy"), ("oldest", f"numpy=={OLDEST_NUMPY[python]}")):
            begin = monotonic()
            if not execute([*pip, numpy, f"{wheel}[app]", *TEST_TOOLS], tree, log):
                yield Cell(python, f"{end} NumPy", f"pip could not install it (see {log})", False)
                continue
            done = subprocess.run([program, "-c", VERSIONS], capture_output=True, text=True)
            versions = done.stdout.strip() or "the packages do not import"
            command = [program, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
            passed = execute(command, tree, log)
            outcome = "passed" if passed else f"failed (see {log})"
            yield Cell(python, versions, f"{outcome}, {monotonic() - begin:.0f} s", passed)


def newest(folder: Path, pattern: str) -> Path:
    """Return the newest file that fits, or end with a sentence."""
    found = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime)
    if not found:
        sys.exit(f"wheel_matrix: there is no {pattern} in {folder}; `make dist` builds it")
    return found[-1].resolve()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="try a wheel under every supported Python")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder of the archives")
    parser.add_argument("--only", nargs="+", choices=list(OLDEST_NUMPY), metavar="3.x")
    parser.add_argument("--interpreter", nargs="+", default=[], help="more Pythons to look at")
    parser.add_argument("--torch-index", default="", help="index of PyTorch's CPU build")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="default: a selection")
    given = parser.parse_args(arguments)
    wheel, sdist = newest(given.dist, "*.whl"), newest(given.dist, "*.tar.gz")
    print(f"{wheel.name}, with the tests of {sdist.name}", flush=True)
    cells: list[Cell] = []
    for python in given.only or OLDEST_NUMPY:
        interpreter = find(python, given.interpreter)
        if interpreter is None:
            print(f"Python {python}: not tried, there is none here", flush=True)
            continue
        for cell in try_python(python, interpreter, wheel, sdist, given.torch_index, given.tests):
            print(f"Python {cell.python}, {cell.versions}: {cell.outcome}", flush=True)
            cells.append(cell)
    failed = [cell for cell in cells if not cell.passed]
    print(f"{len(cells) - len(failed)} passed, {len(failed)} failed")
    return int(bool(failed) or not cells)


if __name__ == "__main__":
    sys.exit(main())
