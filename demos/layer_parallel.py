"""A deep ODE net with all layers solved at once, and the error after each cycle.

python demos/layer_parallel.py [folder for the picture] [training steps]
mpiexec -n 2 python demos/layer_parallel.py    # the layers distributed over ranks, with the same
digits
"""

import copy
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the same digits on any number of ranks
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads should not spin
os.environ.setdefault("MPLBACKEND", "Agg")

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy

from mgnet import gallery
from mgnet.depth import CyclesToTolerance, FixedCycles, LayerParallel, ODENet
from mgnet.options import init, layer_parallel_from_options
from mgnet.petsc import distribute_layers, gather_state

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/layer_parallel")
steps = int(arguments[2]) if len(arguments) > 2 else 40
out.mkdir(parents=True, exist_ok=True)
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
x, y = (torch.from_numpy(t) for t in gallery.peaks(500))  # points in the plane, 5 classes
block = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh())
before, after = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh()), torch.nn.Linear(8, 5)
net = ODENet(block, layers=128, final_time=2.0, before=before, after=after)
whole = layer_parallel_from_options(net, levels=2, coarsening=16, control=CyclesToTolerance(1e-2))
parallel = distribute_layers(
    copy.deepcopy(whole)
)  # under mpiexec, each rank keeps only its own layers


def output_and_gradient(module):
    loss = cross_entropy(output := module(x), y)
    gradient = torch.autograd.grad(loss, list(net.parameters()))
    return output.detach(), torch.cat([g.flatten() for g in gradient])


def show_errors(when):
    exact, errors = output_and_gradient(net), []
    print(f"{when} training, relative to serial:  cycles      output    gradient")
    for cycles in range(9):  # 128 / 16 = 8 cycles are exact
        control = FixedCycles(cycles, tolerance=float("inf"))  # no warning, however large the error
        pairs = zip(output_and_gradient(LayerParallel(net, 2, 16, control=control)), exact)  # noqa: B905
        errors.append([float((a - b).norm() / b.norm()) for a, b in pairs])
        print(f"{cycles:>43} {errors[-1][0]:>11.1e} {errors[-1][1]:>11.1e}")
    plt.semilogy(errors, "o-", label=[f"output, {when} training", f"gradient, {when} training"])


first = parallel.communicator.rank == 0
if first:
    show_errors("before")
optimizer = torch.optim.Adam(parallel.parameters(), lr=1e-2)
for _ in range(steps):
    optimizer.zero_grad()
    cross_entropy(parallel(x), y).backward()
    optimizer.step()
loss, state = cross_entropy(parallel(x), y).item(), gather_state(parallel)
if state is not None:  # on the first rank
    whole.load_state_dict(state)
    show_errors("after")
    plt.gca().set(xlabel="cycles each way, after the cascade", ylabel="relative error")
    plt.legend()
    plt.savefig(out / "errors.png", dpi=150)
    print(f"wrote {out / 'errors.png'}\nfinal loss {loss:.15e}")
