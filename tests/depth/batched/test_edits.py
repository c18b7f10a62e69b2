"""Blocks that edit parts of a tensor: slopes and their derivatives against plain autograd."""

import random
import warnings

import pytest
import torch
from torch import nn

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers

PARTS = {  # of a 3 x 4 tensor
    "a column": lambda v: v[:, 0],
    "a row": lambda v: v[1],
    "a number": lambda v: v[0, 1],
    "part of a column": lambda v: v[1:, -1],
    "every other": lambda v: v[:, ::2],
    "a block": lambda v: v[1:3, 0:2],
    "a column of one": lambda v: v[:, 2:3],
    "the diagonal": lambda v: v.diagonal(),
    "transposed": lambda v: v.t()[2],
    "one of windows": lambda v: v.unfold(1, 2, 2)[:, 0],
    "in one line": lambda v: v.view(-1)[5:9],
    "by strides": lambda v: v.as_strided((3,), (5,)),
}
EDITS = {
    "doubled": lambda part, w: part.mul_(2),
    "by a number": lambda part, w: part.copy_(part.clone() * w[0, 0]),
    "with a copy": lambda part, w: part.copy_(w[0, 0]),
    "minus": lambda part, w: part.sub_(w[1, 2] * w[0, 1]),
    "filled": lambda part, w: part.fill_(0.5),
    "plus": lambda part, w: part.add_(w.mean(), alpha=3),
}


class Edits(nn.Module):
    def __init__(self, drawn):
        super().__init__()
        self.drawn = drawn

    def forward(self, u):
        v, w = u.sin(), u.cos()
        for part, edit in self.drawn:
            EDITS[edit](PARTS[part](v), w)
        return v * v


def derivatives(value, states, lam):
    (first,) = torch.autograd.grad(value, states, lam, create_graph=True)
    return value, first, *torch.autograd.grad(first, states, lam)


@pytest.mark.parametrize("part", PARTS)
def test_slopes_of_edits_have_the_derivatives_of_autograd(part):
    draw = random.Random(part)
    torch.manual_seed(0)
    module = Edits([(draw.choice(list(PARTS)), "doubled"), (part, draw.choice(list(EDITS)))])
    times = torch.arange(3.0, dtype=torch.float64)
    layers = Layers((), (), times, times + 1)
    states = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    lam = torch.randn(3, 3, 4, dtype=torch.float64)
    expected = derivatives(torch.stack([module(u) for u in states]), states, lam)
    block = StackedBlock(module)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.vmap cannot map|the block cannot be traced")
        found = derivatives(block.slope(layers, states), states, lam)
        tape = block.record(layers, states.detach())
    torch.testing.assert_close(found, expected, msg=lambda text: f"{module.drawn}: {text}")
    torch.testing.assert_close((tape.value, tape.vjp(lam)), expected[:2])
