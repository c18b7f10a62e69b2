"""One layer by the formulas of its scheme."""

import pytest
import torch

from mgnet.depth.residual_block import ResidualBlock, advance


@pytest.mark.parametrize(("scheme", "power"), [("euler", 1), ("heun", 2), ("rk4", 4)])
@pytest.mark.parametrize("tensor", [False, True])
def test_the_exponential_series(scheme, power, tensor):
    """For u' = u a step multiplies by the first terms of exp(s)."""
    s = torch.tensor(0.3, dtype=torch.float64)
    u = torch.ones(2, dtype=torch.float64)
    term, expected = 1.0, 1.0
    for n in range(1, power + 1):
        term *= 0.3 / n
        expected += term
    got = advance(scheme, lambda t, u: u, 0.0, u, s if tensor else 0.3)
    torch.testing.assert_close(got, expected * u)


@pytest.mark.parametrize(("scheme", "power"), [("heun", 1), ("rk4", 3)])
def test_stages_know_their_time(scheme, power):
    """A slope t^p is integrated exactly up to the degree of the quadrature."""
    got = advance(scheme, lambda t, u: u * 0.0 + t**power, 1.0, torch.zeros(1), 0.5)
    torch.testing.assert_close(got, torch.tensor([(1.5 ** (power + 1) - 1.0) / (power + 1)]))


def test_a_gate_is_trained():
    gate = torch.nn.Parameter(torch.tensor(0.5))
    layer = ResidualBlock(torch.nn.Identity(), gate)
    layer(torch.tensor([2.0])).sum().backward()
    assert gate.grad == 2.0
    assert "step=0.5" in str(layer)
