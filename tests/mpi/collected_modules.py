"""Distribute modules, one after another, that each rank collects at another time."""

import gc

import torch
from petsc4py import PETSc
from torch import nn

from mgnet.depth import LayerParallel, ODENet
from mgnet.petsc import distribute_layers

comm = PETSc.COMM_WORLD
gc.disable()
for trial in range(4):
    torch.manual_seed(trial)
    net = ODENet(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), layers=12)
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
