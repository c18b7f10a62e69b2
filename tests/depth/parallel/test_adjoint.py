"""Backward steps are products with the Jacobians of layers, by tapes and by compiled loops."""

from typing import Any

import pytest
import torch
from torch import nn

from mgnet.depth import ODENet
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
