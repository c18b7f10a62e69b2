"""Law: products of stencils are those of their matrices."""

import numpy as np
import pytest

from mgnet.grid_coarsening import coarse_axes, galerkin, strengths
from mgnet.grid_interpolation import interpolation, linear_weights, operator_weights
from mgnet.grid_stencils import boundary_kinds, diffusion_stencils, stencil_arrays, stencil_matrix
from tests.grid_draws import drawn_grid, drawn_stencil, periodic


@pytest.mark.parametrize("seed", range(60))
def test_galerkin_products_are_those_of_scipy(seed):
    generator = np.random.default_rng(seed)
    shape, kinds = drawn_grid(generator)
    stencil = drawn_stencil(generator, shape, generator.choice([np.float64, np.complex128]))
    stencils = stencil_arrays(stencil, shape, kinds)
    A = stencil_matrix(stencils, shape, periodic(kinds))
    halved = tuple(k for k in range(len(shape)) if generator.random() < 0.8)
    axes = coarse_axes(stencils, shape, kinds, halved)
    coarse = tuple(axis.coarse for axis in axes)
    linear, own = linear_weights(axes), operator_weights(stencils, axes)
    for prolong, restrict in ((linear, linear), (own, own), (linear, own)):
        product = galerkin(stencils, axes, prolong, restrict)
        P, Q = interpolation(prolong, axes), interpolation(restrict, axes)
        found = stencil_matrix(product, coarse, periodic(kinds))
        np.testing.assert_allclose(found.toarray(), (Q.T @ A @ P).toarray(), atol=1e-11)


def test_strong_axes_are_halved():
    kinds = boundary_kinds("neumann", 3)
    stencils = diffusion_stencils((1.0, 1e-3, 0.6), (8, 8, 8), kinds)
    assert [axis.halved for axis in coarse_axes(stencils, (8, 8, 8), kinds, None)] == [
        True,
        False,
        True,
    ]
    np.testing.assert_allclose(strengths(stencils, 3), [1.0, 1e-3, 0.6], rtol=0.3)


def test_an_axis_of_one_point_leaves_the_others():
    kinds = boundary_kinds("neumann", 2)
    stencils = diffusion_stencils((1.0, 1e-3), (1, 8), kinds)
    assert [axis.halved for axis in coarse_axes(stencils, (1, 8), kinds, None)] == [False, True]
    assert not any(axis.halved for axis in coarse_axes(stencils, (1, 8), kinds, (0,)))


def test_points_without_neighbors_have_no_strong_axis():
    stencils = {(0, 0): np.ones((3, 3))}
    np.testing.assert_array_equal(strengths(stencils, 2), [1.0, 1.0])
