"""Started on 2 ranks by test_resumable_file.py: faults of the file, which rank 0 alone sees.

`resumable_file.py FOLDER` prints the error of each rank for each fault, as JSON.
"""

import errno
import gc
import json
import os
import sys
from pathlib import Path

import petsc4py

petsc4py.init(sys.argv[:1])
import quick_torch  # noqa: E402, F401
import torch  # noqa: E402
from mpi4py import MPI  # noqa: E402

from mgnet.depth import LayerParallel, ODENet  # noqa: E402
from mgnet.petsc import distribute_layers  # noqa: E402
from mgnet.petsc.resumable_file import ResumableFile  # noqa: E402

gc.freeze()
gc.enable()
COMM, FOLDER = MPI.COMM_WORLD, Path(sys.argv[1])


def made(name="run.pt", layers=6, seed=0):
    torch.manual_seed(seed)
    parallel = distribute_layers(LayerParallel(ODENet(torch.nn.Linear(2, 2), layers), 2, 3))
    optimizer = torch.optim.Adam(parallel.parameters())
    for parameter in parallel.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return ResumableFile(FOLDER / name, parallel, optimizer, None)


def full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def by_rank_0(action):
    if COMM.rank == 0:
        action()
    COMM.barrier()


def error_of(action):
    try:
        return COMM.gather(f"no error {action()}")
    except (OSError, TypeError, ValueError) as error:
        return COMM.gather(f"{type(error).__name__}: {error}")


def main():
    file, told = made(), {}
    file.save(3, "")
    told["whole"] = error_of(made(seed=1).load)
    told["other"] = error_of(made(layers=9).load)
    sync = os.fsync
    by_rank_0(lambda: setattr(os, "fsync", full))
    told["full"] = error_of(lambda: file.save(4, ""))
    os.fsync = sync
    if COMM.rank == 0:
        file.optimizer.param_groups[0]["rule"] = len
    told["rule"] = error_of(lambda: file.save(4, ""))
    content = file.path.read_bytes()
    COMM.barrier()
    by_rank_0(lambda: file.path.write_bytes(content[:-1] + b"x"))
    told["damaged"] = error_of(made(seed=1).load)
    by_rank_0(lambda: (FOLDER / "folder").mkdir())
    told["folder"] = error_of(made("folder").load)
    told["moments"] = error_of(lambda: moments(content))
    if COMM.rank == 0:
        print(json.dumps(told))


def moments(content):
    """A right digest, and moments without layers, which rank 0 alone would cut."""
    from mgnet.checkpoint.storage import read_file, write_file

    if COMM.rank == 0:
        file = FOLDER / "run.pt"
        file.write_bytes(content)
        told, tensors = read_file(file, "resumable_steps")
        tensors["optimizer.state.0.exp_avg"] = torch.ones(3)
        write_file(file, "resumable_steps", told, tensors)
    COMM.barrier()
    return made().load()


if __name__ == "__main__":
    main()
