"""The loops as Python runs them: numba's have the same names and arguments."""

import inspect

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import sparse_loops


def system(n=15):
    draw = np.random.default_rng(n)
    A = sp.csr_matrix(sp.random(n, n, 0.3, random_state=draw) + 4 * sp.eye(n))
    return A, draw.standard_normal(n), draw.standard_normal(n)


@pytest.mark.parametrize("behind", [0, 3, 15])
@pytest.mark.parametrize("name", ["forward", "backward"])
def test_a_sweep_from_zero_is_a_sweep(name, behind):
    """Rows within reach only: with fewer behind, their residual would be taken too early."""
    A, u, f = system()
    A = sp.csr_matrix(sp.triu(sp.tril(A, behind), -behind))
    matrix, inverse = (A.indptr, A.indices, A.data), 1 / A.diagonal()
    zero, r = np.zeros_like(u), np.full_like(u, np.nan)
    getattr(sparse_loops, name)(*matrix, inverse, zero, f, r, behind)
    np.testing.assert_allclose(r, f - A @ zero, atol=1e-13)
    s = np.full_like(r, np.nan)
    getattr(sparse_loops, f"{name}_from_zero")(*matrix, inverse, u, f, s, behind)
    np.testing.assert_allclose(u, zero, atol=1e-14)
    np.testing.assert_allclose(s, r, atol=1e-13)


@pytest.mark.parametrize(("zero", "value"), [(6, 3.0), (0, 0.0), (1, -2.0 / 3.0)])
def test_incomplete_lu(zero, value):
    """Exact where there is no fill; the first zero pivot is told."""
    A = sp.csr_matrix(sp.diags([-1.0, 3.0, 2.0], [-1, 0, 1], shape=(6, 6)))
    A.sort_indices()
    diagonal = np.flatnonzero(np.repeat(np.arange(6), np.diff(A.indptr)) == A.indices)
    A.data[diagonal[zero : zero + 1]] = value  # -2/3 is what elimination adds to row 1
    factors, place = A.copy(), np.full(6, -1)
    matrix = (factors.indptr, factors.indices, factors.data)
    assert sparse_loops.incomplete_lu(*matrix, diagonal, place, 1e-15) == zero
    assert (place == -1).all()
    if zero == 6:
        product = (sp.tril(factors, -1) + sp.eye(6)) @ sp.triu(factors)
        np.testing.assert_allclose(product.toarray(), A.toarray(), atol=1e-14)


def test_any_entry():
    assert not sparse_loops.any_entry(np.zeros(3)) and not sparse_loops.any_entry(np.zeros(0))
    for value in (1e-320, -1.0, np.nan, np.inf):
        assert sparse_loops.any_entry(np.array([0.0, -0.0, value]))


def test_all_loops_are_told():
    functions = inspect.getmembers(sparse_loops, inspect.isfunction)
    assert sorted(sparse_loops.__all__) == [name for name, _ in functions]
