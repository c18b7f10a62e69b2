"""Columns are centred modes, no more for an input than its values tell apart."""

import numpy as np
import pytest
from scipy.interpolate import BSpline

from mgnet.estimators.evidence.features import different_values, features_of, finer
from mgnet.estimators.evidence.modes import spline_modes


def rows(seed=0, count=60):
    """Inputs with many different values, three, two, and five."""
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.uniform(-1.0, 1.0, count),
            rng.choice([-1.0, 0.1, 1.0], count),
            rng.choice([-1.0, 1.0], count),
            rng.choice(np.linspace(-1.0, 1.0, 5), count),
        ]
    )


@pytest.mark.parametrize("degree", range(1, 6))
def test_columns(degree):
    x, modes = rows(), spline_modes(4, degree)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, len(x))
    own = features_of(x, modes, weights)
    most = len(modes.roughness)
    assert own.counts.tolist() == [most, 2, 1, 4]
    B = own.matrix(x)
    np.testing.assert_allclose(np.average(B, 0, weights), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.average(B**2, 0, weights), own.deviation**2, rtol=1e-10)
    assert np.linalg.matrix_rank(B) == B.shape[1]
    assert own.inputs.tolist() == np.repeat(range(4), own.counts).tolist()
    np.testing.assert_allclose(B[:, own.linear] + own.centre[own.linear], x, atol=1e-10)
    assert own.bent.tolist() == ([most - 1, most + 6] if most == 4 else [most - 1])
    assert (own.roughness[own.linear] == 0.0).all() and len(own.roughness) == B.shape[1]
    assert features_of(x, modes, None, 1).counts.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("degree", range(1, 6))
def test_splines_are_the_sums_of_columns(degree):
    x, n = rows(), 4
    own = features_of(x, spline_modes(n, degree))
    weights = np.random.default_rng(0).normal(size=(len(own.centre), 2))
    coefficients, constants = own.splines(weights)
    knots = -1.0 + 2.0 / n * np.arange(-degree, n + degree + 1)
    x = np.clip(x, -1.0, 1.0 - 1e-14)
    edges = zip(coefficients, x.T, strict=True)
    summed = sum(BSpline(knots, edge, degree)(column) for edge, column in edges)
    np.testing.assert_allclose(summed + constants, own.matrix(x) @ weights, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("degree", [1, 3, 5])
def test_finer_columns_hold_the_same_functions(degree, seed):
    x = rows(seed)
    coarse, fine = (features_of(x, spline_modes(n, degree)) for n in (2, 4))
    matrices = finer(coarse, fine, x)
    whole = np.zeros((len(fine.centre), len(coarse.centre)))
    a = b = 0
    for matrix in matrices:
        whole[a : a + matrix.shape[0], b : b + matrix.shape[1]] = matrix
        a, b = a + matrix.shape[0], b + matrix.shape[1]
    np.testing.assert_allclose(fine.matrix(x) @ whole, coarse.matrix(x), atol=1e-9)


def test_few_values_that_show_late():
    """A column whose first rows are all the same, and one that is long."""
    x = np.zeros((5000, 1))
    x[-3:, 0] = 0.25, 0.5, 1.0
    assert features_of(x, spline_modes(8, 3)).counts.tolist() == [3]
    assert different_values(x).tolist() == [4]
