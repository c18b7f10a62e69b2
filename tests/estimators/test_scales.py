"""Scales map ranges to the domain and standardise targets; networks go on by their tangent."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mgnet.estimators.scales import Scales, continued
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
