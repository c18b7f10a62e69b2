"""Splines in depth refine exactly, as SciPy evaluates them."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from mgnet.depth.network.spline_weights import DepthSpline


def knots(spline):
    n = spline.control_points - spline.degree
    return np.arange(-spline.degree, n + spline.degree + 1) / n


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("intervals", [1, 4])
def test_knot_insertion_keeps_the_spline(degree, factor, intervals):
    spline = DepthSpline(intervals + degree, degree)
    fine = spline.refine(factor)
    assert fine.control_points == factor * intervals + degree
    c = np.random.default_rng(0).standard_normal((spline.control_points, 3))
    t = np.linspace(0.0, 1.0, 50, endpoint=False)
    coarse = BSpline(knots(spline), c, degree)(t)
    np.testing.assert_allclose(
        BSpline(knots(fine), spline.insertion(factor) @ c, degree)(t), coarse, atol=1e-14
    )


def test_values_are_those_at_the_left_ends():
    spline = DepthSpline(6, 3)
    expected = BSpline(knots(spline), np.eye(6), 3)(np.arange(7) / 7.0)
    np.testing.assert_allclose(spline.matrix(7), expected, atol=1e-15)
    np.testing.assert_allclose(spline.matrix(7).sum(1), 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("count", "degree"), [(3, 0), (6, 3), (20, 2), (2, 1)])
def test_weights_of_layers_are_the_matrix_times_control_points(count, degree, dtype):
    spline = DepthSpline(count, degree)
    c = torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = spline.at_layers(c, 11)
    wanted = np.einsum("nk,kij->nij", spline.matrix(11), c.double().numpy())
    np.testing.assert_allclose(found.numpy(), wanted, atol=4 * torch.finfo(dtype).eps)
    for kept in (range(0, 4), range(3, 11), range(10, 11), range(11, 11)):
        assert torch.equal(spline.at_layers(c, 11, kept), found[kept.start : kept.stop])


@pytest.mark.parametrize(("count", "degree"), [(3, 3), (1, -1)])
def test_wrong_numbers(count, degree):
    with pytest.raises(ValueError, match="at least degree \\+ 1"):
        DepthSpline(count, degree)
