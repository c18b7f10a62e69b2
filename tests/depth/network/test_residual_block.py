"""One layer on its own is the formula of its scheme, in time, state, step and gradients."""

import math

import pytest
import torch

from mgnet.depth.network.residual_block import ResidualBlock

T, S = 0.7, 0.4
U = torch.tensor([[0.3, -1.2], [2.0, 0.5]], dtype=torch.float64)


class Timed(torch.nn.Module):
    """F(t, u) that is linear in neither."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, t, u):
        return self.weight * torch.cos(3.0 * t) + torch.sin(self.weight * u) + t * u


class Plain(torch.nn.Module):
    """F(u)."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, u):
        return torch.sin(self.weight * u)


def timed(weight, t, u):
    return weight * math.cos(3.0 * t) + torch.sin(weight * u) + t * u


def plain(weight, t, u):
    return torch.sin(weight * u)


def step(scheme, F, t, u, s):
    """A step with times as numbers."""
    k1 = F(t, u)
    if scheme == "euler":
        return u + s * k1
    if scheme == "heun":
        return u + s / 2 * (k1 + F(t + S, u + s * k1))
    k2 = F(t + S / 2, u + s / 2 * k1)
    k3 = F(t + S / 2, u + s / 2 * k2)
    return u + s / 6 * (k1 + 2 * k2 + 2 * k3 + F(t + S, u + s * k3))


@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
@pytest.mark.parametrize(("block", "formula"), [(Plain, plain), (Timed, timed)])
def test_a_layer_is_its_formula(block, formula, scheme):
    layer = ResidualBlock(block(), S, T, scheme)
    u, weight = U.clone().requires_grad_(), torch.tensor(1.5, dtype=torch.float64)
    weight.requires_grad_()
    expected = step(scheme, lambda t, u: formula(weight, t, u), T, u, S)
    ours = layer(u)
    torch.testing.assert_close(ours, expected, rtol=1e-14, atol=1e-15)
    found = torch.autograd.grad(ours.square().sum(), (u, layer.block.weight))
    known = torch.autograd.grad(expected.square().sum(), (u, weight))
    torch.testing.assert_close(found, known, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
def test_the_gradient_of_a_gate_is_a_difference_quotient(scheme):
    gate = torch.nn.Parameter(torch.tensor(S, dtype=torch.float64))
    ResidualBlock(Timed(), gate, T, scheme)(U).sum().backward()
    h = 1e-5
    right, left = (ResidualBlock(Timed(), S + e, T, scheme)(U).detach().sum() for e in (h, -h))
    assert float(gate.grad) == pytest.approx(float((right - left) / (2.0 * h)), rel=1e-8)


def test_the_default_is_an_euler_step_of_one_at_time_zero():
    expected = U + timed(1.5, 0.0, U)
    torch.testing.assert_close(ResidualBlock(Timed())(U), expected, rtol=1e-14, atol=1e-15)


def test_a_gate_is_trained():
    gate = torch.nn.Parameter(torch.tensor(0.5))
    layer = ResidualBlock(torch.nn.Identity(), gate)
    layer(torch.tensor([2.0])).sum().backward()
    assert gate.grad == 2.0
    assert layer.number == 0.5 and gate in set(layer.parameters())
    assert "step=0.5, time=0, scheme='euler'" in str(layer)
    assert "step=0.25, time=2, scheme='heun'" in str(ResidualBlock(Plain(), 0.25, 2, "heun"))


@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
def test_a_block_that_changes_the_shape_is_refused(scheme):
    layer = ResidualBlock(torch.nn.Linear(2, 3).double(), scheme=scheme)
    with pytest.raises(ValueError, match=r"shape \(2, 3\) for a state of shape \(2, 2\)"):
        layer(U)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ResidualBlock(Plain(), scheme="rk5"), ValueError, "did you mean rk4"),
        (lambda: ResidualBlock(torch.sin), TypeError, "give a torch.nn.Module"),
        (lambda: ResidualBlock(torch.nn.MultiheadAttention(2, 1)), TypeError, r"\(u\) or \(t, u\)"),
    ],
)
def test_refusals(make, error, words):
    with pytest.raises(error, match=words):
        make()
