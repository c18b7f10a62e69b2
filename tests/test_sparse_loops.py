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


def test_any_entry():
    assert not sparse_loops.any_entry(np.zeros(3)) and not sparse_loops.any_entry(np.zeros(0))
    for value in (1e-320, -1.0, np.nan, np.inf):
        assert sparse_loops.any_entry(np.array([0.0, -0.0, value]))


@pytest.mark.parametrize("dtype", [np.float32, float, complex])
def test_incomplete_lu_of_a_full_matrix_is_lu(dtype):
    n, draw = 12, np.random.default_rng(0)
    dense = (draw.standard_normal((n, n)) + 8 * np.eye(n)).astype(dtype)
    A, diagonal = sp.csr_matrix(dense), np.arange(n) * (n + 1)
    size, place = abs(A.data[diagonal]), np.full(n, -1)
    end = sparse_loops.incomplete_lu(A.indptr, A.indices, A.data, diagonal, size, place, 1e-6)
    assert end == n and (place == -1).all() and (size >= abs(dense.diagonal())).all()
    F = A.toarray()
    near = 1e-4 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose((np.tril(F, -1) + np.eye(n)) @ np.triu(F), dense, atol=near)


def test_incomplete_lu_ends_at_a_pivot_that_is_zero():
    A = sp.csr_matrix([[1.0, 1.0], [1.0, 1.0]])
    size, place = np.ones(2), np.full(2, -1)
    parts = A.indptr, A.indices, A.data, np.array([0, 3])
    assert sparse_loops.incomplete_lu(*parts, size, place, 1e-16) == 1


def test_all_loops_are_told():
    functions = inspect.getmembers(sparse_loops, inspect.isfunction)
    assert sorted(sparse_loops.__all__) == [name for name, _ in functions]
