"""Modules that take every way of a GPU through layers: blocks, weights, cycles, marches."""

import torch
from torch import nn

from mgnet.depth import FixedCycles, LayerParallel, ODENet

WIDTH = 4


class Timed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, t, u):
        return torch.tanh(self.linear(u) + torch.cos(t))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, u, scale=None):
        return torch.tanh(self.linear(u)) * scale


def plain():
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())


def convolution():
    return nn.Sequential(nn.Unflatten(1, (1, WIDTH)), nn.Conv1d(1, 1, 3, padding=1), nn.Flatten(1))


def around(block, layers, **options):
    ends = {"before": nn.Linear(3, WIDTH), "after": nn.Linear(WIDTH, 2)}
    return ODENet(block, layers, **ends, **options)


def cycles(net, **options):
    return LayerParallel(net, **{"control": FixedCycles(2, backward=1), **options})


# Name -> module; all take (5, 3), and those called "side ..." a side input `scale`.
CASES = {
    "two levels": lambda: cycles(around(plain(), 9)),
    "three levels": lambda: cycles(around(plain(), 17), levels=3, coarsening=(3, 2)),
    "V from a constant": lambda: cycles(around(plain(), 8), forward="V", backward="V"),
    "F cycles": lambda: cycles(
        around(plain(), 12), levels=3, coarsening=2, forward="cascade + F", relaxation=("FCF",)
    ),
    "no cycle": lambda: cycles(around(plain(), 8), control=FixedCycles(0)),
    "coarse first": lambda: cycles(around(plain(), 9), coarse="first"),
    "coarse fused": lambda: cycles(around(plain(), 9), coarse="fused"),
    "coarse identity": lambda: cycles(around(plain(), 9), coarse="identity"),
    "timed": lambda: cycles(around(Timed(), 9, scheme="rk4")),
    "boundary layers": lambda: cycles(around(Timed(), 8, boundary_layers=(1, 1))),
    "learnable steps": lambda: cycles(around(plain(), 9, learnable_steps=True, scheme="heun")),
    "shared weights": lambda: cycles(around(plain(), 9, weights="shared")),
    "convolution": lambda: cycles(around(convolution(), 9)),
    "norm": lambda: cycles(around(nn.Sequential(nn.LayerNorm(WIDTH), plain()), 9)),
    "statistics": lambda: cycles(around(nn.Sequential(nn.BatchNorm1d(WIDTH), plain()), 9)),
    "dropout": lambda: cycles(around(nn.Sequential(plain(), nn.Dropout(0.3)), 9)),
    "side": lambda: cycles(around(Scaled(), 9)),
    "march": lambda: cycles(around(plain(), 9), mode="serial"),
    "march from checkpoints": lambda: cycles(
        around(plain(), 9), mode="serial", memory="checkpoints"
    ),
    "march of shared weights": lambda: cycles(around(plain(), 9, weights="shared"), mode="serial"),
    "side march": lambda: cycles(around(Scaled(), 9), mode="serial"),
}


def inputs(name, generator, grad=True):
    """A batch, and side inputs, at random."""
    x = torch.randn(5, 3, generator=generator).requires_grad_(grad)
    if not name.startswith("side"):
        return x, {}
    return x, {"scale": torch.rand(WIDTH, generator=generator).add_(0.5).requires_grad_()}


def passes(module, call, x, side):
    """The output, and the gradients by x, the side inputs and all parameters."""
    out = call(x, **side)
    leaves = [x, *side.values(), *module.parameters()]
    found = torch.autograd.grad(out.square().sum(), [p for p in leaves if p.requires_grad])
    return [out.detach(), *found]
