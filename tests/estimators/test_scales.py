"""Scales map ranges to the domain and standardize targets; networks go on by their tangent."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mgnet.estimators.scales import Scales, continued, mean_and_deviation
from mgnet.knots import KAN

X = np.random.default_rng(0).uniform([0.0, 10.0, 3.0], [2.0, 30.0, 4.0], (50, 3))
Y = np.column_stack([X[:, 0] ** 2, 100.0 + X[:, 1]])


def test_as_scikit_learn_scales():
    scales = Scales.of(X, Y)
    assert np.allclose(scales.inputs(X), MinMaxScaler((-1.0, 1.0)).fit_transform(X), atol=1e-14)
    assert np.allclose(scales.targets(Y), StandardScaler().fit_transform(Y), atol=1e-12)
    assert np.allclose(scales.values(scales.targets(Y)), Y, rtol=1e-14)


def test_what_does_not_vary():
    x, y = np.ones((5, 2)), np.full((5, 1), 7.0)
    scales = Scales.of(x, y)
    assert scales.inputs(x).tolist() == [[-1.0, -1.0]] * 5
    assert scales.values(scales.targets(y)).tolist() == [[7.0]] * 5


def test_the_continuation_is_the_tangent_at_the_nearest_point():
    kan = KAN([3, 4, 2])
    inside = torch.rand(6, 3, dtype=torch.float64)
    assert torch.equal(continued(kan, inside), kan(inside).detach())
    z = torch.tensor([[1.5, 0.2, -3.0]], dtype=torch.float64)
    corner = z.clamp(-1.0, 1.0)
    slopes = torch.func.jacrev(lambda x: kan(x)[0])(corner)[:, 0]
    expected = kan(corner)[0] + slopes @ (z - corner)[0]
    assert continued(kan, z)[0].tolist() == pytest.approx(expected.tolist(), rel=1e-12)


def test_scales_of_older_pickles_have_all_inputs():
    former = Scales(((0.0, 2.0), (7.0, 7.0)), (1.0,), (2.0,))
    del former.__dict__["left_out"]  # as unpickled from what an older version wrote
    assert former.inputs([[1.0, 7.0], [2.0, 1e308]]).tolist() == [[0.0, -1.0], [1.0, -1.0]]
    assert former.narrowed().ranges == former.ranges


@pytest.mark.parametrize("seed", range(4))
def test_weighted_scales_are_those_of_repeated_rows(seed):
    rng = np.random.default_rng(seed)
    times = rng.integers(1, 5, len(Y))
    mean, deviation = mean_and_deviation(Y, 0.3 * times)
    long_mean, long_deviation = mean_and_deviation(np.repeat(Y, times, 0))
    np.testing.assert_allclose(mean, long_mean, rtol=1e-14)
    np.testing.assert_allclose(deviation, long_deviation, rtol=1e-13)


@pytest.mark.parametrize("power", [-1050, -1000, -500, 500, 1000, 1014])
def test_every_unit_gives_the_same_numbers(power):
    """Exactly, but where digits of subnormal numbers are lost."""
    few = np.round(np.ldexp(X, 10)) if power < -1000 else X
    one, other = Scales.of(few, few), Scales.of(np.ldexp(few, power), np.ldexp(few, power))
    loose = 1e-6 if power < -1000 else 0.0
    z, far = np.ldexp(few, power), np.ldexp(few, min(power + 8, 1014))
    near = np.ldexp(few, min(power + 8, 1014) - power)
    np.testing.assert_array_equal(other.inputs(z), one.inputs(few))
    np.testing.assert_array_equal(other.inputs(far), one.inputs(near))
    np.testing.assert_allclose(other.targets(z), one.targets(few), rtol=loose, atol=loose)
    back = np.ldexp(other.values(one.targets(few)), -power)
    np.testing.assert_allclose(back, few, rtol=max(loose, 1e-13))


def test_the_ends_of_the_range():
    most = np.finfo(float).max
    column = np.array([[-most], [0.0], [most]])
    scales = Scales.of(column, column)
    assert scales.inputs(column).tolist() == [[-1.0], [0.0], [1.0]]
    np.testing.assert_allclose(scales.targets(column), [[-(1.5**0.5)], [0.0], [1.5**0.5]])
    np.testing.assert_allclose(scales.values(scales.targets(column))[1:2], [[0.0]], atol=1e292)
    far = Scales.of(np.array([[0.0], [5e-324]])).inputs([[most], [-most]])
    assert torch.equal(far, torch.tensor([[most], [-most]], dtype=torch.float64))
