"""Laws: products of Jacobians with vectors grow as those of matrices; a verdict is a sentence."""

import math

import numpy as np
import pytest

from mgnet.depth.mgrit.lyapunov_exponent import HARMLESS, Lyapunov, exponents_along


class Linear:
    """Another matrix for each layer and sample."""

    def __init__(self, matrices):
        self.matrices = matrices

    def advance(self, level, which, states):
        return np.einsum("kbij,kbj->kbi", self.matrices[which], states)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_each_sample_has_its_own_exponent(seed, size):
    matrices = np.random.default_rng(seed).standard_normal((30, 3, 4, 4))
    points = np.full((31, 3, 4), size)
    points[0] = 0.0
    found = exponents_along(Linear(matrices), points, samples=True, directions=8)
    for sample in range(3):
        exact = math.log(np.linalg.norm(np.linalg.multi_dot(matrices[::-1, sample]), 2)) / 30
        assert exact - math.log(4) / 30 < found[sample] < exact + 1e-6
    whole = exponents_along(Linear(matrices), points, samples=False, directions=8)
    assert len(whole) == 1 and whole[0] < max(found) + 1e-6


@pytest.mark.parametrize(
    ("exponent", "layers", "words", "converges"),
    [
        (-0.1, 10**6, "errors shrink along the layers", True),
        (-math.inf, 4, "exponent -inf", True),
        (0.01, 100, "errors grow 2.7 times over all 100: little enough", True),
        (HARMLESS / 100 - 1e-6, 100, "little enough", True),
        (HARMLESS / 100 + 1e-6, 100, "in shorter parts of about 99 layers", False),
        (100.0, 100, "1e4342 times over all 100: expect no parallel method", False),
        (math.nan, 4, "not finite along the layers", False),
    ],
)
def test_a_verdict(exponent, layers, words, converges):
    found = Lyapunov((exponent,), layers, "layer")
    assert words in found.verdict and str(found) == found.verdict
    assert found.converges == converges
    assert math.isnan(found.per_time)
    assert Lyapunov((1.0, 3.0), 10, time=5.0).per_time == 4.0
