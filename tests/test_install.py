"""Law: an installed mgnet is found from every folder, and type checkers see its annotations.

The version is that of the newest tag, and the source distribution holds the whole repository. A
fresh virtual environment borrows the packages of the running one, so nothing is downloaded.
"""

import os
import re
import shutil
import subprocess
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def lacking() -> str:
    """The tool that this environment lacks, or ""."""
    for tool, least in (("pip", 21), ("setuptools", 77), ("setuptools-scm", 8)):
        try:
            if int(version(tool).split(".")[0]) < least:
                return f"{tool} is older than {least}"
        except PackageNotFoundError:
            return f"{tool} is not installed"
    return ""


pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder that holds a clone called mgnet and an environment called venv."""
    folder = tmp_path_factory.mktemp("install")
    clone = folder / "mgnet"
    clone.mkdir()
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, clone)
    shutil.copytree(ROOT / "mgnet", clone / "mgnet", ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(folder / "venv", symlinks=True)
    packages = python(folder, "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # After the files of an editable install: a path here is searched after theirs.
    Path(packages, "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def python(folder: Path, code: str, *, cwd: str = ".") -> str:
    return execute(folder, "-c", code, cwd=cwd)


def execute(folder: Path, *arguments: str, cwd: str = ".") -> str:
    clean = {key: text for key, text in os.environ.items() if not key.startswith("PYTHON")}
    process = subprocess.run(
        [folder / "venv" / "bin" / "python", *arguments],
        cwd=folder / cwd,
        env=clean,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def pip(folder: Path, command: str, *arguments: str) -> None:
    quiet = "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"
    execute(folder, "-m", "pip", command, *quiet, "--no-index", *arguments)


def test_an_editable_install_is_found_beside_a_clone_called_mgnet(folder):
    pip(folder, "install", "--ignore-installed", "--editable", "mgnet")
    for cwd in (".", "mgnet", "venv"):
        found = python(folder, "import mgnet; print(mgnet.Solver, mgnet.__file__)", cwd=cwd)
        assert found.startswith("<class 'mgnet.solver.Solver'>")
        assert Path(found.split()[-1]) == folder / "mgnet" / "mgnet" / "__init__.py"


def test_the_wheel_holds_the_package_and_its_typing_marker(folder):
    pip(folder, "wheel", "--wheel-dir", "wheels", "./mgnet")
    (wheel,) = (folder / "wheels").glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    library = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mgnet").rglob("*.py")}
    assert names == library | {"mgnet/py.typed"}


def test_a_copy_without_git_has_the_version_of_the_release(folder):
    pip(folder, "install", "--ignore-installed", "./mgnet")
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[(\d\S*)\]", changelog, re.MULTILINE)
    code = "import sys, mgnet; print(mgnet.__version__, 'setuptools_scm' in sys.modules)"
    assert newest and python(folder, code, cwd="venv").split() == [newest[1], "False"]


SDIST = "from setuptools import build_meta; print(build_meta.build_sdist('../sdists'))"


def test_the_source_distribution_of_a_tag_holds_the_repository(folder):
    def git(*arguments: str, cwd: Path = folder / "tagged") -> str:
        done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone of git")
    git("clone", "--quiet", "--shared", str(ROOT), "tagged", cwd=folder)
    git("tag", "v7.8.9")
    (folder / "sdists").mkdir()
    python(folder, SDIST, cwd="tagged")
    with tarfile.open(folder / "sdists" / "mgnet_solvers-7.8.9.tar.gz") as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    tracked = set(git("ls-files").splitlines())
    assert {"tests/test_install.py", "demos/data/co2_density.csv", "conftest.py"} <= tracked
    assert tracked <= inside
