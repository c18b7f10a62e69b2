"""Backward steps are products with the Jacobians of layers, by tapes and by compiled loops."""

from typing import Any

import pytest
import torch
from torch import nn

from mgnet.depth import FixedCycles, LayerParallel, ODENet
from mgnet.depth.mgrit.marching import march_by_advance
from mgnet.depth.parallel import propagation
from mgnet.depth.parallel.adjoint import Adjoint
from mgnet.depth.parallel.control import CycleLimit
from mgnet.depth.parallel.method import MGRITMethod
from mgnet.depth.parallel.propagation import Propagation
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("level", [0, 1])
def test_steps_and_marches_are_those_of_autograd(level, compiled, monkeypatch):
    if compiled:
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(propagation, "compiled_cycles", lambda *_: "not now")
    torch.manual_seed(0)
    net = ODENet(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), 8).double()
    method = MGRITMethod.from_texts((4,), "V", "V", ("F",))
    forward = Propagation(PropagationSetup.of(net.kernel, detached(net.layers()), method))
    u = torch.randn(5, 3, dtype=torch.float64)
    forward.forward(u, CycleLimit(8), None, record=True)
    kind = propagation.CompiledAdjoint if compiled else Adjoint
    adjoint = kind.of(forward)
    states = [u]
    for n in range(8):
        states.append(
            states[-1] + 0.125 * net.kernel.slope(net.layers()[n : n + 1], states[-1][None])[0]
        )
    lam = torch.randn(2, 5, 3, dtype=torch.float64)
    which = slice(1, 8, 4) if level == 0 else slice(0, 2)
    layers: Any = forward.setup.levels[level]
    at = (1, 5) if level == 0 else (0, 4)
    expected = []
    for k, n in enumerate(range(len(layers))[which]):
        v = states[at[k]].detach().clone().requires_grad_()
        new = v + layers.steps[n] * net.kernel.slope(layers[n : n + 1], v[None])[0]
        expected.append(torch.autograd.grad(new, v, lam[k])[0])
    found = adjoint.advance(level, which, lam)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-11, atol=1e-12)


class Clip(torch.autograd.Function):
    """Passes a state on, and gradients of at most 1/10."""

    @staticmethod
    def forward(ctx, u):
        return u.clone()

    @staticmethod
    def backward(ctx, g):
        return g.clamp(-0.1, 0.1)


class Clipped(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.line, self.way = nn.Linear(3, 3), way

    def forward(self, u):
        v = torch.tanh(self.line(u))
        if self.way == "function":
            return Clip.apply(v)
        if v.requires_grad:
            v.register_hook(lambda g: g.clamp(-0.1, 0.1))
        return v


@pytest.mark.parametrize("way", ["function", "hook"])
@pytest.mark.parametrize("levels, memory", [(1, "states"), (1, "checkpoints"), (2, "states")])
def test_gradients_are_clipped_where_autograd_would_clip_them(levels, memory, way):
    """Such a backward pass is not linear, so it must meet what autograd would give it."""
    torch.manual_seed(0)
    net, found = ODENet(Clipped(way), 12).double(), []
    u = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def loop(u):
        for weight, bias in zip(net.block.line.weight, net.block.line.bias, strict=True):
            v = torch.tanh(nn.functional.linear(u, weight, bias))
            u = u + Clip.apply(v) / 12
        return u

    parallel = LayerParallel(net, levels, 4, control=FixedCycles(5), memory=memory)
    for module in (parallel, net, loop):
        y = module(u)
        found.append(torch.autograd.grad(y, [u, *net.parameters()], 3.0 * torch.sign(y.detach())))
    for ours in found[:2]:
        for a, b in zip(ours, found[2], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_marches_clip_as_single_steps_do():
    torch.manual_seed(0)
    net, method = ODENet(Clipped("function"), 8).double(), ((4,), "V", "V", ("F",))
    setup = PropagationSetup.of(net.kernel, detached(net.layers()), MGRITMethod.from_texts(*method))
    forward, lam = Propagation(setup), torch.randn(1, 5, 3, dtype=torch.float64)
    forward.forward(lam[0], CycleLimit(1), None, record=True)
    adjoint = Adjoint.of(forward)
    expected = march_by_advance(adjoint, 1, 2, lam, None, True)
    for a, b in zip(adjoint.march(1, 2, lam, None, True), expected, strict=True):
        assert torch.equal(a, b)
