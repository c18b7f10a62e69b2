"""Distribute modules, one after another, that each rank collects at another time."""

import gc

import quick_torch  # noqa: F401
import torch
from petsc4py import PETSc
from torch import nn

from mgnet.depth import LayerParallel, ODENet
from mgnet.petsc import distribute_layers

gc.freeze()  # none of the libraries is searched below
comm = PETSc.COMM_WORLD
for trial in range(4):
    torch.manual_seed(trial)
    net = ODENet(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), layers=12)
    net.kernel.traced = False  # to start sooner
    right = net(torch.ones(2, 3))
    parallel = distribute_layers(LayerParallel(net, 2, 2, control=None, mode="serial"))
    assert torch.allclose(parallel(torch.ones(2, 3)), right)
    parallel.circle = [parallel]
    del parallel, net
    if comm.getRank() == trial % comm.getSize():
        gc.collect()
comm.barrier()
if comm.getRank() == 0:
    print("distributed four times")
