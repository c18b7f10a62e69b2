"""`mgnet fit` ended by signals at drawn moments, and writers that race for one folder.

`python -m tools.fuzz interruptions --count 200 --writers 500 --fresh 30`. After each trial the
folder is absent, the former output, or the new one, whole; exit code and sentence agree with it;
only SIGKILL leaves something behind, which the next run names and removes.

Most trials fork from this process, which has loaded all libraries, and run the command in it;
`--fresh` ones start Python, too. Moments are drawn over the whole time, while the output is
written, and among the calls that change names in the file system.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mgnet.app import cli
from mgnet.app.model import Model
from tools.fuzz.writers import (
    EVENTS,
    FIT,
    Folder,
    Trial,
    fork,
    interrupt_writing,
    judge,
    race,
    wait,
)

__all__ = ["main"]

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGKILL


def learn(root: Path) -> tuple[dict[str, dict[str, bytes]], float, int]:
    """The outputs of whole fits, the seconds of one, and its calls that change names."""
    x = np.linspace(0.0, 1.0, 40)
    pairs = zip(x.tolist(), np.sin(5 * x).tolist(), strict=True)
    rows = "".join(f"{a!r},{b!r}\n" for a, b in pairs)
    (root / "data.csv").write_text(f"a,y\n{rows}")
    seconds, calls, here = 0.0, 0, os.getcwd()

    def count(event: str, _arguments: object) -> None:
        nonlocal calls
        calls += event in EVENTS

    sys.addaudithook(count)
    (root / "learn").mkdir()
    os.chdir(root / "learn")
    known = {}
    for name, seed in (("old", "7"), ("warm", "0")):
        shutil.rmtree("out", ignore_errors=True)
        if cli.main([*FIT, "--seed", seed, "--overwrite"]):
            raise RuntimeError("the fit itself fails")
        known[name] = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    os.chdir(here)
    before = calls
    start = time.monotonic()
    os.chdir(root / "learn")
    cli.main([*FIT, "--seed", "0", "--overwrite"])
    os.chdir(here)
    seconds = time.monotonic() - start
    return {"old": known["old"]}, seconds, calls - before


def interrupt(
    root: Path, number: int, rng: np.random.Generator, known: dict, seconds: float, calls: int,
    fresh: bool = False,
) -> Trial:  # fmt: skip
    """One fit, ended by a signal at a drawn moment."""
    where = root / f"trial{number}"
    folder = Folder(where / "out", dict(known))
    where.mkdir()
    former = str(rng.choice(["absent", "old"]))
    if former == "old":
        folder.fill("old")
    sent = int(rng.choice([int(n) for n in SIGNALS]))
    how = "time" if fresh else str(rng.choice(["time", "writing", "call"], p=[0.4, 0.25, 0.35]))
    at = rng.uniform()
    moment = (sent, 1 + int(at * calls)) if how == "call" else None
    arguments = [*FIT, "--seed", "0", "--overwrite"]
    if fresh:
        child = _start([sys.executable, "-m", "mgnet", *arguments], where)
    else:
        sys.argv = ["mgnet", *arguments]
        child = fork(cli.command, where, moment)
    if how == "time":
        time.sleep(at * seconds * 1.1)
    elif how == "writing":
        _wait_for(lambda: _has_stage(where), child)
        time.sleep(at * 0.4 * seconds)
    if how != "call":
        alive = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        os.kill(child, sent)
    else:
        alive = True
    code = wait(child)
    drawn = f"{number} {signal.Signals(sent).name} over {former} by {how} at {at:.3f}"
    if code == 0 and (not alive or folder.path.exists()):
        sent = signal.SIGKILL  # it came after the end: judged by the state alone
    _accept(folder, known)
    trial = judge(folder, former, sent, code, f"{drawn}{' fresh' * fresh}", fresh)
    shutil.rmtree(where)
    return trial


def _accept(folder: Folder, known: dict) -> None:
    """Take what is there for the new output if it is one: report and model fit each other."""
    report = folder.path / "report.md"
    try:
        there = {p.name: p.read_bytes() for p in folder.path.iterdir() if p.is_file()}
        there = {n: c for n, c in there.items() if n != "notes.txt" and n[0] != "."}
        if there.get("model.json") == known["old"]["model.json"]:
            return
        model = Model.load(folder.path)
    except (OSError, ValueError):
        return
    x = np.linspace(0.0, 1.0, 40)
    if np.abs(model.predict(x[:, None]) - np.sin(5 * x)).max() > 3.0:
        return
    old = {n for n in there if n in known["old"] and there[n] == known["old"][n]}
    if old or (report.exists() and "--seed 0" not in report.read_text()):
        return
    whole = set(known["old"]) == set(there)
    folder.known["new" if whole else "best"] = there


def _has_stage(where: Path) -> bool:
    """Whether a folder of unfinished files has some."""
    try:
        return any(any(path.iterdir()) for path in where.glob(".out-unfinished-*"))
    except OSError:  # it is gone again
        return True


def _start(command: list[str], where: Path) -> int:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with (where / "out.txt").open("w") as out, (where / "err.txt").open("w") as err:
        process = subprocess.Popen(
            command, cwd=where, stdout=out, stderr=err, env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    process.returncode = 0  # `wait` waits for it
    return process.pid


def _wait_for(condition: Callable[[], bool], child: int) -> None:
    while not condition():
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.0005)


# The command


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; 1 if there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz interruptions", description=__doc__)
    parser.add_argument("--count", type=int, default=0, help="fits that are interrupted")
    parser.add_argument("--fresh", type=int, default=0, help="the same with Python's own start")
    parser.add_argument("--writing", type=int, default=0, help="writers that are killed")
    parser.add_argument("--writers", type=int, default=0, help="pairs of writers")
    parser.add_argument("--commands", type=int, default=0, help="pairs of whole fits")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    faults = 0
    with TemporaryDirectory(prefix="fuzz-interruptions-") as name:
        root = Path(name)
        fits = given.count or given.fresh or given.commands
        known, seconds, calls = learn(root) if fits else ({}, 0.0, 0)
        parts = [
            (given.count, lambda k, rng: interrupt(root, k, rng, known, seconds, calls)),
            (given.writing, lambda k, rng: interrupt_writing(root, k, rng)),
            (given.writers, lambda k, rng: race(root, k, rng)),
            (given.commands, lambda k, rng: race(root, 10**6 + k, rng, True)),
        ]
        if given.fresh:
            start = time.monotonic()
            (root / "fresh").mkdir()
            wait(_start([sys.executable, "-m", "mgnet", *FIT], root / "fresh"))
            whole = time.monotonic() - start
            parts.append(
                (given.fresh, lambda k, rng: interrupt(root, 10**7 + k, rng, known, whole, 0, True))
            )
        for part, (count, run) in enumerate(parts):
            states: Counter[str] = Counter()
            for number in range(count):
                trial = run(number, np.random.default_rng([given.seed, part, number]))
                states[trial.state if not trial.wrong else "FAULT"] += 1
                if trial.wrong:
                    faults += 1
                    print(trial, flush=True)
            if count:
                name = ("interruptions", "writing", "pairs", "pairs of fits", "fresh")[part]
                print(f"{name}, seed {given.seed}: {count} trials: {dict(states)}", flush=True)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
