"""The optimal weights give the polynomial that is best for V-cycles, with known digits."""

import numpy as np
import pytest

from mgnet import Chebyshev, Solver, gallery
from mgnet.fourth_kind import MOST_OPTIMAL, optimal_weights

# Those that PETSc and Trilinos tabulate from the paper's own program.
KNOWN = {
    1: [1.125],
    2: [1.02387287570313, 1.26408905371085],
    3: [1.00842544782028, 1.08867839208730, 1.33753125909618],
    4: [1.00391310427285, 1.04035811188593, 1.14863498546254, 1.38268869241000],
    8: [1.00057246631197, 1.00577427662415, 1.02050187922941, 1.05019803444565,
        1.10115572984941, 1.18086042806856, 1.29838585382576, 1.46486073151099],
}  # fmt: skip


def polynomial(weights, x):
    """Make the error that is left by the steps of the smoother, for eigenvalues x."""
    v, error, step = np.ones_like(x), np.ones_like(x), np.zeros_like(x)
    for k, weight in enumerate(weights, 1):
        step = ((2 * k - 3) * step + (8 * k - 4) * v) / (2 * k + 1)
        v = v - x * step
        error = error - weight * x * step
    return error


def largest(weights):
    """Find the largest `x p^2 / (1 - p^2)` by brute force: a V-cycle's bound is made of it."""
    x = np.sin(np.linspace(1e-3, np.pi / 2, 20_001)) ** 2
    p = polynomial(weights, x)
    return (x * p**2 / (1 - p**2)).max(), x, p


@pytest.mark.parametrize("degree", KNOWN)
def test_known_digits(degree):
    np.testing.assert_allclose(optimal_weights(degree), KNOWN[degree], rtol=1e-13)


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 7, 12, 30, MOST_OPTIMAL])
def test_the_largest_value_is_taken_between_all_roots_and_at_both_ends(degree):
    weights = optimal_weights(degree)
    most, x, p = largest(weights)
    value = x * p**2 / (1 - p**2)
    inner = (value[1:-1] >= value[:-2]) & (value[1:-1] >= value[2:])
    peaks = value[1:-1][inner]
    assert len(peaks) == degree - 1
    np.testing.assert_allclose([*peaks, value[-1]], most, rtol=2e-3)
    # At 0 p is 1 - a x, so the value is 1 / (2 a).
    slope = (1 - polynomial(weights, np.array([1e-9]))[0]) / 1e-9
    assert 0.5 / slope == pytest.approx(most, rel=2e-3)


@pytest.mark.parametrize("degree", [1, 2, 3, 5, 8])
def test_other_weights_are_worse(degree):
    best, draw = largest(optimal_weights(degree))[0], np.random.default_rng(0)
    for size in (1e-1, 1e-2):
        for _ in range(20):
            weights = np.array(optimal_weights(degree)) * (1 + size * draw.uniform(-1, 1, degree))
            at_zero = 0.5 * 1e-9 / (1 - polynomial(weights, np.array([1e-9]))[0])
            assert max(largest(weights)[0], at_zero) > best * (1 - 1e-4)
    assert largest(np.ones(degree))[0] > best


def test_cycles_with_a_fourth_kind():
    """Where the coarse space is poor, here as cells are stretched, it beats the first kind."""
    f = np.random.default_rng(0).standard_normal(127 * 31)
    cycles = {}
    for kind in ("first", "fourth", "opt_fourth"):
        levels = gallery.poisson((127, 31), smoother=Chebyshev(6, kind=kind))
        cycles[kind] = Solver(levels, "V(1,1)", max_cycles=200).solve(f).require().cycles
    assert cycles["opt_fourth"] <= cycles["fourth"] < cycles["first"]
