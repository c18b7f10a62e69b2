"""Fixtures for what may be missing: PETSc and an MPI launcher.

Plain `pytest` skips the tests that need them and says why. Under `make test`
(MGNET_REQUIRE_PETSC=1) the same tests fail.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
from hypothesis import settings

settings.register_profile("mgnet", deadline=None)  # a busy machine is no failure
settings.load_profile("mgnet")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts jobs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).parent
# PyTorch takes a device of others once for a process: these run in one of their own.
collect_ignore = ["played_device.py", "training/least_squares/device_cases.py"]
if "MGNET_CASES" in os.environ:
    collect_ignore = []
QUIET = {
    "OMP_NUM_THREADS": "1",  # ranks must not fight for cores
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",  # a waiting rank leaves its core to the others
}


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it under `make test`."""
    reason = f"{what}; tools/setup_petsc.py sets it up"
    if os.environ.get("MGNET_REQUIRE_PETSC") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def petsc() -> ModuleType:
    """Return the module petsc4py.PETSc, initialised without command-line options."""
    try:
        import petsc4py
        from mpi4py import MPI  # noqa: F401
    except ImportError as error:
        missing(f"petsc4py or mpi4py does not import ({error})")
    petsc4py.init([])
    from petsc4py import PETSc

    return PETSc


@pytest.fixture
def options(petsc, monkeypatch) -> Iterator[Callable[[str], None]]:
    """Return a function that sets PETSc options, written as on a command line, for one test."""
    monkeypatch.setattr("mgnet.options.reader._read", set())
    database = petsc.Options()
    before = set(database.getAll())

    def give(line: str) -> None:
        words = shlex.split(line)
        quoted = (f'"{word}"' if " " in word else word for word in words)
        database.insertString(" ".join(quoted))

    yield give
    for name in set(database.getAll()) - before:
        database.delValue(name)


RESET = "\x1b[0m"  # colorama, which comes with the documentation tools, prints it at the end


def run_group(command: list[str], timeout: float) -> tuple[int, str, str]:
    """Run a command as a process group, so that a hanging rank does not outlive its launcher.

    Should pytest itself be killed meanwhile, coreutils' `timeout` still ends the launcher.
    """
    guard = shutil.which("timeout")
    last = [guard, "--kill-after=10", str(timeout + 30.0)] if guard else []
    process = subprocess.Popen(
        [*last, *command],
        env=os.environ | QUIET,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            out, err = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        return -1, out, f"{err}\nno end after {timeout} s"
    return process.returncode, out, err


@pytest.fixture(scope="session")
def mpiexec() -> Callable[..., str]:
    """Return a function that runs tests/mpi/<script> on n ranks and returns what it printed."""
    if not (find_spec("petsc4py") and find_spec("mpi4py")):
        missing("petsc4py or mpi4py is not installed")
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    if launcher is None:
        missing("there is no mpiexec")

    def run(script: str, ranks: int, *arguments: str, timeout: float = 120.0) -> str:
        command = [str(launcher), "-n", str(ranks), sys.executable, str(HERE / "mpi" / script)]
        status, out, err = run_group([*command, *arguments], timeout)
        assert status == 0, f"{script} on {ranks} ranks ended with {status}\n{out}\n{err}"
        return out.replace(RESET, "")

    return run
