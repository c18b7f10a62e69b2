"""Refinement keeps every spline, and both ways back undo it; SciPy's splines are the judge."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from mgnet.knots.refinement import (
    injection_matrix,
    knot_insertion,
    mass_matrix,
    projection_matrix,
    refinement_matrix,
    uniform_knots,
)
from mgnet.knots.spline import dense_basis

DEGREES = [1, 2, 3, 4, 5]
DOMAIN = (-1.0, 2.0)
X = np.linspace(*DOMAIN, 41)


def uneven(generator, count, degree):
    """Knots with spacings of 1 to 30 on the domain, and others beyond it."""
    inner = np.cumsum(np.r_[0.0, generator.uniform(1.0, 30.0, count)])
    inner = DOMAIN[0] + (DOMAIN[1] - DOMAIN[0]) * inner / inner[-1]
    return surrounded(generator, inner, degree)


def surrounded(generator, inner, degree):
    before, after = (np.cumsum(generator.uniform(0.1, 1.0, degree)) for _ in range(2))
    return np.r_[inner[0] - before[::-1], inner, inner[-1] + after]


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("factor", [2, 3, 8])
def test_refinement_changes_no_value(degree, factor):
    coarse, fine = (uniform_knots(n, degree, DOMAIN) for n in (3, 3 * factor))
    u = np.random.default_rng(1).standard_normal(3 + degree)
    P = refinement_matrix(3, degree, factor)
    np.testing.assert_allclose(
        BSpline(fine, P @ u, degree)(X), BSpline(coarse, u, degree)(X), rtol=0, atol=1e-14
    )
    assert P.data.min() > 0.0
    np.testing.assert_allclose(P.sum(1), 1.0, rtol=1e-15)
    inserted = knot_insertion(coarse, fine, degree)
    np.testing.assert_allclose(inserted.toarray(), P.toarray(), rtol=0, atol=2e-15)
    # continued linearly beyond the domain, still nothing changes
    x = torch.linspace(-3.0, 4.0, 71, dtype=torch.float64)
    before, after = (dense_basis(x, n, degree, DOMAIN)[0].numpy() for n in (3, 3 * factor))
    np.testing.assert_allclose(after @ (P @ u), before @ u, rtol=0, atol=1e-12)


def test_the_printed_factor_halves_the_function():
    """Southworth et al. print 2^(-r) C(r, s); rows of the right matrix sum to 1."""
    P = refinement_matrix(4, 3)
    assert set(P.data) == {1 / 8, 4 / 8, 6 / 8}
    u = np.random.default_rng(2).standard_normal(7)
    printed = BSpline(uniform_knots(8, 3, DOMAIN), 0.5 * (P @ u), 3)(X)
    np.testing.assert_allclose(
        printed, 0.5 * BSpline(uniform_knots(4, 3, DOMAIN), u, 3)(X), atol=1e-14
    )


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("seed", range(4))
def test_any_knots_may_be_inserted_and_those_outside_may_move(degree, seed):
    generator = np.random.default_rng(seed)
    coarse = uneven(generator, 1 + 3 * seed, degree)
    new = generator.uniform(*DOMAIN, 1 + 5 * seed)
    inner = np.sort(np.r_[coarse[degree:-degree], new])
    fine = surrounded(generator, inner, degree)
    P = knot_insertion(coarse, fine, degree)
    u = generator.standard_normal(P.shape[1])
    expected = BSpline(coarse, u, degree)(X)
    np.testing.assert_allclose(BSpline(fine, P @ u, degree)(X), expected, rtol=0, atol=1e-12)
    assert np.diff(P.indptr).max() <= degree + 1


@pytest.mark.parametrize("degree", DEGREES)
def test_one_knot_goes_in_as_in_scipy(degree):
    """Boehm's rule, with knots outside that stay: not negative, and SciPy's `insert_knot`."""
    generator = np.random.default_rng(5)
    coarse = uneven(generator, 6, degree)
    u = generator.standard_normal(6 + degree)
    for knot in generator.uniform(*DOMAIN, 4):
        theirs = BSpline(coarse, u, degree).insert_knot(knot)
        P = knot_insertion(coarse, theirs.t, degree)
        np.testing.assert_allclose(P @ u, theirs.c[: P.shape[0]], rtol=0, atol=1e-12)
        assert P.data.min() > 0.0
        coarse, u = theirs.t, P @ u


def test_knots_that_are_not_nested_are_refused():
    knots = uniform_knots(4, 2, DOMAIN)
    with pytest.raises(ValueError, match="coarse knot 1.25, which is not a fine one"):
        knot_insertion(knots, uniform_knots(6, 2, DOMAIN), 2)
    with pytest.raises(ValueError, match=r"\[-1, 2\] on the coarse level and \[-1, 3\]"):
        knot_insertion(knots, uniform_knots(8, 2, (-1.0, 3.0)), 2)
    with pytest.raises(ValueError, match="got 0.5 before -0.25; knots must increase"):
        knot_insertion(knots, knots[[0, 1, 2, 4, 3, 5, 6, 7, 8]], 2)
    with pytest.raises(ValueError, match=r"got shape \(5,\) for degree 2"):
        mass_matrix(knots[:5], 2)


@pytest.mark.parametrize("arguments", [(0, 3), (2, 0), (2, 3, 1)])
def test_refinement_refuses(arguments):
    with pytest.raises(ValueError, match="at least one interval, degree 1 and factor 2"):
        refinement_matrix(*arguments)


@pytest.mark.parametrize("degree", DEGREES)
def test_the_mass_matrix_holds_the_integrals_of_products(degree):
    knots = uneven(np.random.default_rng(6), 5, degree)
    splines = [BSpline(knots, unit, degree) for unit in np.eye(5 + degree)]
    nodes, weights = np.polynomial.legendre.leggauss(9)
    inner = knots[degree:-degree]
    middle, half = 0.5 * (inner[1:] + inner[:-1]), 0.5 * np.diff(inner)
    x = middle[:, None] + half[:, None] * nodes
    values = np.array([spline(x) for spline in splines])
    expected = np.einsum("ien,en,jen->ij", values, half[:, None] * weights, values)
    np.testing.assert_allclose(mass_matrix(knots, degree).toarray(), expected, atol=1e-14)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("factor", [2, 3])
def test_both_ways_down_undo_refinement_and_the_projection_is_the_closest(degree, factor):
    P = refinement_matrix(4, degree, factor)
    knots = uniform_knots(4 * factor, degree, DOMAIN)
    mass = mass_matrix(knots, degree)
    for down in (projection_matrix(P, mass), injection_matrix(P)):
        np.testing.assert_allclose(down @ P, np.eye(4 + degree), atol=1e-10)
    # the error of the closest function is orthogonal to all coarse functions
    u = np.random.default_rng(7).standard_normal(4 * factor + degree)
    error = BSpline(knots, u - P @ (projection_matrix(P, mass) @ u), degree)
    nodes, weights = np.polynomial.legendre.leggauss(9)
    edges = np.linspace(*DOMAIN, 4 * factor + 1)
    x = 0.5 * (edges[1:] + edges[:-1])[:, None] + 0.5 * np.diff(edges)[:, None] * nodes
    for unit in np.eye(4 + degree):
        coarse = BSpline(uniform_knots(4, degree, DOMAIN), unit, degree)
        assert abs((error(x) * coarse(x)) @ weights).max() > 1e-6
        assert abs(((error(x) * coarse(x)) @ weights).sum()) < 1e-10
