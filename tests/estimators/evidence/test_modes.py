"""Both penalties are diagonal, by quadrature with SciPy's splines; refinement changes no value."""

import numpy as np
import pytest
from scipy.interpolate import BSpline

from mgnet.estimators.evidence.modes import refined_modes, spline_modes

DEGREES = range(1, 6)


def scipy_modes(modes):
    """The modes as a SciPy spline on uniform knots."""
    n, degree = modes.intervals, modes.degree
    knots = -1.0 + 2.0 / n * np.arange(-degree, n + degree + 1)
    return BSpline(knots, modes.coefficients, degree)


def quadrature(intervals, nodes=8):
    """Places and weights of means over [-1, 1], exact for splines on these intervals."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    places = -1.0 + 2.0 / intervals * (np.arange(intervals)[:, None] + 0.5 * (x + 1.0))
    return places.ravel(), np.tile(0.5 * w / intervals, intervals)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("intervals", [1, 2, 5, 16])
def test_penalties_are_diagonal(intervals, degree):
    modes = spline_modes(intervals, degree)
    spline, (x, w) = scipy_modes(modes), quadrature(intervals)
    count = intervals + degree - 1
    assert modes.coefficients.shape == (count + 1, count)
    slopes = spline.derivative()(x)
    np.testing.assert_allclose(slopes.T @ (w[:, None] * slopes), np.eye(count), atol=1e-8)
    np.testing.assert_allclose(w @ spline(x), 0.0, atol=1e-12)
    if degree > 1:
        bends = spline.derivative(2)(x)
        rough = bends.T @ (w[:, None] * bends)
    else:  # jumps of the slope at inner knots, over the distance of knots
        h = 2.0 / intervals
        middles = spline.derivative()(-1.0 + h * (np.arange(intervals) + 0.5))
        rough = 0.5 / h * np.diff(middles, axis=0).T @ np.diff(middles, axis=0)
    scale = max(modes.roughness.max(), 1.0)
    np.testing.assert_allclose(rough, np.diag(modes.roughness), atol=1e-8 * scale)
    assert modes.roughness[0] == 0.0 and (np.diff(modes.roughness) > -1e-9).all()
    np.testing.assert_allclose(spline(x)[:, 0], x, atol=1e-10)


@pytest.mark.parametrize("degree", DEGREES)
def test_values_and_slopes_are_those_of_scipy(degree):
    modes = spline_modes(4, degree)
    x = np.random.default_rng(degree).uniform(-1.0, 1.0, (7, 3))
    x.flat[:3] = -1.0, 1.0 - 1e-15, 0.25
    values, slopes = modes.values_and_slopes(x)
    spline = scipy_modes(modes)
    np.testing.assert_allclose(values, spline(x), atol=1e-10)
    np.testing.assert_allclose(slopes, spline.derivative()(x), atol=1e-8)
    np.testing.assert_array_equal(modes.values(x), values)
    # The last knot belongs to the last interval.
    np.testing.assert_allclose(modes.values(np.array(1.0)), spline(1.0 - 1e-14), atol=1e-10)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("intervals", [1, 3, 8])
def test_refined_modes_are_the_same_functions(intervals, degree):
    coarse, fine = spline_modes(intervals, degree), spline_modes(2 * intervals, degree)
    x = np.linspace(-1.0, 1.0, 41)
    np.testing.assert_allclose(
        fine.values(x) @ refined_modes(coarse, fine), coarse.values(x), atol=1e-10
    )
