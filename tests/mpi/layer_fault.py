"""Started on several ranks by test_layer_fault.py: a fault on one rank, in the second step.

`layer_fault.py forward|backward|step exception|nan|killed`; prints the time of the fault.
"""

import os
import signal
import sys
import time

import petsc4py

petsc4py.init(sys.argv[:1])

import torch  # noqa: E402
from mpi4py import MPI  # noqa: E402

from mgnet.depth import Fixed, LayerParallel, ODENet  # noqa: E402
from mgnet.petsc.distribution import distribute  # noqa: E402

WHERE, KIND = sys.argv[1:]
LAST = MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1


class Block(torch.nn.Linear):
    broken = False

    def forward(self, u):
        if self.broken:
            fail()
        return super().forward(u).tanh()


def fail():
    if MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1:
        print(f"fault {time.time():.3f}", flush=True)
        if KIND == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    raise ArithmeticError("this rank is broken")


def poisoned(gradient):
    return fail() if KIND != "nan" else told(gradient * torch.nan)


def told(value):
    print(f"fault {time.time():.3f}", flush=True)
    return value


torch.manual_seed(0)
net = ODENet(Block(4, 4), 12, after=torch.nn.Linear(4, 2))
parallel = distribute(LayerParallel(net, 2, 3, control=Fixed(1, tolerance=9.0)))
optimizer = torch.optim.Adam(parallel.parameters(), 1e-2)
x = torch.rand(5, 4)
for step in range(50):
    if step == 1 and LAST and WHERE == "forward":
        net.block.broken = KIND != "nan"
        if KIND == "nan":
            told(net.block.weight.data.fill_(torch.nan))
    optimizer.zero_grad()
    output = parallel(x)
    if step == 1 and LAST and WHERE == "backward":
        output.register_hook(poisoned)
    output.square().mean().backward()
    if step == 1 and LAST and WHERE == "step":
        if KIND == "nan":
            told(net.block.weight.grad.fill_(torch.nan))
        else:
            fail()
    optimizer.step()
print("all steps done")
