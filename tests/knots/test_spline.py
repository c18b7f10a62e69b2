"""Uniform splines are SciPy's, and continue linearly."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from mgnet.knots.refinement import refinement_matrix
from mgnet.knots.spline import (
    dense_basis,
    local_basis,
    polynomial_coefficients,
    roughness_factor,
)

DEGREES = [1, 2, 3, 4, 5]
DOMAIN = (-1.0, 2.0)


def knots(intervals, degree, domain=DOMAIN):
    a, b = domain
    return a + (b - a) / intervals * np.arange(-degree, intervals + degree + 1)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("intervals", [1, 2, 7])
def test_values_and_slopes_are_those_of_scipy(degree, intervals):
    x = np.linspace(*DOMAIN, 41)[:-1] + 1e-3  # slopes of degree 1 jump at the knots
    x = x[x < DOMAIN[1]]
    values, slopes = dense_basis(torch.from_numpy(x), intervals, degree, DOMAIN)
    for i, unit in enumerate(np.eye(intervals + degree)):
        spline = BSpline(knots(intervals, degree), unit, degree)
        np.testing.assert_allclose(values[:, i], spline(x), atol=1e-14)
        np.testing.assert_allclose(slopes[:, i], spline.derivative()(x), atol=1e-12)


@pytest.mark.parametrize("degree", DEGREES)
def test_outside_the_domain_splines_are_straight_lines(degree):
    u = np.random.default_rng(0).standard_normal(4 + degree)
    spline = BSpline(knots(4, degree), u, degree)
    for end, beyond in ((-1.0, -3.5), (2.0, 7.0)):
        x = torch.tensor([end + np.sign(beyond - end) * 1e-300, beyond], dtype=torch.float64)
        values, slopes = dense_basis(x, 4, degree, DOMAIN)
        side = np.clip(end, -1.0 + 1e-13, 2.0 - 1e-13)
        line = spline(end) + spline.derivative()(side) * (beyond - end)
        assert float(values[1] @ u) == pytest.approx(line, rel=1e-9)
        assert float(slopes[1] @ u) == pytest.approx(float(spline.derivative()(side)), rel=1e-9)


def test_autograd_gives_the_slopes():
    x = torch.linspace(-2.0, 3.0, 23, dtype=torch.float64, requires_grad=True)
    _, values, slopes = local_basis(x, 3, 3, DOMAIN)
    weights = torch.arange(4.0, dtype=torch.float64)
    (derivative,) = torch.autograd.grad((values @ weights).sum(), x)
    torch.testing.assert_close(derivative, slopes @ weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("degree", DEGREES)
def test_polynomials_are_exact_on_any_number_of_intervals(degree):
    powers = np.random.default_rng(3).standard_normal(degree + 1)
    x = np.linspace(*DOMAIN, 19)
    for intervals in (1, 4, 9):
        u = polynomial_coefficients(powers, intervals, degree, DOMAIN)
        values, _ = dense_basis(torch.from_numpy(x), intervals, degree, DOMAIN)
        expected = np.polynomial.polynomial.polyval(x, powers)
        np.testing.assert_allclose(values.numpy() @ u, expected, atol=1e-12)


@pytest.mark.parametrize("degree", [2, 3, 4, 5])
def test_roughness_is_the_integral_of_the_squared_second_derivative(degree):
    u = np.random.default_rng(4).standard_normal(5 + degree)
    second = BSpline(knots(5, degree, (-1.0, 1.0)), u, degree).derivative(2)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(-1.0, 1.0, 6)
    total = sum(
        0.5 * (b - a) * weights @ second(0.5 * (a + b) + 0.5 * (b - a) * nodes) ** 2
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    )
    assert np.sum((roughness_factor(5, degree) @ u) ** 2) == pytest.approx(total, rel=1e-10)
    fine = refinement_matrix(5, degree) @ u
    assert np.sum((roughness_factor(10, degree) @ fine) ** 2) == pytest.approx(total, rel=1e-10)


def test_roughness_of_broken_lines_is_not_penalised():
    assert not roughness_factor(4, 1).any()
