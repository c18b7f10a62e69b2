"""Sine layers: the formula, learnt frequencies, sizes that do not depend on depth."""

import math

import pytest
import torch

from mgnet.training import LeastSquares, Sine, levenberg_marquardt, sine_network


def test_the_formula():
    x = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)
    for learn in (False, True):
        assert torch.equal(Sine(3.0, learn)(x), torch.sin(3.0 * x))
    assert str(Sine(3.0, learn=True)) == "Sine(3, learn=True)" and str(Sine(0.5)) == "Sine(0.5)"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("learn", [False, True])
def test_the_precision_is_that_of_the_input(dtype, learn):
    network = sine_network([2, 4, 3, 1], 2.0, learn=learn, dtype=dtype)
    assert all(p.dtype is dtype for p in network.parameters())
    assert network(torch.zeros(3, 2, dtype=dtype)).dtype is dtype


@pytest.mark.parametrize("frequency", [1.0, 30.0])
def test_weights_are_even_within_their_bounds(frequency):
    network = sine_network([3, 200, 100, 2], frequency)
    linears = [part for part in network if isinstance(part, torch.nn.Linear)]
    bounds = [1.0 / 3.0, *(math.sqrt(6.0 / n) / frequency for n in (200, 100))]
    for linear, bound in zip(linears, bounds, strict=True):
        W = linear.weight.detach()
        assert 0.95 * bound < float(W.abs().max()) <= bound
        # Of a uniform density: the standard deviation is bound / sqrt(3).
        assert float(W.std()) == pytest.approx(bound / math.sqrt(3.0), rel=0.1)
        assert float(linear.bias.detach().abs().max()) <= linear.in_features**-0.5


def test_deep_networks_keep_the_size_of_their_values():
    """Arguments of the sines have variance 1, their values about 1/2 - exp(-2)/2 (SIREN)."""
    network = sine_network([1] + 12 * [256] + [1], 30.0)
    x = torch.linspace(-1.0, 1.0, 400, dtype=torch.float64).unsqueeze(1)
    sizes = []
    with torch.no_grad():
        for part in network:
            x = part(x)
            if isinstance(part, Sine):
                sizes.append(float(x.square().mean()))
    assert all(0.35 < size < 0.6 for size in sizes)


def test_a_seed_is_one_network_in_any_precision():
    one, other = sine_network([2, 5, 1]), sine_network([2, 5, 1], dtype=torch.float32)
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.float(), q)
    drawn = sine_network([2, 5, 1], generator=torch.Generator().manual_seed(1))
    assert not torch.equal(drawn[0].weight, one[0].weight)


def test_frequencies_are_learnt():
    network = sine_network([1, 6, 6, 1], 2.0, learn=True)
    x = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64).unsqueeze(1)
    solution = levenberg_marquardt(lambda m: m(x) - torch.sin(5.0 * x), network, max_cycles=60)
    assert solution.values[-1] < 1e-8
    assert all(part.frequency.item() != 2.0 for part in network if isinstance(part, Sine))
    problem = LeastSquares(network, (x, x))
    u, h = problem.start(), 1e-6
    place = [p.numel() for p in network.parameters()].index(1)  # the first frequency
    start = sum(p.numel() for p in list(network.parameters())[:place])
    e = torch.zeros_like(u)
    e[start] = h
    slope = (problem.residuals(u + e) - problem.residuals(u - e)) / (2.0 * h)
    torch.testing.assert_close(problem.jacobian(u)[:, start], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "frequency", [0.0, -1.0, float("nan"), float("inf"), 1e-300, "1", True, None]
)
def test_frequencies_that_are_none(frequency):
    for make in (Sine, lambda f: sine_network([1, 2, 1], f)):
        with pytest.raises(
            ValueError, match="got frequency .*; it must be a number from 1e-06 to 1e.06"
        ):
            make(frequency)


@pytest.mark.parametrize("widths", [[2], [], 3, None, [2, 0, 1], [2, 2.0, 1], "21"])
def test_widths_that_are_none(widths):
    with pytest.raises(ValueError, match="sine_network got widths .*; give at least two positive"):
        sine_network(widths)


def test_other_refusals():
    with pytest.raises(TypeError, match="Sine got learn 1; it must be True or False"):
        Sine(1.0, 1)
    with pytest.raises(TypeError, match="got dtype torch.int32; give torch.float64"):
        sine_network([1, 1], dtype=torch.int32)
