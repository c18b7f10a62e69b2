"""Writers of an output folder without a fit: killed at drawn moments, or two of them at once.

And what `tools.fuzz.interruptions` shares with them: processes, and what a folder may be after one.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mgnet.app import cli
from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.model import Model
from mgnet.app.output_folder import claimed, filled
from mgnet.estimators.scales import Scales
from mgnet.knots import KAN

__all__ = ["EVENTS", "FIT", "Folder", "Trial", "fork", "interrupt_writing", "judge", "race", "wait"]

FIT = "fit ../data.csv --target y --hidden 2 --levels 1 --evaluations 12 --out out".split()
EVENTS = {"os.rename", "os.link", "os.mkdir", "os.rmdir", "os.remove", "ctypes.call_function"}
PATIENCE = 300.0
ROWS = np.linspace(-0.5, 1.5, 5)[:, None]
CALLS = 22  # about as many as a writer needs


@dataclass
class Folder:
    """The output folder of a trial, and what may be in it.

    Attributes
    ----------
    path : Path
    known : dict
        Files by name, for each output that may be there; "old" is the former one, if any.
    """

    path: Path
    known: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def fill(self, kind: str) -> None:
        """Make a former output, among files of a user."""
        self.path.mkdir(parents=True)
        for name, content in self.known[kind].items():
            (self.path / name).write_bytes(content)
        (self.path / "notes.txt").write_text("mine")
        (self.path / "sub").mkdir()
        (self.path / "sub" / "deep.txt").write_text("mine, too")

    def state(self) -> str:
        """Which output is there, whole: its name, "absent", or what is wrong."""
        if not os.path.lexists(self.path):
            return "absent"
        there = {p.name: p.read_bytes() for p in self.path.iterdir() if p.is_file()}
        there.pop("notes.txt", None)
        there = {name: content for name, content in there.items() if name[0] != "."}
        for name, files in self.known.items():
            if there == files:
                Model.load(self.path).predict(ROWS[:, [0] * len(Model.load(self.path).names)])
                return name
        return f"mixed: {sorted(there)}"

    def is_kept(self) -> bool:
        """Whether the files of the user are there."""
        notes, deep = self.path / "notes.txt", self.path / "sub" / "deep.txt"
        return notes.is_file() and deep.is_file() and deep.read_text() == "mine, too"

    def left(self) -> list[str]:
        """Hidden files in it and beside it."""
        places = [self.path.parent, self.path] if self.path.is_dir() else [self.path.parent]
        return [p.name for place in places if place.is_dir() for p in place.iterdir()
                if p.name.startswith(".") or p.name.startswith("model-")]  # fmt: skip


# Processes


def fork(work: Callable[[], None], cwd: Path, moment: tuple[int, int] | None = None) -> int:
    """Run a function in a child whose output goes to files out.txt and err.txt; its number.

    Parameters
    ----------
    work : callable
        May raise SystemExit.
    cwd : Path
    moment : (int, int), optional
        The child sends itself this signal at this call that changes names.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        for number, name in ((1, "out.txt"), (2, "err.txt")):
            stream = os.open(cwd / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(stream, number)
        os.chdir(cwd)
        os.fsync = lambda fd: None  # no trial cuts the power
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if moment:
            _watch(*moment)
        work()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _watch(number: int, moment: int) -> None:
    calls = 0

    def watch(event: str, _arguments: object) -> None:
        nonlocal calls
        if event in EVENTS:
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), number)

    sys.addaudithook(watch)


def wait(child: int) -> int:
    """Its exit code, negative for a signal; it is killed when it hangs."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 1000


@dataclass
class Trial:
    """One interruption: what was done, what came of it, and what is wrong with that."""

    drawn: str
    state: str
    code: int
    told: str
    wrong: str

    def __str__(self) -> str:
        return f"{self.drawn}: {self.state}, code {self.code}, {self.wrong}\n  {self.told}"


def judge(folder: Folder, former: str, number: int, code: int, drawn: str, fresh: bool) -> Trial:
    """Compare what is there with what was said."""
    where = folder.path.parent
    out, err = ((where / name).read_text(errors="replace") for name in ("out.txt", "err.txt"))
    wrong = []
    try:
        state = folder.state()
    except Exception as error:
        state = f"broken: {error!r}"
    if state not in (former, "new", "best"):
        wrong.append(f"{former} has become {state}")
    if former != "absent" and not folder.is_kept():
        wrong.append("files of the user are gone")
    if number != signal.SIGKILL:
        by_system = fresh or "\nwrote " in out or "interrupted" in err
        if code not in ((128 + number, -number) if by_system else (128 + number,)):
            wrong.append("the exit code")
        early = fresh and code == -number
        if folder.left() and not early:
            wrong.append(f"left: {folder.left()}")
        if "Traceback" in err and not early:
            wrong.append("a traceback")
        if "nothing was written" in err and state != former:
            wrong.append("the sentence denies it")
        if ("the model is in" in err or "\nwrote " in out) and state not in ("new", "best"):
            wrong.append("the sentence promises it")
        if code == 128 + number and "nothing was written" not in err and "the model is" not in err:
            wrong.append("no sentence")
    elif folder.left():
        wrong += _not_cleared(folder)
    return Trial(drawn, state, code, (err or out)[-600:], "; ".join(wrong))


def _not_cleared(folder: Folder) -> list[str]:
    """Let the next run find and remove what a killed one has left."""
    left = [name for name in folder.left() if not name.endswith("-mgnet-lock")]
    kept = folder.is_kept()
    with claimed(folder.path, overwrite=True) as remarks, filled(folder.path) as stage:
        _tiny(1).save(stage)
    wrong = [f"{name} is not named" for name in left if not any(name in r for r in remarks)]
    wrong += [f"{name} is not removed" for name in folder.left()]
    if kept and not folder.is_kept():
        wrong.append("clearing loses files of the user")
    return wrong


# Writers alone


def _tiny(number: int) -> Model:
    kan = KAN([1, 1], 2, generator=torch.Generator().manual_seed(number))
    return Model(
        kan,
        Encoding.of_numbers(["a"]),
        Targets(("y",)),
        Scales(((0.0, 1.0),), (float(number),), (1.0,), kan.domain),
    )


def _tiny_files(root: Path, number: int) -> dict[str, bytes]:
    """What a writer of tests writes."""
    made = root / f"tiny{number}"
    if not made.exists():
        made.mkdir(parents=True)
        _write(made, number)
    return {path.name: path.read_bytes() for path in made.iterdir()}


def _write(stage: Path, number: int) -> None:
    _tiny(number).save(stage)
    (stage / "report.md").write_text(f"report {number}")
    if number % 2:
        (stage / "fit.png").write_text(f"picture {number}")


def _writer(out: Path, number: int, pause: float) -> None:
    with claimed(out, overwrite=True), filled(out) as stage:
        _write(stage, number)
        time.sleep(pause)


def interrupt_writing(root: Path, number: int, rng: np.random.Generator) -> Trial:
    """A writer without a fit, killed at one of its calls that change names.

    Parameters
    ----------
    root : Path
    number : int
        Of the trial.
    rng : numpy Generator
    """
    where = root / f"writing{number}"
    known = {"old": _tiny_files(root, 0), "new": _tiny_files(root, 1)}
    folder, where_out = Folder(where / "out", known), where / "out"
    where.mkdir()
    former = str(rng.choice(["absent", "old"]))
    if former == "old":
        folder.fill("old")
    moment = int(rng.integers(1, CALLS))
    code = wait(fork(lambda: _writer(where_out, 1, 0.0), where, (signal.SIGKILL, moment)))
    if code == 0 and folder.state() != "new":
        code = 1000
    trial = judge(folder, former, signal.SIGKILL, code, f"{number} writing, call {moment}", False)
    if code not in (0, -signal.SIGKILL):
        trial.wrong += "; the exit code"
    shutil.rmtree(where)
    return trial


def race(root: Path, number: int, rng: np.random.Generator, command: bool = False) -> Trial:
    """Two writers of one folder, and a reader meanwhile.

    Parameters
    ----------
    root : Path
    number : int
        Of the trial.
    rng : numpy Generator
    command : bool
        Whether the writers are whole fits.
    """
    where = root / f"race{number}"
    known = {"old": _tiny_files(root, 0), "1": _tiny_files(root, 1), "2": _tiny_files(root, 2)}
    kind = str(rng.choice(["absent", "deep", "old", "inside"]))
    folder = Folder(where / ("a/b/out" if kind == "deep" else "out"), known)
    where.mkdir()
    if kind in ("old", "inside"):
        folder.fill("old")
    children = []
    for writer in (1, 2):
        own = where / f"writer{writer}"
        own.mkdir()
        delay, pause = rng.uniform(0.0, 0.004), float(rng.choice([0.0, 0.0, 0.003]))

        def work(writer: int = writer, delay: float = delay, pause: float = pause) -> None:
            if kind == "inside":  # folders are not exchanged then
                os.chdir(folder.path)
            time.sleep(delay)
            if command:
                arguments = [*FIT[:-1], str(folder.path), "--seed", str(writer), "--overwrite"]
                arguments[1] = str(root / "data.csv")
                sys.exit(cli.main(arguments))
            try:
                _writer(folder.path, writer, pause)
            except BlockingIOError as error:
                print(f"mgnet: {error}", file=sys.stderr)
                sys.exit(2)

        children.append(fork(work, own))
    wrong = []
    codes = [0, 0]
    open_ones = {0, 1}
    while open_ones:
        for one in list(open_ones):
            done, status = os.waitpid(children[one], os.WNOHANG)
            if done:
                codes[one] = os.waitstatus_to_exitcode(status)
                open_ones.discard(one)
        wrong += _read(folder)
    told = [(where / f"writer{w}" / "err.txt").read_text() for w in (1, 2)]
    if 0 not in codes or not set(codes) <= {0, 2}:
        wrong.append(f"exit codes {codes}")
    wrong += [t for c, t in zip(codes, told, strict=True) if c == 2 and "is being written" not in t]
    if command:
        _accept_fit(folder)
    state = folder.state()
    if state not in [str(w) for w in (1, 2) if codes[w - 1] == 0] + ["fit"] * command:
        wrong.append(f"the end is {state}")
    if kind in ("old", "inside") and not folder.is_kept():
        wrong.append("files of the user are gone")
    if folder.left():
        wrong.append(f"left: {folder.left()}")
    shutil.rmtree(where)
    drawn = f"race {number} {kind}{' of commands' * command}"
    return Trial(drawn, state, max(codes), "".join(told)[-600:], "; ".join(wrong))


def _accept_fit(folder: Folder) -> None:
    there = {p.name: p.read_bytes() for p in folder.path.iterdir() if p.is_file()}
    there.pop("notes.txt", None)
    Model.load(folder.path)
    if len(there) == 6:
        folder.known["fit"] = there


def _read(folder: Folder) -> list[str]:
    """A reader sees one of the models, or none where there was none."""
    try:
        model = Model.load(folder.path)
    except FileNotFoundError:
        return ["a reader found no model"] if folder.is_kept() else []
    except ValueError as error:
        return [f"a reader met {error}"]
    return [] if model.targets.names == ("y",) else ["a reader met another model"]
