"""Points that satisfy both conditions, whatever the first trial."""

import math

import numpy as np
import pytest
from scipy.optimize import line_search, rosen, rosen_der

from mgnet.training.optimizers.wolfe import Trial, strong_wolfe

FUNCTIONS = {  # value and slope, both descend at 0
    "parabola": (lambda t: (t - 3.0) ** 2, lambda t: 2.0 * (t - 3.0)),
    "quartic": (lambda t: (t - 1.0) ** 4 - t, lambda t: 4.0 * (t - 1.0) ** 3 - 1.0),
    "waves": (lambda t: t * t / 9.0 - math.sin(4 * t), lambda t: 2 * t / 9 - 4 * math.cos(4 * t)),
    "flat then steep": (  # More and Thuente (1994), equation (5.1)
        lambda t: -t / (t * t + 2.0),
        lambda t: (t * t - 2.0) / (t * t + 2.0) ** 2,
    ),
    "a wall": (
        lambda t: -t if t < 0.5 else math.inf if t > 0.6 else 40.0 * (t - 0.5) ** 2 - t,
        lambda t: -1.0 if t < 0.5 else math.nan if t > 0.6 else 80.0 * (t - 0.5) - 1.0,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("curvature", [0.9, 0.1, 1e-3])
@pytest.mark.parametrize("first", [1e-3, 1e-1, 1.0, 1e2])
def test_both_conditions_hold(name, first, curvature):
    value, slope = FUNCTIONS[name]
    start = Trial(0.0, value(0.0), slope(0.0))
    counted = []

    def evaluate(length):
        counted.append(length)
        return Trial(length, value(length), slope(length))

    found = strong_wolfe(evaluate, start, first, curvature=curvature)
    assert found.value <= start.value + 1e-4 * found.length * start.slope
    assert abs(found.slope) <= -curvature * start.slope
    assert len(counted) <= 20


def test_a_cubic_is_minimised_in_one_interpolation():
    def cubic(t):
        return Trial(t, t**3 - 3.0 * t, 3.0 * t * t - 3.0)  # least at 1

    found = strong_wolfe(cubic, cubic(0.0), 1.7, curvature=1e-9)
    assert found.length == pytest.approx(1.0, abs=1e-12)


def test_no_more_evaluations_than_scipy():
    x = [-1.2, 1.0, 0.8, 1.1]
    d = -rosen_der(x)
    ours = []

    def evaluate(length):
        ours.append(length)
        point = x + length * d
        return Trial(length, rosen(point), rosen_der(point) @ d)

    found = strong_wolfe(evaluate, evaluate(0.0), 1.0)
    theirs = line_search(rosen, rosen_der, x, d)
    assert found is not None
    assert len(ours) <= theirs[1] + 1


def test_no_point_is_found_where_the_function_does_not_descend():
    def up(t):
        return Trial(t, t, 1.0)

    assert strong_wolfe(up, Trial(0.0, 0.0, -1.0), 1.0, trials=8) is None

    def line(t):
        return Trial(t, -t, -1.0)  # descends forever: the last point is the lowest

    assert strong_wolfe(line, line(0.0), 1.0, trials=8).length > 100.0


def test_an_interval_of_rounding_ends_the_search():
    def ramp(length):  # down to 1, then a wall: no point is flat enough
        return Trial(length, -length if length <= 1.0 else 1e9, -1.0 if length <= 1.0 else 1e9)

    assert strong_wolfe(ramp, ramp(0.0)).length == 1.0


@pytest.mark.parametrize("k", [-1000, -560, -400, 400, 520, 980])
def test_values_times_a_power_of_two_give_the_same_lengths(k):
    """Over the whole range, though squares of slopes are none at its ends."""

    def lengths(factor, seed):
        draw = np.random.default_rng(seed)
        a, b, c = draw.uniform(0.5, 3.0, 3)
        told = []

        def ray(t):
            told.append(t)
            value = a * (t - b) ** 2 + c * math.sin(3.0 * t)
            slope = 2.0 * a * (t - b) + 3.0 * c * math.cos(3.0 * t)
            return Trial(t, factor * value, factor * slope)

        start = ray(0.0)
        if start.slope < 0.0:
            strong_wolfe(ray, start, 10.0, curvature=0.01)
        return told

    drawn = [lengths(1.0, seed) for seed in range(20)]
    assert drawn == [lengths(2.0**k, seed) for seed in range(20)]
    assert max(map(len, drawn)) > 4
