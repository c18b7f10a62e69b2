"""Many small inverses at once are each one's dense inverse, whatever its units."""

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet.local_inverses import local_inverses
from tests.smoother_laws import DTYPES, drawn, tolerance


def concatenated(sets):
    return np.concatenate(sets), np.cumsum([0, *map(len, sets)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, np.asarray])
def test_overlapping_sets_of_several_sizes(dtype, form):
    A, _, _ = drawn(60, dtype)
    draw = np.random.default_rng(0)
    sets = [draw.permutation(60)[:size] for size in (3, 1, 40, 3, 7, 33, 60, 2)]
    indices, offsets = concatenated(sets)
    dense = A.toarray()
    inverses = local_inverses(
        form(dense if form is np.asarray else A), indices, offsets, np.dtype(dtype), "x"
    )
    r = draw.standard_normal(len(indices)).astype(dtype)
    result = inverses.apply(r)
    assert result.dtype == dtype
    for k, chosen in enumerate(sets):
        part = slice(offsets[k], offsets[k + 1])
        expected = np.linalg.solve(dense[np.ix_(chosen, chosen)], r[part])
        np.testing.assert_allclose(result[part], expected, rtol=tolerance(dtype), atol=1e-3)


def test_units_do_not_look_singular():
    scale = np.array([1e-150, 1.0, 1e100, 1e-9])
    A = (np.ones((4, 4)) + np.diag([1.0, 2.0, 3.0, 4.0])) * scale[:, None] / scale
    inverses = local_inverses(A, np.arange(4), np.array([0, 4]), np.dtype(float), "x")
    f = A @ scale
    np.testing.assert_allclose(inverses.apply(f), scale, rtol=1e-12)


@pytest.mark.parametrize("noise", [1e-12, 1e-17, 1e-30, 1e-300])
def test_tiny_entries_are_no_units(noise):
    A = np.diag(np.arange(1.0, 7.0)) + np.diag(np.ones(5), 1)
    A[3, 0], A[5, 2] = noise, -noise
    inverses = local_inverses(A, np.arange(6), np.array([0, 6]), np.dtype(float), "x")
    f = np.arange(6.0)
    np.testing.assert_allclose(inverses.apply(f), np.linalg.solve(A, f), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [2, 3, 8, 40])
def test_singular_ones_in_any_units(size):
    draw = np.random.default_rng(size)
    A = draw.standard_normal((size, size))
    A[0] = A[1:].sum(axis=0)
    A *= 10.0 ** draw.integers(-9, 10, (size, 1)) * 10.0 ** draw.integers(-9, 10, size)
    with pytest.raises(ValueError, match="is singular to working precision"):
        local_inverses(A, np.arange(size), np.array([0, size]), np.dtype(float), "x")


def test_entries_in_several_parts_are_added():
    A = sp.csr_matrix(([1.0, 1.0, 4.0], [0, 0, 1], [0, 2, 3]), (2, 2))
    inverses = local_inverses(A, np.arange(2), np.array([0, 2]), np.dtype(float), "x")
    np.testing.assert_array_equal(inverses.apply(np.ones(2)), [0.5, 0.25])


@pytest.mark.parametrize(
    "block",
    [np.zeros((2, 2)), np.ones((2, 2)), [[1.0, 1.0], [1.0, 1.0 + 1e-16]], [[np.nan, 0], [0, 1]]],
)
def test_singular_ones(block):
    A = np.eye(6)
    A[3:5, 3:5] = block
    sets = [np.array([0, 5]), np.array([1, 2]), np.array([4, 3])]
    with pytest.raises(ValueError, match="^x: the matrix of unknowns 4, 3 is singular"):
        local_inverses(A, *concatenated(sets), np.dtype(float), "x")


def test_what_the_machine_cannot_hold():
    n = 3_000_000
    with pytest.raises(ValueError, match="x got index sets of 3000000 unknowns .* GiB of memory"):
        local_inverses(sp.eye(n), np.arange(n), np.array([0, n]), np.dtype(float), "x")
