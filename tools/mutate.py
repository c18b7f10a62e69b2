"""Break a copy of the library in one place at a time, and see whether the nearest tests notice.

    python tools/mutate.py --list              # the table in mutations.py
    python tools/mutate.py --only lm- budget-  # those whose names begin so
    python tools/mutate.py                     # all of them: ten to twenty minutes

The exit status is 1 if a mutation survives, and 2 if one cannot be tried: its text is not in its
file exactly once, or its tests fail on the library as it is. Those of mgnet/petsc need PETSc: tests
that are skipped notice nothing. Not a part of CI.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # also where a test runs this file
from mutations import TABLE, Mutation  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
NOT_COPIED = (".*", "__pycache__", "*.egg-info", "build", "site")
SECONDS = 600  # a mutation may make a loop endless


def fault(mutation: Mutation, root: Path) -> str | None:
    """Why a mutation cannot be tried on the tree at root."""
    file = root / mutation.file
    count = file.read_text().count(mutation.text) if file.is_file() else 0
    if count != 1:
        return f"{mutation.name}: {mutation.file} has its text {count} times, not once"
    missing = [test for test in mutation.tests if not (root / test).is_file()]
    return f"{mutation.name}: there is no {missing[0]}" if missing else None


@contextmanager
def broken(mutation: Mutation, root: Path) -> Iterator[None]:
    """The tree at root with the mutation in it, for a while."""
    file = root / mutation.file
    whole = file.read_text()
    file.write_text(whole.replace(mutation.text, mutation.becomes))
    try:
        yield
    finally:
        file.write_text(whole)


def passes(tests: Sequence[str], root: Path) -> bool:
    """Whether tests pass on the tree at root; one that does not end does not pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    # Compiled files are known by whole seconds: a mutation may be younger than that.
    ours = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=os.environ | ours,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run {' '.join(tests)}:\n{done.stdout[-2000:]}")
    return done.returncode == 0


def survivors(chosen: Sequence[Mutation], root: Path) -> list[str]:
    """The names of the mutations that no test notices; prints the verdict on each."""
    found, known = [], set()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
        for mutation in chosen:
            for test in set(mutation.tests) - known:
                if not passes([test], copy):
                    raise RuntimeError(f"{test} fails without any mutation")
            known |= set(mutation.tests)
            began = time.perf_counter()
            with broken(mutation, copy):
                survives = passes(mutation.tests, copy)
            verdict = "SURVIVES" if survives else "caught"
            seconds = time.perf_counter() - began
            print(f"{verdict:<9} {mutation.name:<28} {seconds:5.1f} s", flush=True)
            found += [mutation.name] * survives
    return found


def main(arguments: Sequence[str], table: Sequence[Mutation] = TABLE, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description="Break the library, see whether tests notice.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="those whose names begin so")
    parser.add_argument("--list", action="store_true", help="show the table, try nothing")
    given = parser.parse_args(arguments)
    chosen = [each for each in table if each.name.startswith(tuple(given.only or [""]))]
    if given.list:
        for each in chosen:
            print(f"{each.name:<28} {each.file}: {each.breaks}")
        return 0
    faults = [found for each in chosen if (found := fault(each, root))]
    if faults or not chosen:
        parser.error("\n".join(faults) or f"no mutation begins with {', '.join(given.only)}")
    try:
        found = survivors(chosen, root)
    except RuntimeError as error:
        parser.error(str(error))
    print(f"{len(chosen) - len(found)} of {len(chosen)} caught", *found, sep="\n  survives: ")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
