"""An assembled network gives the weighted sum of the models' outputs."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from mgnet.estimators.evidence.assembly import assembled, joined
from mgnet.estimators.evidence.features import features_of
from mgnet.estimators.evidence.maximization import Fitted
from mgnet.estimators.evidence.model import Additive, Hidden
from mgnet.estimators.evidence.modes import spline_modes
from mgnet.knots import KAN


def members(degree, outputs, seed, size=1.0):
    """Of both kinds and several sizes of knots, with drawn parameters and shares."""
    rng = np.random.default_rng(seed)
    x = np.column_stack(
        [rng.uniform(-1.0, 1.0, 50), rng.choice([-1.0, 0.3, 1.0], 50), rng.uniform(-1.0, 1.0, 50)]
    )
    x[:2] = [[-1.0] * 3, [1.0] * 3]
    coarse, fine = (features_of(x, spline_modes(n, degree)) for n in (2, 4))
    line = features_of(x, spline_modes(4, degree), None, 1)
    models = [
        Additive(line, outputs),
        Additive(fine, outputs),
        Hidden(coarse, spline_modes(4, degree), 3, outputs, seed=0),
        Hidden(line, spline_modes(2, degree), 2, outputs, seed=1),
    ]
    pairs = []
    for model in models:
        u = size * rng.normal(size=model.size)
        own = Fitted(model, u, model.prior(), 1.0, np.zeros(len(u)), 1)
        pairs.append((float(rng.uniform(0.1, 1.0)), own))
    return x, pairs


def by_scipy(network, x):
    """What a network gives: sums of splines, tanh, sums of splines."""
    for layer, coefficients in enumerate(network.coefficients):
        n, degree = network.intervals[layer], network.degree
        knots = -1.0 + 2.0 / n * np.arange(-degree, n + degree + 1)
        x = np.clip(np.tanh(x) if layer else x, -1.0, 1.0 - 1e-15)
        edges = zip(coefficients.detach().numpy(), x.T, strict=True)
        x = sum(BSpline(knots, edge, degree)(column) for edge, column in edges)
    return x


def summed(x, pairs):
    return sum(
        share * own.model.outputs(own.model.features.matrix(x), own.u) for share, own in pairs
    )


@pytest.mark.parametrize("size", [1.0, 1e-3, 30.0])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("degree", range(1, 6))
def test_the_network_is_the_sum_of_the_models(degree, outputs, size):
    x, pairs = members(degree, outputs, degree, size)
    network = assembled(pairs, (4, 4), degree)
    assert isinstance(network, KAN) and network.widths == (3, outputs + 5, outputs)
    between = np.random.default_rng(9).uniform(-1.0, 1.0, (40, 3))
    for rows in (x, between):
        expected = summed(rows, pairs)
        found = by_scipy(network, rows)
        np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())
        if degree == 3:
            own = network(torch.from_numpy(rows)).detach().numpy()
            np.testing.assert_allclose(own, expected, atol=1e-7 * np.abs(expected).max())
    larger = by_scipy(assembled(pairs, (16, 8), degree), x)
    np.testing.assert_allclose(larger, summed(x, pairs), atol=1e-7 * np.abs(larger).max())


def test_models_that_are_zero():
    x, pairs = members(3, 1, 0, size=0.0)
    assert not assembled(pairs, (4, 4), 3)(torch.from_numpy(x)).any()


@pytest.mark.parametrize("degree", [3])
@pytest.mark.parametrize("first_is_zero", [False, True])
def test_networks_side_by_side(first_is_zero, degree):
    parts, expected = [], []
    for seed, intervals in enumerate([(4, 4), (8, 4), (4, 16)]):
        x, pairs = members(degree, seed + 1, seed)
        parts.append(assembled(pairs, intervals, degree))
    x = torch.from_numpy(x)
    both = joined(parts, first_is_zero)
    assert both.intervals == (8, 16) and both.widths[2] == 6 + first_is_zero
    expected = [network(x).detach() for network in parts]
    expected = [torch.zeros(len(x), 1).double()] * first_is_zero + expected
    np.testing.assert_allclose(both(x).detach(), torch.cat(expected, 1), atol=1e-9)
    assert joined(parts[:1]) is parts[0]
    alone = joined(parts[:1], True)(x).detach()
    assert not alone[:, 0].any()
    np.testing.assert_allclose(alone[:, 1:], parts[0](x).detach(), atol=1e-12)
