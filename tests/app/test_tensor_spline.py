"""Laws of the tensor-product splines, with SciPy's splines as the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import BSpline, NdBSpline, make_lsq_spline

from mgnet.app.tensor_spline import Axis, Splines, equal_error_grid, jumps, least_squares

EVEN = (0.0, 1.0)
BENT = (0.0, 0.1, 0.5, 1.0)


def splines(*intervals, penalty=-6.0, scale="linear", grid=EVEN, low=0.0, high=1.0):
    axes = tuple(Axis(low, high, scale, grid, number) for number in intervals)
    return Splines(axes, (penalty,) * len(axes))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_agrees_with_scipy_without_penalty(rng):
    x = np.sort(rng.random(300))
    x[0], x[-1] = 0.0, 1.0
    y = np.sin(9.0 * x) + 0.1 * rng.standard_normal(300)
    choice = splines(11, penalty=-30.0, grid=BENT)
    ours = least_squares(choice, x[:, None], y)
    theirs = make_lsq_spline(x, y, choice.axes[0].knots(), 3)
    assert ours.coefficients == pytest.approx(theirs.c, abs=1e-9)


@pytest.mark.parametrize("grid", [EVEN, BENT])
@pytest.mark.parametrize("penalty", [-6.0, 2.0])
def test_a_product_of_cubics_comes_back_exactly_whatever_the_penalty(rng, grid, penalty):
    x = rng.random((500, 2))

    def cubic(x):
        return (1.0 + x[:, 0] - 3.0 * x[:, 0] ** 3) * (2.0 - x[:, 1] ** 2 + x[:, 1] ** 3)

    fit = least_squares(splines(7, 5, penalty=penalty, grid=grid), x, cubic(x))
    other = rng.random((100, 2))
    assert fit(other) == pytest.approx(cubic(other), abs=1e-8)


def test_three_inputs_agree_with_scipy(rng):
    x = rng.random((800, 3))
    choice = splines(2, 3, 4)
    fit = least_squares(choice, x, np.sin(x.sum(axis=1)))
    knots = tuple(axis.knots() for axis in choice.axes)
    oracle = NdBSpline(knots, fit.coefficients.reshape(choice.shape), 3)
    assert fit(x) == pytest.approx(oracle(x), abs=1e-12)


def test_jumps_are_those_of_the_third_derivative(rng):
    knots = splines(6, grid=BENT).axes[0].knots()
    c = rng.standard_normal(len(knots) - 4)
    third = BSpline(knots, c, 3).derivative(3)
    places = np.unique(knots)
    h = 0.5 * (places[2:] - places[:-2])
    step = 1e-9
    expected = (third(places[1:-1] + step) - third(places[1:-1] - step)) * h**3
    assert jumps(knots) @ c == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_it_goes_on_linearly_beyond_the_range(rng, scale):
    x = rng.uniform(1.0, 2.0, (300, 1))
    x[:2, 0] = 1.0, 2.0
    choice = splines(6, scale=scale, low=1.0, high=2.0)
    fit = least_squares(choice, x, np.exp(x[:, 0]))
    for ends in ([0.4, 0.7, 1.0], [2.0, 2.3, 2.6]):
        values = fit(np.array(ends)[:, None])
        assert values[2] - values[1] == pytest.approx(values[1] - values[0], rel=1e-9)
    inner = fit(np.array([[2.0 - 1e-6], [2.0], [2.0 + 1e-6]]))
    assert np.diff(inner)[1] == pytest.approx(np.diff(inner)[0], rel=1e-4)


def test_logarithms_of_the_target_fit_a_power_exactly(rng):
    x = rng.uniform(1.0, 9.0, (200, 1))
    choice = replace(splines(3, scale="log", low=1.0, high=9.0), scale="log")
    fit = least_squares(choice, x, x[:, 0] ** -2.5)
    assert fit(x) == pytest.approx(x[:, 0] ** -2.5, rel=1e-8)


def test_knots_gather_where_the_fit_bends(rng):
    x = rng.random((2000, 1))
    fit = least_squares(splines(40), x, np.tanh(30.0 * (x[:, 0] - 0.7)))
    grid = np.array(equal_error_grid(fit, 0))
    assert (grid[0], grid[-1]) == EVEN
    assert np.all(np.diff(grid) > 0.0)
    assert np.mean(np.abs(grid - 0.7) < 0.15) > 0.5
