"""Compiled loops give what the same loops give in Python, and what triangular solves give."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg as la
import scipy.sparse as sp

from mgnet import kernels, sparse_loops


def system(n=30, seed=0, dtype=float, index=np.int32):
    generator = np.random.default_rng(seed)
    A = sp.random(n, n, 0.2, random_state=generator).tocsr() + sp.diags(generator.uniform(3, 4, n))
    A = sp.csr_matrix(A, dtype=dtype)
    A.indices, A.indptr = A.indices.astype(index), A.indptr.astype(index)
    return A, generator.standard_normal(n).astype(dtype), generator.standard_normal(n).astype(dtype)


class Doubled(sp.csr_matrix):
    """Its product is not that of its entries."""

    def __matmul__(self, u):
        return 2.0 * super().__matmul__(u)


def by_triangles(A, u, f, backward):
    A = A.toarray()
    triangle = np.triu(A) if backward else np.tril(A)
    return u + la.solve_triangular(triangle, f - A @ u, lower=not backward)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_gauss_seidel_is_a_triangular_solve(backward, index, dtype, tolerance):
    A, u, f = system(dtype=dtype, index=index)
    v = u.copy()
    result = kernels.gauss_seidel(A, 1 / A.diagonal(), v, f, backward)
    assert result is None and v.dtype == dtype
    np.testing.assert_allclose(v, by_triangles(A, u, f, backward), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("numba", [True, False])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_residual_jacobi_and_chebyshev_are_one_pass_of_products(monkeypatch, numba, index):
    monkeypatch.setattr(kernels, "available", numba and kernels.available)
    monkeypatch.setattr(kernels, "_compiled", {})
    A, u, f = system(index=index)
    scale = np.linspace(1.0, 2.0, len(u))
    np.testing.assert_allclose(kernels.residual(A, u, f), f - A @ u, atol=1e-13)
    np.testing.assert_allclose(kernels.jacobi(A, scale, u, f), u + scale * (f - A @ u), atol=1e-13)
    d = np.linspace(-1.0, 1.0, len(u))
    wanted = 0.25 * d + 1.5 * scale * (f - A @ u)
    np.testing.assert_allclose(kernels.chebyshev(A, scale, u, f, d, (0.25, 1.5)), u + wanted)
    np.testing.assert_allclose(d, wanted)
    base, r = np.linspace(3.0, 5.0, len(u)), np.empty_like(u)
    wanted = 0.5 * d + scale * (f - A @ u)
    by = d, (0.5, 1.0), r, kernels.reach(A)
    end = kernels.chebyshev(A, scale, u, f, *by, base=base, weight=2.5)
    np.testing.assert_allclose(end, base + 2.5 * wanted)
    np.testing.assert_allclose(d, wanted)
    np.testing.assert_allclose(r, f - A @ end, atol=1e-12)


def test_the_loops_take_flat_arrays_of_one_precision_only(monkeypatch):
    monkeypatch.setattr(kernels, "available", True)
    A, u, f = system()
    assert kernels.takes(A, u, f)
    for other in (u[:, None], u.astype(np.float32), np.repeat(u, 2)[::2], None):
        assert not kernels.takes(A, u, other)
    for matrix in (A.tocsc(), A.toarray(), A.astype(np.float32), A[:-1], A[:, :-1], Doubled(A)):
        assert not kernels.takes(matrix, u, f)
    for other in (u[:-1], np.append(u, 0.0)):
        assert not kernels.takes(A, other, f) and not kernels.takes(A, u, other)


@pytest.mark.parametrize("backward", [False, True])
def test_the_loops_without_numba(monkeypatch, backward):
    monkeypatch.setattr(kernels, "available", False)
    monkeypatch.setattr(kernels, "_compiled", {})
    A, u, f = system()
    v = u.copy()
    kernels.gauss_seidel(A, 1 / A.diagonal(), v, f, backward)
    assert list(kernels._compiled.values()) == [
        sparse_loops.backward if backward else sparse_loops.forward
    ]
    np.testing.assert_allclose(v, by_triangles(A, u, f, backward), rtol=1e-13, atol=1e-13)


def test_the_order_of_the_columns_in_a_row_does_not_matter():
    A, u, f = system()
    order = np.concatenate(
        [np.arange(*row)[::-1] for row in zip(A.indptr[:-1], A.indptr[1:], strict=True)]
    )
    B = sp.csr_matrix((A.data[order], A.indices[order], A.indptr), A.shape)
    assert not B.has_sorted_indices
    v, w = u.copy(), u.copy()
    kernels.gauss_seidel(A, 1 / A.diagonal(), v, f, False)
    kernels.gauss_seidel(B, 1 / B.diagonal(), w, f, False)
    np.testing.assert_allclose(v, w, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("numba", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128, np.int64, ">f8"])
def test_total(monkeypatch, numba, dtype):
    monkeypatch.setattr(kernels, "available", numba and kernels.available)
    monkeypatch.setattr(kernels, "_compiled", {})
    A, u, f = system()
    kernels.residual(A, u, f)  # numba is there
    values = np.random.default_rng(1).integers(-9, 9, (40, 6)).astype(dtype)
    for state in (values, values[:, 0], values[1], values[::-3, 2], values[0, :0]):
        assert kernels.total(state) == state.sum()


@pytest.mark.parametrize("numba", [True, False])
def test_a_total_is_finite_where_all_entries_are(monkeypatch, numba):
    monkeypatch.setattr(kernels, "available", numba and kernels.available)
    kernels.residual(*system())
    draw = np.random.default_rng(2)
    for size in (1, 3, 8, 67):
        u = draw.standard_normal(size)
        assert np.isfinite(kernels.total(u))
        for bad in (np.nan, np.inf, -np.inf):
            v = u.copy()
            v[draw.integers(size)] = bad
            assert not np.isfinite(kernels.total(v))
            v[draw.integers(size)] = -bad
            with np.errstate(invalid="ignore"):
                assert not np.isfinite(kernels.total(v))


def test_a_solve_without_loops_does_not_load_numba():
    script = """
import sys
import numpy as np
from mgnet import Direct, Hierarchy, Level, Solver
assert Solver(Hierarchy([Level(2 * np.eye(3), Direct())])).solve(np.ones(3)).reason.converged
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


PRODUCTS = {
    "flat": lambda A, u: (A, u),
    "float32": lambda A, u: (A.astype(np.float32), u.astype(np.float32)),
    "complex": lambda A, u: (1j * A, u + 1j * u[::-1]),
    "mixed": lambda A, u: (A.astype(np.float32), u),
    "real times complex": lambda A, u: (A, 1j * u),
    "complex times real": lambda A, u: (1j * A, u),
    "integers times reals": lambda A, u: ((10 * A).astype(int), u),
    "integers": lambda A, u: ((10 * A).astype(int), (10 * u).astype(int)),
    "strided": lambda A, u: (A, np.repeat(u, 2)[::2]),
    "columns": lambda A, u: (A, np.stack([u, 2 * u], 1)),
    "a column": lambda A, u: (A, u[:, None]),
    "subclass": lambda A, u: (A, u[:, None].view(np.matrix)),
    "CSC": lambda A, u: (A.tocsc(), u),
    "sparse array": lambda A, u: (sp.csr_array(A), u),
    "no rows": lambda A, u: (A[:0], u),
    "dense": lambda A, u: (A.toarray(), u),
    "a product of its own": lambda A, u: (Doubled(A), u),
    "long indices": lambda A, u: (system(30, 0, index=np.int64)[0][:12], u),
    "duplicates": lambda A, u: (sp.csr_matrix(([1.0, 2.0], [0, 0], [0, 2]), (1, len(u))), u),
}


@pytest.mark.parametrize("private", [True, False], ids=["SciPy's private loop", "without it"])
@pytest.mark.parametrize("case", PRODUCTS)
def test_multiply_gives_the_bits_of_scipys_product(monkeypatch, private, case):
    if not private:
        monkeypatch.setattr(kernels, "csr_matvec", None)
    A, u, _ = system(30)
    matrix, state = PRODUCTS[case](A[:12], u)
    before = state.copy()
    product, expected = kernels.multiply(matrix, state), matrix @ state
    np.testing.assert_array_equal(product, expected)
    assert type(product) is type(expected) and product.dtype == expected.dtype
    np.testing.assert_array_equal(state, before)


def test_multiply_refuses_a_state_of_another_length():
    A, _, _ = system(4)
    for length in (3, 5):
        with pytest.raises(ValueError, match="mismatch"):
            kernels.multiply(A, np.ones(length))


@pytest.mark.parametrize("private", [True, False], ids=["SciPy's private loop", "without it"])
@pytest.mark.parametrize(
    ("matrix", "state"), [(float, float), (np.float32, np.float32), (np.float32, float)]
)
def test_multiply_add(monkeypatch, private, matrix, state):
    if not private:
        monkeypatch.setattr(kernels, "csr_matvec", None)
    A, u, out = system(dtype=matrix)
    u, out = u.astype(state), out.astype(state)
    expected = out + A.toarray() @ u
    result = kernels.multiply_add(A, u, out)
    assert result is out and out.dtype == state
    np.testing.assert_allclose(out, expected, rtol=1e-4 if matrix == np.float32 else 1e-13)


def test_multiply_add_of_a_matrix_with_a_product_of_its_own():
    A, u, out = system(4)
    expected = out + 2.0 * A.toarray() @ u
    np.testing.assert_allclose(kernels.multiply_add(Doubled(A), u, out), expected)


def test_multiply_add_refuses_states_of_other_lengths():
    """The private loop would read what lies behind them in memory."""
    A, u, out = system(4)
    for state, sum_ in ((u[:3], out), (u, out[:3])):
        with pytest.raises(ValueError, match=r"mismatch|broadcast"):
            kernels.multiply_add(A, state, sum_)


def test_multiply_add_of_strided_and_two_dimensional_states():
    A, _, _ = system(4)
    u = np.arange(8.0)[::2]
    np.testing.assert_allclose(kernels.multiply_add(A, u, np.ones(4)), 1 + A.toarray() @ u)
    U = np.arange(8.0).reshape(4, 2)
    np.testing.assert_allclose(kernels.multiply_add(A, U, np.ones((4, 2))), 1 + A.toarray() @ U)
