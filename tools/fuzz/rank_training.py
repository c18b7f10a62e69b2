"""Started on several ranks by `tools.fuzz.ranks`: a training with a fault, and what follows it.

`rank_training.py FOLDER FAULT` trains into FOLDER/run.pt with a fault, JSON as `ranks.Fault` has
it. `rank_training.py FOLDER` finishes the training of each folder in FOLDER, and prints as JSON a
digest of the bits at the end.
"""

import hashlib
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import petsc4py

petsc4py.init(sys.argv[:1])

import torch  # noqa: E402

# Optimizers import torch's compiler, which nothing here uses: a second for each rank.
compiler: Any = SimpleNamespace(disable=lambda f, *_, **__: f, graph_break=lambda: None)
sys.modules["torch._dynamo"] = torch._dynamo = compiler

from mpi4py import MPI  # noqa: E402

from mgnet.depth import FixedCycles, LayerParallel, ODENet  # noqa: E402
from mgnet.petsc import distribute_layers, gather_state, resumable_steps  # noqa: E402

COMM = MPI.COMM_WORLD
STEPS, EVERY = 6, 2
BETWEEN = 0.15  # seconds of a step: a signal from outside comes during one


class Interruption:
    """Does one thing, once: on one rank, in one step, at one place."""

    def __init__(self, folder: Path, kind: str = "", where: str = "", rank: int = 0, step: int = 0):
        self.folder, self.kind, self.where = folder, kind, where
        self.mine, self.step, self.now, self.weight = rank == COMM.rank, step, -1, torch.zeros(1)

    def at(self, where: str) -> None:
        if self.mine and where == self.where and self.now == self.step:
            self.mine = False
            (self.folder / "fault").write_text(str(os.getpid()))
            getattr(self, self.kind.split("-")[0])(*self.kind.split("-")[1:])

    def exception(self) -> None:
        raise ArithmeticError("this rank is broken")

    def handled(self) -> None:
        try:
            self.exception()
        except ArithmeticError as error:
            raise LookupError("so is what handles it") from error

    def thread(self) -> None:
        thread = threading.Thread(target=self.exception)
        thread.start()
        thread.join()

    def exit(self, status: str) -> None:
        sys.exit(int(status) if status.isdigit() else status)

    def raised(self, status: str) -> None:
        raise SystemExit(int(status))

    def gone(self, status: str) -> None:
        os._exit(int(status))

    def nan(self) -> None:
        self.weight.fill_(torch.nan)

    def signal(self, name: str) -> None:
        os.kill(os.getpid(), signal.Signals[name])

    def full(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))

    def outside(self, *_: str) -> None:
        """The parent acts; it needs a moment."""
        time.sleep(0.4)


class Block(torch.nn.Linear):
    """A layer that may fail."""

    fault: Any = None

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        if self.fault is not None:
            self.fault.at("forward")
        return super().forward(u).tanh()


def calling(function: Any, fault: Interruption) -> Any:
    def called(*given: Any) -> Any:
        fault.at("checkpoint")
        return function(*given)

    return called


def train(file: Path, fault: Interruption) -> str:
    torch.manual_seed(0)
    net = ODENet(torch.nn.Sequential(Block(2, 2)), 16, after=torch.nn.Linear(2, 1))
    net.kernel.traced = False  # to start sooner
    parallel = LayerParallel(net, 2, 4, control=FixedCycles(1, tolerance=9.0))
    parallel = distribute_layers(parallel)
    optimizer = torch.optim.Adam(parallel.parameters(), 1e-2)
    net.block[0].fault, fault.weight = fault, net.block[0].weight.data
    communicator: Any = parallel.communicator
    if fault.kind:
        communicator.gather_layers = calling(communicator.gather_layers, fault)
        os.fsync = calling(os.fsync, fault)
    for step in resumable_steps(STEPS, file, parallel, optimizer, every=EVERY):
        fault.now = step
        if fault.kind:
            time.sleep(BETWEEN)
        optimizer.zero_grad()
        output = parallel(torch.rand(3, 2))
        output.register_hook(lambda _: fault.at("backward"))
        output.square().mean().backward()
        fault.at("step")
        optimizer.step()
    states = gather_state(parallel), gather_state(parallel, optimizer)
    return digest(states) if COMM.rank == 0 else ""


def digest(*values: Any) -> str:
    found = hashlib.sha1()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(
                value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
        elif isinstance(value, dict):
            add([value[key] for key in sorted(value, key=str)])
        elif isinstance(value, list | tuple):
            for each in value:
                add(each)
        else:
            found.update(repr(value).encode())

    add(values)
    return found.hexdigest()


def main() -> None:
    folder = Path(sys.argv[1])
    if sys.argv[2:]:
        (folder / f"rank-{COMM.rank}").write_text(str(os.getpid()))
        bits = train(folder / "run.pt", Interruption(folder, **json.loads(sys.argv[2])))
        if COMM.rank == 0:
            (folder / "bits").write_text(bits)
        return
    trials = COMM.bcast(sorted(str(each) for each in folder.iterdir() if each.is_dir()))
    told = {
        Path(trial).name: train(Path(trial, "run.pt"), Interruption(folder)) for trial in trials
    }
    if COMM.rank == 0:
        print(json.dumps(told))


if __name__ == "__main__":
    main()
