"""What pytest must know before it looks for doctests in the library."""

import gc
import os
import platform
import random
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

NEEDS = {
    "petsc": ("petsc4py", "mpi4py"),
    "app": ("click", "rich", "matplotlib", "sklearn", "safetensors"),
}
# Where there are wheels of it, `make test` installs Triton and insists on its tests.
TRITON = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
LIBRARY = Path(__file__).parent / "mgnet"
TESTS = Path(__file__).parent / "tests"


def pytest_configure() -> None:
    """Search for garbage seldom; let NumPy 2 print as NumPy 1 does: doctests run with both."""
    gc.set_threshold(50_000)  # torch makes so many objects that searches for garbage take seconds
    if int(np.__version__.split(".")[0]) >= 2:
        np.set_printoptions(legacy="1.25")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out scripts, and, except under `make test`, what lacks its dependencies."""
    insists = os.environ.get("MGNET_REQUIRE_PETSC") == "1"
    if collection_path.name.startswith("triton_") and not (insists and TRITON):
        if not find_spec("triton"):
            return True
    scripts = collection_path.parent in (TESTS / "mpi", TESTS / "crossings")
    if scripts and not collection_path.name.startswith("test_"):
        return True
    if insists:
        return None
    for folder, packages in NEEDS.items():
        inside = collection_path.is_relative_to(LIBRARY / folder)
        if inside and not all(find_spec(package) for package in packages):
            return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what starts ranks: under `make test` it takes as long as all the rest."""
    items.sort(key=lambda item: item.get_closest_marker("mpi") is None)


def pytest_collection_finish() -> None:
    """Let no search for garbage look at the libraries and at 13 000 tests again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Under `pytest -n` keep files together, and all that starts ranks in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "ranks" if file.startswith("tests/mpi/") else file

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same weights in every test, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
