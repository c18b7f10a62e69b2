"""Trials choose the layers that lack knots, keep the best network, and tell when none does."""

import copy
import math

import numpy as np
import pytest
import torch

from mgnet.knots import KAN, TrialRefinement, refine_where_needed
from mgnet.knots.adaptive_refinement import _chosen
from mgnet.training import Ansatz, LeastSquares, levenberg_marquardt

GENERATOR = torch.Generator().manual_seed(0)
X = 2.0 * torch.rand(900, 2, generator=GENERATOR, dtype=torch.float64) - 1.0
# The sum of two functions of one variable, and a function of it; one of them is rough.
SMOOTH = (X[:, :1] + torch.sin(1.5 * X[:, 1:])) / 2.0
TARGETS = {
    "inner": torch.sin((torch.sin(12.0 * X[:, :1]) + torch.sin(2.0 * X[:, 1:])) / 2.0),
    "outer": torch.tanh(12.0 * (SMOOTH - 0.1)) + SMOOTH,
    "none": torch.exp(0.5 * SMOOTH),
}


def tools(y, steps=12):
    def fit(network):
        levenberg_marquardt(LeastSquares(network, (X[:600], y[:600])), max_cycles=steps)

    def error(network):
        with torch.no_grad():
            return (network(X[600:]) - y[600:]).square().mean().sqrt()

    return fit, error


@pytest.mark.parametrize(
    ("rough", "noise", "layers"), [("inner", 0.0, (0,)), ("outer", 0.0, (1,)), ("none", 0.05, ())]
)
def test_the_rough_layer_is_refined(rough, noise, layers):
    y = TARGETS[rough] + noise * torch.randn(X[:, :1].shape, generator=GENERATOR).double()
    fit, error = tools(y)
    kan = KAN([2, 1, 1], 8)
    fit(kan)
    before = copy.deepcopy(kan)
    found = refine_where_needed(kan, fit, error)
    assert found.layers == layers
    assert found.network.intervals == tuple(16 if k in layers else 8 for k in range(2))
    assert found.error == found.errors[layers] == float(error(found.network))
    assert all(map(torch.equal, kan.parameters(), before.parameters()))
    # What each trial is: the refinement of these layers alone, fitted.
    for tried, told in found.errors.items():
        if tried:
            other = kan.refine(layers=tried)
            fit(other)
            assert float(error(other)) == told
    assert set(found.errors) >= {(), (0,), (1,)}
    gains = sum(found.errors[k,] < 0.9 * found.errors[()] for k in (0, 1))
    assert ((0, 1) in found.errors) == (gains != 1)


def test_without_gain_the_better_of_the_network_and_its_fitted_copy_stays():
    kan = KAN([2, 1, 1], 4)
    for change, same in ((0.1, True), (-0.1, False)):
        told = {}

        def fit(network, change=change, told=told):
            told[id(network)] = 1.0 + change

        found = refine_where_needed(kan, fit, lambda network, told=told: told.get(id(network), 1.0))
        assert found.layers == () and (found.network is kan) is same
        assert found.error == min(1.0, 1.0 + change)


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_the_smallest_near_the_best(seed):
    """Against the rule read off the documentation, by another way of counting."""
    draw = np.random.default_rng(seed)
    sets = [(), (0,), (1,), (2,), (0, 1, 2)]
    errors = {layers: float(10.0 ** -draw.uniform(0, 2)) for layers in sets}
    errors[()] = 1.0
    sizes = {layers: int(draw.integers(1, 5)) for layers in sets}
    digits = {n: -math.log10(e) for n, e in errors.items() if n and e < 0.9}
    near = [n for n, gained in digits.items() if gained >= 0.8 * max(digits.values())]
    expected = min(near, key=lambda n: (sizes[n], errors[n])) if near else ()
    assert _chosen(errors, 0.9, sizes) == expected


def test_an_exact_network_is_taken():
    assert _chosen({(): 1.0, (0,): 0.0, (1,): 1e-9}, 0.9, {(): 1, (0,): 3, (1,): 2}) == (0,)
    assert _chosen({(): 0.0, (0,): 0.0}, 0.0, {(): 1, (0,): 3}) == ()


def test_tied_layers_are_tried_together_and_other_modules_hold_the_network():
    kan = KAN([2, 2, 2], 2)
    kan.coefficients[1] = kan.coefficients[0]
    ansatz = Ansatz(kan)
    found = refine_where_needed(
        ansatz, lambda network: None, lambda network: 1.0 / network.network.intervals[0], factor=3
    )
    assert isinstance(found, TrialRefinement) and found.layers == (0, 1)
    assert isinstance(found.network, Ansatz) and found.network.network.intervals == (6, 6)
    assert set(found.errors) == {(), (0, 1)}


def test_refusals():
    kan = KAN([1, 1])

    def called(network=kan, fit=lambda n: None, error=lambda n: 1.0, **options):
        return refine_where_needed(network, fit, error, **options)

    for gain in (0.0, 1.0, -0.1, float("nan"), True, "much"):
        with pytest.raises(ValueError, match="refine_where_needed got gain .*between 0 and 1"):
            called(gain=gain)
    for factor in (1, 2.0, None):
        with pytest.raises(ValueError, match="refine_where_needed got factor"):
            called(factor=factor)
    with pytest.raises(TypeError, match="got fit of type NoneType; give a function of a network"):
        called(fit=None)
    with pytest.raises(TypeError, match="got error of type float; give a function of a network"):
        called(error=0.1)
    with pytest.raises(TypeError, match="a Linear with 0 KANs in it"):
        called(network=torch.nn.Linear(1, 1))
    for value in (float("nan"), float("inf"), -1.0, torch.tensor(float("nan"))):
        with pytest.raises(ValueError, match="got the error .* of the network without refinement"):
            called(error=lambda n, value=value: value)
    with pytest.raises(ValueError, match=r"nan of the network with layers \(0,\) refined"):
        called(error=lambda n: 1.0 if n.intervals == (4,) else float("nan"))
    with pytest.raises(TypeError, match="error .* must be a number"):
        called(error=lambda n: torch.ones(2))
