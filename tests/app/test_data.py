"""What a fit starts from and ends with, against sums over the real thing."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error

from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data, Settings, intervals_on, parameters
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import LeastSquares, LevenbergMarquardt


@pytest.mark.parametrize("hidden", [(8,), (5, 5), (1,)])
@pytest.mark.parametrize(("intervals", "degree", "levels"), [(4, 3, 4), (3, 1, 1), (2, 5, 2)])
def test_parameters_are_those_of_the_finest_network(hidden, intervals, degree, levels):
    settings = Settings(hidden=hidden, intervals=intervals, degree=degree, levels=levels)
    kan = KAN([2, *hidden, 1], intervals, degree)
    for _ in range(levels - 1):
        kan = kan.refine()
    assert parameters(2, settings) == sum(p.numel() for p in kan.parameters())


def test_the_mean_of_the_training_target_has_the_error_one():
    y = np.array([1.0, 4.0, 4.0, 7.0])
    data = Data(("x",), Targets(("y",)), np.zeros((4, 1)), y, np.zeros((0, 1)), y[:0])
    assert data.loss(np.full(4, y.mean()), y) == pytest.approx(1.0)
    assert data.loss(y + 3.0, y) == pytest.approx(9.0 / 4.5)
    held = np.array([10.0, 20.0])  # over the variance of the training target, whatever these have
    assert data.loss(held + 3.0, held) == pytest.approx(9.0 / 4.5)


@pytest.mark.parametrize("power", [-1000, -600, 0, 600, 1010])
def test_errors_are_the_same_in_every_unit(power):
    rng = np.random.default_rng(0)
    y, predicted = np.ldexp(rng.normal(size=(2, 30)), power)
    data = Data(("x",), Targets(("y",)), np.zeros((30, 1)), y, np.zeros((0, 1)), y[:0])
    ours, theirs = np.ldexp(y, -power), np.ldexp(predicted, -power)
    expected = np.mean((theirs - ours) ** 2) / np.var(ours)
    assert data.loss(predicted, y) == pytest.approx(expected, rel=1e-13)
    assert data.deviation == pytest.approx(float(np.ldexp(np.std(ours), power)), rel=1e-13)


@pytest.mark.parametrize("seed", range(4))
def test_several_targets_count_alike_and_weights_are_repetitions(seed):
    rng = np.random.default_rng(seed)
    y, guess = rng.normal(size=(2, 40, 3)) * 10.0 ** rng.integers(-5, 5, 3)
    weights = rng.integers(1, 4, 40).astype(float)
    x, names = np.zeros((40, 1)), ("p", "q", "r")
    data = Data(("x",), Targets(names), x, y, x, y, weights, weights)
    many = np.repeat(np.arange(40), weights.astype(int))
    long = Data(("x",), Targets(names), x[many], y[many], x[many], y[many])
    each = mean_squared_error(y, guess, sample_weight=weights, multioutput="raw_values")
    deviations = np.std(y[many], axis=0)
    expected = np.mean(each / deviations**2)
    assert data.loss(guess, y, weights) == pytest.approx(expected)
    assert long.loss(guess[many], y[many]) == pytest.approx(expected)
    assert data.losses(lambda x: guess) == pytest.approx((expected, expected))
    np.testing.assert_allclose(data.root_mean_squares(guess, y, weights), np.sqrt(each))
    np.testing.assert_allclose(data.deviation, deviations)


@pytest.mark.parametrize("seed", range(4))
def test_classes_are_judged_as_scikit_learn_judges_them(seed):
    rng = np.random.default_rng(seed)
    kinds = int(rng.integers(2, 6))
    shares = rng.dirichlet(np.full(kinds, 0.1), 50)
    y = rng.integers(0, kinds, 50)
    shares[0] = np.eye(kinds)[(y[0] + 1) % kinds]  # surely wrong
    weights = rng.uniform(0.0, 2.0, 50) if seed % 2 else None
    classes = Targets(("kind",), tuple("abcdef"[:kinds]))
    data = Data(("x",), classes, np.zeros((50, 1)), y, np.zeros((50, 1)), y, weights, weights)
    expected = log_loss(y, shares, sample_weight=weights, labels=range(kinds))
    assert data.losses(lambda x: shares) == pytest.approx((expected, expected))
    found = accuracy_score(y, shares.argmax(1), sample_weight=weights)
    assert data.accuracy(shares, y, weights) == pytest.approx(found)


@pytest.mark.parametrize("seed", range(8))
def test_intervals_are_those_of_the_hierarchy(seed):
    rng = np.random.default_rng(seed)
    hidden = tuple(rng.integers(1, 3, rng.integers(1, 3)).tolist())
    first, levels = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    most = (10**6, *(first * rng.integers(1, 9, len(hidden))).tolist())
    settings = Settings(hidden, intervals=first, levels=levels, most_intervals=most)
    kan = KAN([1, *hidden, 1], first)
    x = torch.zeros(3, 1, dtype=torch.float64)
    hierarchy = knot_hierarchy(
        kan, LeastSquares(kan, (x, x)), levels, LevenbergMarquardt(), most_intervals=most
    )
    for number, level in enumerate(hierarchy):
        assert intervals_on(settings, levels - 1 - number) == level.operator.network.intervals
    finest = hierarchy[0].operator.network
    assert parameters(1, settings) == sum(p.numel() for p in finest.parameters())


def test_limits_of_other_layers_are_refused():
    with pytest.raises(ValueError, match="3 numbers of most_intervals for 2 layers"):
        parameters(2, Settings(hidden=(4,), most_intervals=(8, 8, 8)))
