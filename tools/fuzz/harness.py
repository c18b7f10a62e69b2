"""Trials in a process that may hang, grow or die, and what came out of each.

A fuzzer is a module beside this one with a class `Fuzzer` (see `Target`). Each trial draws its
input from `numpy.random.default_rng([seed, number])`, so that one can be run again alone. Trials
run one after another in a child process; the parent kills it when a trial takes too long.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Protocol

import numpy as np

__all__ = ["Outcome", "Target", "run_trials", "summary"]

GOOD = "refused", "right"
FAULTS = "raw", "different", "hang", "memory", "died"
SECONDS = 2.0  # of processor time that a trial may take: a busy machine does not count as a fault
GRACE = 28.0  # seconds until the process is killed: a busy machine may keep it waiting
MEGABYTES = 300.0  # that a trial may add to the memory of its process
LONGEST = 1000  # characters of a refusal


class Target(Protocol):
    """What a fuzzer tries.

    Attributes
    ----------
    refusals : tuple of type
        Exceptions that the functions under test document.
    """

    refusals: tuple[type[BaseException], ...]

    def prepare(self, folder: Path) -> None:
        """Make what the trials begin with, once for each process; `folder` is empty."""
        ...

    def draw(self, rng: np.random.Generator, folder: Path) -> str:
        """Make the input of one trial, in an empty folder; return what was done, in one line."""
        ...

    def use(self, folder: Path) -> bool:
        """Use the input as a user would, timed; False if the result is wrong without an error."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What one trial came to.

    Attributes
    ----------
    number : int
        Of the trial.
    kind : str
        "refused" (by a documented exception of one line), "right", or a fault: "raw" (another
        exception), "different" (a wrong result, and no error), "hang", "memory", "died".
    drawn : str
        What was done.
    told : str
        The refusal, or the last lines of the traceback.
    seconds, megabytes : float
        That it took, without waiting for a processor, and added to the memory of the process at
        most.
    """

    number: int
    kind: str
    drawn: str
    told: str
    seconds: float
    megabytes: float

    @property
    def is_fault(self) -> bool:
        """Whether this must not happen."""
        return self.kind in FAULTS


def run_trials(name: str, count: int, seed: int, first: int = 0) -> Iterator[Outcome]:
    """The outcomes of trials `first` to `first + count - 1` of the fuzzer `name`."""
    number, end = first, first + count
    while number < end:
        command = [
            sys.executable,
            "-m",
            "tools.fuzz.harness",
            name,
            str(seed),
            str(number),
            str(end),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
            assert child.stdout is not None
            drawn = ""
            for line in _lines(child, child.stdout):
                told = json.loads(line)
                if "begins" in told:
                    number, drawn = told["begins"], told["drawn"]
                    continue
                yield Outcome(**told)
                number += 1
            code = child.wait()
        if number < end:  # the child stopped early, in this trial
            kind = "hang" if code == -signal.SIGKILL else "died"
            yield Outcome(number, kind, drawn, f"exit code {code}", SECONDS + GRACE, 0.0)
            number += 1


def _lines(child: subprocess.Popen[bytes], stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of a child, which is killed when nothing comes for too long."""
    patience, rest = 120.0, b""  # imports and `prepare`
    while select.select([stream], [], [], patience)[0]:
        part = os.read(stream.fileno(), 2**16)
        if not part:
            return
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
        patience = SECONDS + GRACE
    child.kill()


def summary(outcomes: list[Outcome]) -> str:
    """One line: how many of which kind, the longest time and the most memory."""
    kinds = Counter(outcome.kind for outcome in outcomes)
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in (*GOOD, *FAULTS))
    slowest = max(outcome.seconds for outcome in outcomes)
    largest = max(outcome.megabytes for outcome in outcomes)
    return f"{len(outcomes)} trials: {counts}; at most {slowest:.2f} s, {largest:.0f} MB"


def _child(name: str, seed: int, first: int, end: int) -> None:
    from importlib import import_module

    target: Target = import_module(f"tools.fuzz.{name}").Fuzzer()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is printed is not the protocol
    root = Path(mkdtemp(prefix=f"fuzz-{name}-"))
    try:
        (root / "prepared").mkdir()
        target.prepare(root / "prepared")
        for number in range(first, end):
            folder = root / "trial"
            folder.mkdir()
            drawn = target.draw(np.random.default_rng([seed, number]), folder)
            print(json.dumps({"begins": number, "drawn": drawn}), file=out, flush=True)
            outcome = _trial(target, number, drawn, folder)
            print(json.dumps(vars(outcome)), file=out, flush=True)
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _trial(target: Target, number: int, drawn: str, folder: Path) -> Outcome:
    before = _reset_peak()
    start, queued = time.perf_counter(), _queued()
    told = ""
    try:
        kind = "right" if target.use(folder) else "different"
    except target.refusals as error:
        told = str(error)
        one_line = "\n" not in told.strip() and told.strip() and len(told) <= LONGEST
        kind = "refused" if one_line else "raw"
    except BaseException:
        kind, told = "raw", "".join(traceback.format_exc().splitlines(keepends=True)[-8:])
    seconds = time.perf_counter() - start - (_queued() - queued)
    megabytes = _peak() - before
    if kind in GOOD and seconds > SECONDS:
        kind = "hang"
    if kind in GOOD and megabytes > MEGABYTES:
        kind = "memory"
    return Outcome(number, kind, drawn, told[:2000], round(seconds, 3), round(megabytes, 1))


def _queued() -> float:
    """Seconds of waiting for a processor: a busy machine does not count as a hang."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) * 1e-9
    except (OSError, IndexError):
        return 0.0


def _reset_peak() -> float:
    """Megabytes in use now; the peak is counted from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _peak() -> float:
    return _memory("VmHWM")


def _memory(field: str) -> float:
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


if __name__ == "__main__":
    fuzzer, *numbers = sys.argv[1:]
    _child(fuzzer, *map(int, numbers))
