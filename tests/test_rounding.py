"""Rounding noise is that of the last digits, in every precision and for every size."""

import numpy as np
import pytest

from mgnet import gallery
from mgnet.rounding import is_rounding, rounding_noise, stands_at_rounding

LEVEL = gallery.poisson(31)[0]


@pytest.mark.parametrize("size", [1.0, 1e-100, 1e100])
@pytest.mark.parametrize("seed", range(3))
def test_the_noise_is_that_of_a_solution_rounded_otherwise(seed, size):
    u = size * np.random.default_rng(seed).standard_normal(31)
    f = LEVEL.matrix @ u
    noise = rounding_noise(LEVEL, np.linalg.norm, u, f)
    moved = np.linalg.norm(f - LEVEL.matrix @ np.nextafter(u, np.inf))
    assert 0.1 < noise / moved < 10.0
    assert is_rounding([1.0, moved], LEVEL, np.linalg.norm, u, f)
    assert not is_rounding([1.0, 1e-6 * np.linalg.norm(f)], LEVEL, np.linalg.norm, u, f)


def test_a_norm_that_still_falls_does_not_stand():
    u = np.ones(31)
    f = LEVEL.matrix @ u
    small = rounding_noise(LEVEL, np.linalg.norm, u, f)
    told = LEVEL, np.linalg.norm, u, f
    assert stands_at_rounding([small] * 4, *told)
    assert not stands_at_rounding([small] * 3, *told)
    assert not stands_at_rounding([9.0 * small, 5.0 * small, 3.0 * small, small], *told)
