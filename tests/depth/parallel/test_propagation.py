"""Laws of one forward pass and its adjoint, against a loop over hand-written layers."""

import pytest
import torch
from torch import nn

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.parallel.control import CycleLimit
from mgnet.depth.parallel.method import MGRITMethod
from mgnet.depth.parallel.propagation import Propagation
from mgnet.depth.parallel.propagation_setup import PropagationSetup

WIDTH, BATCH = 3, 4


def made(layers, factors, scheme="euler", forward="cascade + V"):
    generator = torch.Generator().manual_seed(layers)
    weights = torch.randn(layers, WIDTH, WIDTH, dtype=torch.float64, generator=generator)
    steps = torch.rand(layers, dtype=torch.float64, generator=generator) / layers
    kernel = StackedBlock(nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.Tanh()), scheme)
    stacked = Layers((weights,), (), torch.zeros(layers, dtype=torch.float64), steps)
    method = MGRITMethod.from_texts(factors, forward, forward, ("F", "FCF"))
    return Propagation(PropagationSetup.of(kernel, stacked, method)), weights, steps


def added(scheme, F, u, s):
    """What a step adds, from the Butcher tables."""
    if scheme == "euler":
        return s * F(u)
    first = F(u)
    if scheme == "heun":
        return s / 2 * first + s / 2 * F(u + s * first)
    second = F(u + s / 2 * first)
    third = F(u + s / 2 * second)
    return s / 6 * first + s / 3 * second + s / 3 * third + s / 6 * F(u + s * third)


def looped(weights, steps, u, scheme="euler"):
    states = [u]
    for W, s in zip(weights, steps, strict=True):
        u = states[-1]
        states.append(u + added(scheme, lambda v, W=W: torch.tanh(v @ W.T), u, s))
    return torch.stack(states)


@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
@pytest.mark.parametrize(
    ("layers", "factors"), [(12, (4,)), (13, (4,)), (5, (8,)), (30, (3, 3)), (31, (2, 4))]
)
def test_states_adjoint_and_gradients(layers, factors, scheme):
    propagation, weights, steps = made(layers, factors, scheme)
    u = torch.randn(BATCH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points, _ = propagation.forward(u, CycleLimit(layers), None, record=True)
    weights, steps, u = (x.clone().requires_grad_() for x in (weights, steps, u))
    states = looped(weights, steps, u, scheme)
    at_points = states[[*range(0, layers, factors[0]), layers]].detach()
    torch.testing.assert_close(points, at_points, rtol=0, atol=1e-14)
    end = torch.ones(BATCH, WIDTH, dtype=torch.float64)
    adjoint, _ = propagation.backward(end, CycleLimit(layers), None)
    start, (of_weights,), of_steps = propagation.gradients(adjoint, with_steps=True)
    expected = torch.autograd.grad(states[-1].sum(), (u, weights, steps))
    for ours, theirs in zip((start, of_weights, of_steps), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(adjoint[0], expected[0], rtol=1e-12, atol=1e-14)


def test_the_first_layers_are_exact_after_few_cycles():
    """After k cycles with F-relaxation the first k intervals are exact."""
    propagation, weights, steps = made(24, (4,), forward="V")
    u = torch.ones(BATCH, WIDTH, dtype=torch.float64)
    points, _ = propagation.forward(u, CycleLimit(2), None, record=False)
    states = looped(weights, steps, u)
    assert (points[:3] - states[:9:4]).abs().max() < 1e-15
    assert (points[4] - states[16]).abs().max() > 1e-12


def test_prepared_layers_follow_trained_gates():
    propagation, weights, steps = made(13, (4,))
    setup = propagation.setup
    steps.mul_(2.0)
    setup.refresh()
    expected = [float(steps[i : i + 4].sum()) for i in range(0, 13, 4)]
    assert setup.levels[1].steps.tolist() == pytest.approx(expected, rel=1e-15)
