"""Interpolation is exact on polynomials of its degree, and keeps the coarse points."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgnet import interpolation_matrix

seeds = st.integers(0, 2**32 - 1)


@st.composite
def grids(draw):
    """Draw arguments of `interpolation_matrix`, all valid."""
    boundary = draw(st.sampled_from(["zero", "open"]))
    degree = draw(st.integers(1, 4))
    least = max(1, degree + 1 - (2 if boundary == "zero" else 0))
    coarse = draw(st.integers(least, least + 6))
    return coarse, draw(st.integers(2, 5)), degree, boundary


@given(grids(), seeds)
def test_interpolation_is_exact_on_polynomials(grid, seed):
    coarse, factor, degree, boundary = grid
    P = interpolation_matrix(*grid)
    generator = np.random.default_rng(seed)
    known = 1 if boundary == "zero" else 0
    intervals = coarse - 1 + 2 * known
    x = np.arange(known, intervals + 1 - known) / max(intervals, 1)
    y = np.arange(known, factor * intervals + 1 - known) / max(factor * intervals, 1)
    # With known ends, polynomials that vanish there: x (1 - x) q(x); a line that vanishes is zero.
    free = degree - 2 * known
    q = np.polynomial.Polynomial(generator.standard_normal(free + 1) if free >= 0 else [0.0])
    p = q * np.polynomial.Polynomial([0, 1, -1]) if known else q
    assert P.shape == (len(y), coarse)
    np.testing.assert_allclose(P @ p(x), p(y), atol=1e-12)


@given(st.integers(1, 8), st.integers(2, 5))
def test_linear_interpolation_between_known_zeros(coarse, factor):
    # Against numpy.interp, a hat function at a time: the ends count as zeros.
    P = interpolation_matrix(coarse, factor).toarray()
    x = np.arange(coarse + 2.0)
    y = np.arange(1, factor * (coarse + 1)) / factor
    hats = [np.interp(y, x, np.eye(coarse + 2)[1 + j]) for j in range(coarse)]
    np.testing.assert_allclose(P, np.transpose(hats), atol=1e-14)


@given(grids())
def test_rows_sum_to_one_on_an_open_grid(grid):
    coarse, factor, degree, _ = grid
    P = interpolation_matrix(max(coarse, degree + 1), factor, degree, "open")
    np.testing.assert_allclose(P.sum(axis=1), 1.0, atol=1e-13)


@given(grids())
def test_the_nearest_points_are_used(grid):
    coarse, factor, degree, boundary = grid
    P = interpolation_matrix(*grid).toarray()
    if degree % 2:  # as many points on the left as on the right
        np.testing.assert_allclose(P, P[::-1, ::-1], atol=1e-13)
    first = 1 if boundary == "zero" else 0
    x, y = np.arange(coarse) + first, (np.arange(len(P)) + first) / factor
    inside = (y >= degree) & (y <= coarse - 1 + 2 * first - degree)
    assert (abs(y[:, None] - x)[(P != 0) & inside[:, None]] <= (degree + 1) / 2 + 0.5).all()


@given(grids())
def test_coarse_points_are_kept(grid):
    coarse, factor, _, boundary = grid
    first = factor - 1 if boundary == "zero" else 0
    P = interpolation_matrix(*grid).toarray()
    np.testing.assert_array_equal(P[first::factor][:coarse], np.eye(coarse))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((3, 2, 1, "periodic"), "boundary 'periodic'; it must be 'zero' or 'open'"),
        ((0,), "0 coarse points"),
        ((3, 1), "factor 1"),
        ((3, 2, 0), "degree 0"),
        ((1, 2, 3), "1 coarse points, factor 2, degree 3; .* degree [+] 1 points"),
        ((3, 2, 3, "open"), "3 coarse points"),
    ],
)
def test_interpolation_that_does_not_exist_is_refused(arguments, why):
    with pytest.raises(ValueError, match=f"^interpolation_matrix got .*{why}"):
        interpolation_matrix(*arguments)
