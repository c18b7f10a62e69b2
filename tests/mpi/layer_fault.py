"""Started on several ranks by test_layer_fault.py: a fault on the last rank, in step FAULTY.

`layer_fault.py FOLDER WHERE-KIND ...`, forward, backward or step, and exception, nan, killed,
exit, orphaned, SIGINT or SIGTERM, saves each step in the folder and prints the time of the fault;
those of CAUGHT, which all ranks raise together, are caught, and the next one follows.
`layer_fault.py FOLDER` finishes all runs there, and prints as JSON at which step each began, and a
digest of its bits; "" is one that was never interrupted. It ends on rank 0 later than elsewhere.
"""

import gc
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import petsc4py

petsc4py.init(sys.argv[:1])
import quick_torch  # noqa: E402, F401
import torch  # noqa: E402
from mpi4py import MPI  # noqa: E402

from mgnet.depth import FixedCycles, LayerParallel, ODENet  # noqa: E402
from mgnet.petsc import distribute_layers, gather_state, resumable_steps  # noqa: E402

gc.freeze()
gc.enable()
COMM = MPI.COMM_WORLD
LAST = COMM.rank == COMM.size - 1
STEPS, FAULTY = 6, 3
CAUGHT = "step-nan", "step-SIGINT"


class Block(torch.nn.Linear):
    fault = None

    def forward(self, u):
        if self.fault is not None:
            self.fault()
        return super().forward(u).tanh()


def run(file, where="", kind=""):
    """Train; return at which step it began, and the bits at the end."""
    torch.manual_seed(0)
    block = torch.nn.Sequential(Block(4, 4), torch.nn.Dropout(0.2))
    net = ODENet(block, 12, after=torch.nn.Linear(4, 2))
    net.kernel.traced = False  # to start sooner
    parallel = distribute_layers(LayerParallel(net, 2, 3, control=FixedCycles(1, tolerance=9.0)))
    optimizer = torch.optim.Adam(parallel.parameters(), 1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    data, began, output = torch.rand(20, 4), None, torch.zeros(0)
    options = {"every": 1, "scheduler": scheduler}
    for step in resumable_steps(STEPS, file, parallel, optimizer, **options):
        began = step if began is None else began
        faulty = kind and step == FAULTY and LAST
        if faulty and where == "forward":
            if kind == "exception":
                net.block[0].fault = fail
            else:
                break_down(kind, net.block[0].weight.data)
        optimizer.zero_grad()
        output = parallel(data[torch.randperm(20)[:5]])
        if faulty and where == "backward":
            output.register_hook(lambda gradient: break_down(kind, gradient.clone()))
        output.square().mean().backward()
        if faulty and where == "step":
            break_down(kind, net.block[0].weight.grad)
        optimizer.step()
        scheduler.step()
    states = gather_state(parallel), gather_state(parallel, optimizer)
    return began, digest(output, states) if COMM.rank == 0 else ""


def break_down(kind, values):
    if kind == "exception":
        fail()
    print(f"fault {time.time():.3f}", flush=True)
    if kind == "nan":
        return values.fill_(torch.nan)
    if kind == "exit":
        sys.exit("no data for this rank")
    if kind == "orphaned":
        os.kill(os.getppid(), signal.SIGKILL)
        return values
    os.kill(os.getpid(), signal.SIGKILL if kind == "killed" else signal.Signals[kind])
    return values


def fail():
    print(f"fault {time.time():.3f}", flush=True)
    raise ArithmeticError("this rank is broken")


def digest(*values):
    found = hashlib.sha1()

    def add(value):
        if isinstance(value, torch.Tensor):
            found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
        elif isinstance(value, dict):
            add([value[key] for key in sorted(value, key=str)])
        elif isinstance(value, list | tuple):
            for each in value:
                add(each)
        else:
            found.update(repr(value).encode())

    add(values)
    return found.hexdigest()


if __name__ == "__main__":
    folder, *faults = sys.argv[1:]
    for fault in faults:
        try:
            run(Path(folder, f"{fault}-{COMM.size}.pt"), *fault.split("-"))
            print("all steps done")
        except (FloatingPointError, SystemExit) as error:
            if fault not in CAUGHT:
                raise
            print(f"{fault}: {error}")
    if not faults:
        files = COMM.bcast(sorted(str(each) for each in Path(folder).iterdir()))
        told = {Path(file).stem: run(file) for file in files}
        told[""] = run(Path(tempfile.mkdtemp(dir=folder), "whole.pt"))
        if COMM.rank == 0:
            time.sleep(2.5)
            print(json.dumps(told))
