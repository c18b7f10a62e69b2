"""Trainings on several ranks with a fault on one of them, or from outside.

Each trial starts `rank_training.py` on 2 or 4 ranks, with the `mpiexec` beside this Python. It must
end in time, leave no process and no half file, print one traceback or none, and return the exit
code that belongs to the fault. At the end all trainings are finished on 3 ranks, from what each
left, and must have the bits of one that never met a fault.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from tools.fuzz.harness import Outcome

__all__ = ["run_trials"]

SCRIPT = Path(__file__).with_name("rank_training.py")
LIMIT = 90.0  # seconds for a trial on a busy machine
ORPHANS = 40.0  # seconds for ranks whose launcher was killed
UNINTERRUPTED = "uninterrupted"
TRACEBACK, PRINTED = "Traceback (most recent call last)", "[rank "
QUIET = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    "OMPI_MCA_mpi_yield_when_idle": "1",  # a waiting rank leaves its core to the others
}


@dataclass(frozen=True)
class Expected:
    """How a fault ends.

    Attributes
    ----------
    codes : tuple of int
        Of the launcher; none: any but 0.
    texts : tuple of str
        Printed once each.
    error : bool
        Whether there is a traceback. One of an error that handles another has two parts.
    where : tuple of str
        Places of a step.
    """

    codes: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    error: bool = False
    where: tuple[str, ...] = ("forward", "backward", "step", "checkpoint")


BROKEN = "ArithmeticError: this rank is broken"
LEFT = "which left the script"
KINDS = {
    "exception": Expected((1,), (PRINTED, TRACEBACK, BROKEN), error=True),
    "handled": Expected((1,), (PRINTED, BROKEN, "LookupError: so is what"), error=True),
    "thread": Expected((0,), (TRACEBACK, BROKEN), error=True),
    "exit-0": Expected((1,), (PRINTED, f"{LEFT} with exit code 0;")),
    "exit-3": Expected((3,), (PRINTED, f"{LEFT} with exit code 3;")),
    "exit-no data": Expected((1,), (PRINTED, "no data", f"{LEFT} with exit code 1;")),
    "raised-3": Expected((1,), (PRINTED, f"{LEFT};")),
    "gone-0": Expected(tuple(range(256))),  # MPICH gives 0
    "gone-3": Expected(),
    "nan": Expected((1,), (PRINTED,), error=True, where=("forward", "backward", "step")),
    "full": Expected((1,), (PRINTED,), error=True, where=("checkpoint",)),
    "signal-SIGKILL": Expected(),
    "signal-SIGINT": Expected((130,), ("SIGINT:",)),
    "signal-SIGTERM": Expected((143,), ("SIGTERM:",)),
    "outside-term": Expected(),
    "outside-twice": Expected(),
    "outside-kill": Expected(),
    "outside-stop": Expected((0,)),
    "outside-stop-term": Expected(),
}


@dataclass(frozen=True)
class Fault:
    """What happens in a trial.

    Attributes
    ----------
    kind, where : str
        A key of `KINDS`, and a place in a step.
    rank, step : int
        On this rank, in this step.
    """

    kind: str
    where: str
    rank: int
    step: int


@dataclass
class Trial:
    """One training with a fault, in a folder of its own."""

    number: int
    ranks: int
    fault: Fault
    folder: Path
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Start it, do to it what comes from outside, and look how it ended."""
        begun = time.monotonic()
        self.folder.mkdir()
        command = _command(self.ranks, str(self.folder), json.dumps(asdict(self.fault)))
        with open(self.folder / "out", "wb") as out:
            process = subprocess.Popen(
                command,
                env=os.environ | QUIET,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._from_outside(process.pid)
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"hangs: no end after {LIMIT:.0f} s")
            _kill([process.pid, *self._left()])
            code = process.wait()
        self._wait_for_ranks()
        if not self.wrong:
            self._judge(code)
        self.seconds = time.monotonic() - begun

    def _from_outside(self, launcher: int) -> None:
        if not self.fault.kind.startswith("outside"):
            return
        reached, until = self.folder / "fault", time.monotonic() + LIMIT
        while not (reached.exists() and reached.read_text()):
            if time.monotonic() > until:
                return
            time.sleep(0.02)
        rank, (_, *actions) = int(reached.read_text()), self.fault.kind.split("-")
        if "stop" in actions:
            os.kill(rank, signal.SIGSTOP)
            time.sleep(2.5)
        if "term" in actions or "twice" in actions:
            os.kill(launcher, signal.SIGTERM)
        if "kill" in actions:
            os.kill(launcher, signal.SIGKILL)
        if "twice" in actions:
            time.sleep(0.2)
            _kill([launcher], signal.SIGTERM)
        if "stop" in actions:
            time.sleep(0.5)
            _kill([rank], signal.SIGCONT)

    def _left(self) -> list[int]:
        """Processes of ranks that still run."""
        found = [int(each.read_text() or 0) for each in self.folder.glob("rank-*")]
        return [pid for pid in found if _is_training(pid, self.folder)]

    def _wait_for_ranks(self) -> None:
        until = time.monotonic() + ORPHANS
        while self._left():
            if time.monotonic() > until:
                self.wrong.append(f"{len(self._left())} ranks outlive their launcher")
                return _kill(self._left())
            time.sleep(0.05)

    def _judge(self, code: int) -> None:
        expected = KINDS[self.fault.kind]
        text = (self.folder / "out").read_text(errors="replace")
        if code not in expected.codes and (expected.codes or code == 0):
            self.wrong.append(f"exit code {code} in place of {expected.codes or 'another than 0'}")
        for wanted in expected.texts:
            if text.count(wanted) != 1:
                self.wrong.append(f"{text.count(wanted)} times: {wanted}")
        if (TRACEBACK in text) != expected.error:
            self.wrong.append("no traceback" if expected.error else "a traceback")
        if not (self.folder / "fault").exists():
            self.wrong.append("no fault happened")
        if self.wrong:
            self.wrong.append(text[-1500:])


def run_trials(name: str, count: int, seed: int, first: int = 0) -> Iterator[Outcome]:
    """The outcomes of trials `first` to `first + count - 1`; all come at the end."""
    root = Path(mkdtemp(prefix=f"fuzz-{name}-"))
    try:
        trials = [_drawn(number, seed, root) for number in range(first, first + count)]
        for trial in trials:
            trial.run()
        (root / UNINTERRUPTED).mkdir()
        bits = _resumed(root)
        for trial in trials:
            if not bits or bits[trial.folder.name] != bits[UNINTERRUPTED]:
                trial.wrong.append("other bits after going on from its checkpoint")
            done = trial.folder / "bits"
            if done.exists() and done.read_text() != bits.get(UNINTERRUPTED):
                trial.wrong.append("other bits at its end")
            yield _outcome(trial)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _outcome(trial: Trial) -> Outcome:
    hangs = any("hang" in each or "outlive" in each for each in trial.wrong)
    kind = "right" if not trial.wrong else "hang" if hangs else "different"
    drawn = f"{trial.ranks} ranks, {trial.fault}"
    return Outcome(trial.number, kind, drawn, "\n".join(trial.wrong), round(trial.seconds, 2), 0.0)


def _drawn(number: int, seed: int, root: Path) -> Trial:
    """Every kind comes once in as many trials; the rest is drawn."""
    order = np.random.default_rng(seed).permutation(len(KINDS))
    rng = np.random.default_rng([seed, number])
    kind = list(KINDS)[order[number % len(KINDS)]]
    ranks, where = int(rng.choice([2, 4])), str(rng.choice(KINDS[kind].where))
    rank, step = int(rng.integers(ranks)), int(rng.integers(5))
    fault = Fault(kind, where, rank, step)
    if where == "checkpoint":
        fault = replace(fault, step=step // 2 * 2 + 1)
    if kind == "full":  # rank 0 writes
        fault = replace(fault, rank=0)
    return Trial(number, ranks, fault, root / f"trial-{number}")


def _resumed(root: Path) -> dict[str, str]:
    """A digest of the bits of each trial when its training is finished."""
    quiet = {"env": os.environ | QUIET, "stdin": subprocess.DEVNULL}
    done = subprocess.run(
        _command(3, str(root)), capture_output=True, text=True, check=False, **quiet
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def _command(ranks: int, *arguments: str) -> list[str]:
    launcher = Path(sys.executable).with_name("mpiexec")
    return [str(launcher), "-n", str(ranks), sys.executable, str(SCRIPT), *arguments]


def _is_training(pid: int, folder: Path) -> bool:
    try:
        told = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return str(folder).encode() in told and state != "Z"


def _kill(processes: list[int], number: int = signal.SIGKILL) -> None:
    for pid in processes:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
