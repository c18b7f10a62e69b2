"""Results of benchmarks on disk: one JSON file each, from which docs/benchmarks.md is generated.

`rows` are flat and hold medians as `..._median`, spreads as `..._least` and `..._largest`; every
docstring of a benchmark describes its measurements.
"""

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = {  # module -> name in print
    "numpy": "NumPy",
    "scipy": "SciPy",
    "torch": "PyTorch",
    "sklearn": "scikit-learn",
    "pyamg": "PyAMG",
    "petsc4py": "PETSc",
    "pymgrit": "pyMGRIT",
    "numba": "numba",
}
Row = dict[str, Any]


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--save",
        nargs="?",
        type=Path,
        const=RESULTS,
        metavar="FOLDER",
        help="keep rows and text in FOLDER, benchmarks/results by default",
    )


def command() -> str:
    """What was typed, without where results and data lie."""
    words, before = ["python", f"benchmarks/{Path(sys.argv[0]).name}"], ""
    for word in sys.argv[1:]:
        if word != "--save" and (before != "--save" or word.startswith("-")):
            words.append(Path(word).name if Path(word).is_absolute() else word)
        before = word
    ranks = os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("PMI_SIZE") or "1"
    words[:0] = [] if ranks == "1" else ["mpiexec", "-n", ranks]
    threads = os.environ.get("OMP_NUM_THREADS")
    return (f"OMP_NUM_THREADS={threads} " if threads else "") + shlex.join(words)


def machine() -> Row:
    torch, threads = sys.modules.get("torch"), os.environ.get("OMP_NUM_THREADS")
    count = torch.get_num_threads() if torch else int(threads) if threads else os.cpu_count()
    return {"cores": os.cpu_count(), "architecture": platform.machine(), "threads": count}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that this process has imported."""
    found = {"Python": platform.python_version()}
    for name, title in PACKAGES.items():
        if name in sys.modules:
            known = getattr(sys.modules[name], "__version__", None)
            found[title] = str(known or metadata.version(name))
    return found


def heading() -> str:
    """Two lines for the top of a text: the command, machine and versions."""
    told = machine()
    where = f"{told['cores']} cores, {told['threads']} threads, {told['architecture']}"
    return f"{command()}\n{where}, " + ", ".join(f"{k} {v}" for k, v in versions().items())


def target(name: str, goal: str, measured: str, met: bool) -> Row:
    return {"name": name, "target": goal, "measured": measured, "met": met}


def today() -> str:
    """The date, as a result is marked with it."""
    return datetime.now(timezone.utc).date().isoformat()


def verdicts(targets: Sequence[Row]) -> list[str]:
    """A line for each target."""
    ends = {True: "reached", False: "not reached"}
    return [
        f"{goal['name']}: {goal['measured']}, target {goal['target']}, {ends[bool(goal['met'])]}"
        for goal in targets
    ]


def save(
    folder: Path, name: str, setting: str, rows: Sequence[Row], targets: Sequence[Row], text: str
) -> None:
    """Write `name.json` and `name.txt`; `setting` has seeds, seconds and sizes in one line."""
    result = {"command": command(), "setting": setting, "measured": today(), "machine": machine()}
    result |= {"versions": versions(), "rows": list(rows), "targets": list(targets)}
    write(folder / f"{name}.json", result)
    (folder / f"{name}.txt").write_text(text.rstrip("\n") + "\n")


def kept_runs(path: Path) -> list[Row]:
    """Runs that were kept one by one."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def found_run(runs: list[Row], about: Row) -> Row | None:
    """The run with these entries, if there is one."""
    return next((run for run in runs if about == {key: run[key] for key in about}), None)


def keep_run(path: Path, run: Row) -> None:
    with path.open("a") as file:
        file.write(json.dumps(run) + "\n")


def place() -> str:
    """Where a run was made, in a line; for scripts that have imported torch."""
    torch: Any = sys.modules["torch"]
    return (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}"
    )


def save_table(name: str, told: Row, text: str) -> None:
    """As `save`, of runs that several calls of a script have kept: the command is that of all."""
    command = f"OMP_NUM_THREADS=1 python benchmarks/{name}.py --save"
    write(RESULTS / f"{name}.json", {"command": command, "measured": today()} | told)
    (RESULTS / f"{name}.txt").write_text(text + "\n")


def write(path: Path, result: Row) -> None:
    """One row a line, so that changes can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for key, value in result.items():
        if isinstance(value, list) and value:
            inside = ",\n".join(f"    {json.dumps(row)}" for row in value)
            lines.append(f"  {json.dumps(key)}: [\n{inside}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def read(name: str) -> Row | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None
