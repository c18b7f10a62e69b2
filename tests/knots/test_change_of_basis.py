"""A is what SciPy's splines say; its products and solves are exact; what the paper misprints."""

from math import comb, factorial

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.interpolate import BSpline

from mgnet.knots.change_of_basis import (
    change_of_basis,
    channel_gradient,
    from_channels,
    spline_gradient,
    to_channels,
)
from mgnet.knots.refinement import refinement_matrix, uniform_knots

DEGREES = [1, 2, 3, 4, 5]
EPS = np.finfo(float).eps


def knot_vector(kind, degree, intervals=6):
    knots = uniform_knots(intervals, degree, (-1.0, 2.0))
    if kind == "uniform":
        return knots
    return knots + 0.9 / intervals * np.random.default_rng(degree).uniform(-1, 1, len(knots))


def splines(knots, degree, x):
    """All splines at x, by SciPy; shape (splines, points)."""
    return BSpline(knots, np.eye(len(knots) - degree - 1), degree)(x).T


def channels(knots, degree, x):
    return np.maximum(0.0, x - knots[: len(knots) - degree - 1, None]) ** degree


def inside(knots, degree, points=83):
    a, b = knots[degree], knots[-degree - 1]
    return a + (b - a) * np.linspace(0.0, 1.0, points, endpoint=False)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("kind", ["uniform", "scattered"])
def test_splines_are_a_times_channels(kind, degree):
    knots = knot_vector(kind, degree)
    x = inside(knots, degree)
    A = change_of_basis(knots, degree)
    psi = channels(knots, degree, x)
    error = np.abs(splines(knots, degree, x) - A @ psi)
    assert np.all(error <= 8 * EPS * (abs(A) @ psi + 1.0))  # what rounding of A psi allows
    offsets = A.tocoo().col - A.tocoo().row
    assert offsets.min() == 0 and offsets.max() == degree + 1 and sp.issparse(A)


@pytest.mark.parametrize("degree", [0, *DEGREES])
@pytest.mark.parametrize("kind", ["uniform", "scattered"])
def test_all_forms_agree(kind, degree):
    knots = knot_vector(kind, degree, 20)
    A = change_of_basis(knots, degree).toarray()
    for form in ("explicit", "toeplitz") if kind == "uniform" else ("explicit",):
        other = change_of_basis(knots, degree, form).toarray()
        np.testing.assert_allclose(other, A, rtol=2e-14, atol=0)
    A = change_of_basis(np.arange(30.0), degree).toarray()  # of integers little is rounded
    for form in ("explicit", "toeplitz"):
        other = change_of_basis(np.arange(30.0), degree, form).toarray()
        np.testing.assert_allclose(other, A, rtol=2 * EPS, atol=0)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("kind", ["uniform", "scattered"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_products_and_solves_are_those_of_the_dense_matrix(kind, degree, axis):
    knots = knot_vector(kind, degree)
    A = change_of_basis(knots, degree, "explicit").toarray()
    shape = [2, 3, 2]
    shape[axis] = len(A)
    x = np.random.default_rng(1).standard_normal(shape)

    def times(matrix, x):
        return np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)

    for dtype, digits in ((torch.float64, 1e-14), (torch.float32, 5e-6)):
        given = torch.tensor(x, dtype=dtype)
        for product, matrix in ((to_channels, A.T), (spline_gradient, A)):
            error = product(given, knots, degree, axis=axis).numpy() - times(matrix, x)
            assert np.all(np.abs(error) <= digits * times(abs(matrix), abs(x)))
        for solve, matrix in ((from_channels, A.T), (channel_gradient, A)):
            y = solve(given, knots, degree, axis=axis).double().numpy()
            error = times(matrix, y) - x
            assert np.all(np.abs(error) <= digits * times(abs(matrix), abs(y)))


@pytest.mark.parametrize("degree", [1, 3])
def test_all_four_are_differentiable_also_in_the_knots(degree):
    knots = torch.tensor(knot_vector("scattered", degree, 3), requires_grad=True)
    x = torch.rand(3 + degree, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for function in (to_channels, from_channels, spline_gradient, channel_gradient):

        def applied(x, knots, function=function):
            return function(x, knots, degree)

        assert torch.autograd.gradcheck(applied, (x.requires_grad_(), knots))


@pytest.mark.parametrize(
    ("knots", "degree", "form", "words"),
    [
        ([0.0, 1.0, 1.0, 2.0], 1, "recursion", "strictly increasing"),
        ([0.0, 1.0, 2.0], 1, "recursion", "vector of n \\+ 3"),
        (np.arange(20.0), 6, "recursion", "degree 6"),
        ([0.0, 1.0, 2.0, 4.0], 1, "toeplitz", "distances from 1 to 2"),
        ([0.0, 1.0, 2.0, 3.0], 1, "dense", "form 'dense'"),
    ],
)
def test_refusals(knots, degree, form, words):
    with pytest.raises(ValueError, match=words):
        change_of_basis(knots, degree, form)


def test_refusals_of_products():
    with pytest.raises(ValueError, match="axis 0 must have length 2"):
        to_channels(torch.ones(3), [0.0, 1.0, 2.0, 3.0], 1)
    with pytest.raises(ValueError, match="do not increase"):
        from_channels(torch.ones(2), [0.0, 2.0, 1.0, 3.0], 1)


# What Southworth et al. (arXiv 2603.04827) misprint: the printed formula fails, the right one holds


@pytest.mark.parametrize("degree", DEGREES)
def test_misprint_the_two_scale_factor_is_2_to_the_1_minus_r(degree):
    order, n = degree + 1, 5
    coarse, fine = (uniform_knots(m, degree, (0.0, 1.0)) for m in (n, 2 * n))
    u = np.random.default_rng(0).standard_normal(n + degree)
    x = inside(coarse, degree)
    wanted = splines(coarse, degree, x).T @ u
    scale = 2.0 ** np.array([1 - order, -order])  # right, printed
    binomials = np.zeros((2 * n + degree, n + degree))
    for i in range(n + degree):
        for s in range(order + 1):
            if 0 <= 2 * i + s - degree < len(binomials):
                binomials[2 * i + s - degree, i] = comb(order, s)
    right, printed = (splines(fine, degree, x).T @ (c * binomials) @ u for c in scale)
    np.testing.assert_allclose(right, wanted, rtol=0, atol=1e-14)
    np.testing.assert_allclose(printed, 0.5 * wanted, rtol=0, atol=1e-14)
    P = sp.csr_matrix(refinement_matrix(n, degree)).toarray()
    np.testing.assert_array_equal(P, scale[0] * binomials)


@pytest.mark.parametrize("degree", DEGREES)
def test_misprint_matching_knots_needs_identical_exterior_knots(degree):
    """P = A_T I A_T'^-1, with I the 0/1 matching of the knots: the printed prolongation."""
    n = 6
    coarse, fine = (uniform_knots(m, degree, (0.0, 1.0)) for m in (n, 2 * n))
    inner = fine[degree : -degree or None]
    shared = np.concatenate([coarse[:degree], inner, coarse[-degree:]])
    u = np.random.default_rng(0).standard_normal(n + degree)
    x = inside(coarse, degree)
    wanted = splines(coarse, degree, x).T @ u

    def error(knots):
        same = np.isclose(coarse[: n + degree, None], knots[None, : 2 * n + degree])
        w = same.T @ (change_of_basis(coarse, degree).T @ u)
        prolonged = from_channels(torch.from_numpy(w), knots, degree).numpy()
        return np.abs(splines(knots, degree, x).T @ prolonged - wanted).max()

    assert error(shared) < 1e-12 and error(fine) > 0.5
    P = sp.csr_matrix(refinement_matrix(n, degree))
    assert np.abs(splines(fine, degree, x).T @ (P @ u) - wanted).max() < 1e-14


@pytest.mark.parametrize("degree", DEGREES)
def test_misprint_the_space_of_fewer_knots_lies_in_that_of_more(degree):
    coarse, fine = (uniform_knots(m, degree, (0.0, 1.0)) for m in (4, 8))
    x = inside(coarse, degree)
    small, large = splines(coarse, degree, x).T, splines(fine, degree, x).T

    def distance(basis, functions):
        fitted = basis @ np.linalg.lstsq(basis, functions, rcond=None)[0]
        return np.abs(fitted - functions).max()

    assert distance(large, small) < 1e-13
    assert distance(small, large) > 0.05


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_misprint_the_metric_decays_like_the_power_minus_2r_of_the_frequency(degree):
    A = change_of_basis(uniform_knots(200 - degree, degree, (0.0, 1.0)), degree).toarray()
    weight = 1.0 / np.linalg.svd(A, compute_uv=False)[::-1] ** 2  # of (A A^T)^-1, smooth first
    k = np.array([10, 40])
    power = np.diff(np.log(weight[k - 1]))[0] / np.diff(np.log(k))[0]
    assert power == pytest.approx(-2 * (degree + 1), rel=0.05)  # printed: -r


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_misprint_the_bound_of_the_tangent_kernels_is_16(degree):
    """norm(A_h) <= 2^r / (r-1)! <= 4 with A_h = h^(r-1) A, so the kernels differ by at most 16."""
    n, order = 100, degree + 1
    h = 1.0 / n
    A = h**degree * change_of_basis(uniform_knots(n, degree, (0.0, 1.0)), degree).toarray()
    left, size, _ = np.linalg.svd(A)
    bound = 2.0**order / factorial(degree)
    assert 0.99 * bound < size[0] <= bound <= 4.0
    # A network that sees the stiffest direction only: its two tangent kernels, spline over ReLU.
    J = left[:, :1].T
    ratio = (J @ A @ A.T @ J.T).item() / (J @ J.T).item()
    assert (4.0 if degree < 4 else 0.0) < ratio <= 16.0  # printed bound: 4
