"""ILU(0) is A on the pattern of A, PETSc's, and exact where there is no fill; ILUT is SciPy's."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from mgnet import (
    ILU,
    GaussSeidel,
    Hierarchy,
    Level,
    Solver,
    gallery,
    interpolation_matrix,
    kernels,
)
from mgnet.incomplete_lu import zero_fill
from mgnet.options import parse_smoother
from tests.smoother_laws import DTYPES, check_laws, drawn, swept, tolerance


def by_rows(A):
    """Eliminate row by row in a dense matrix, and leave out what is outside of the pattern."""
    F, pattern = A.astype(np.result_type(A, np.float32)), (A != 0) | np.eye(len(A), dtype=bool)
    for i in range(len(A)):
        for k in np.flatnonzero(pattern[i, :i]):
            F[i, k] /= F[k, k]
            for j in np.flatnonzero(pattern[i] & pattern[k]):
                if j > k:
                    F[i, j] -= F[i, k] * F[k, j]
    return F


def factored(A):
    F = by_rows(A)
    return (np.tril(F, -1) + np.eye(len(A))) @ np.triu(F)


@pytest.fixture(params=[True, False], ids=["numba", "SciPy"])
def either(monkeypatch, request):
    """Both ways, where numba is there."""
    monkeypatch.setattr(kernels, "available", request.param and kernels.available)


@pytest.mark.usefixtures("either")
def test_a_sweep_is_its_splitting():
    check_laws(ILU(), lambda A, u, f: u + np.linalg.solve(factored(A), f - A @ u), 15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 1.0])
@pytest.mark.usefixtures("either")
def test_zero_fill_is_elimination_without_fill(dtype, density):
    A, _, _ = drawn(40, dtype, density=density)
    factors = zero_fill(A, np.dtype(dtype), "x")
    assert factors.dtype == dtype and factors.nnz == A.nnz
    dense = A.toarray()
    near = {"rtol": tolerance(dtype), "atol": tolerance(dtype)}
    np.testing.assert_allclose(factors.toarray(), by_rows(dense), **near)
    # Its definition: L U is A wherever A has an entry.
    product = (sp.tril(factors, -1) + sp.eye(40)) @ sp.triu(factors)
    np.testing.assert_allclose(product.toarray()[dense != 0], dense[dense != 0], **near)


@pytest.mark.usefixtures("either")
def test_a_pivot_that_vanishes_on_the_way():
    """That of unknown 2 is 3 - 3 when the rows above it are eliminated."""
    A = np.array([[1.0, 0, 1, 0], [0, 1.0, 1, 0], [1, 2, 3, 1], [0, 0, 1, 1.0]])
    with pytest.raises(ValueError, match="^x: the pivot of unknown 2 is zero to working precision"):
        zero_fill(A, np.dtype(float), "x")
    A[2, 2] = 3.0 + 1e-9  # small, but not rounding
    F = zero_fill(A, np.dtype(float), "x").toarray()
    np.testing.assert_allclose(F, by_rows(A), rtol=1e-15)


@pytest.mark.usefixtures("either")
def test_long_chains():
    """Every row waits for the one above; the factors of a tridiagonal matrix are known."""
    n = 2000
    A = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n))
    pivots = zero_fill(A, np.dtype(float), "x").diagonal()
    np.testing.assert_allclose(pivots, np.arange(2, n + 2) / np.arange(1, n + 1), rtol=1e-10)


def test_petsc_gives_the_same():
    pytest.importorskip("petsc4py")
    from mgnet.petsc import KSPSmoother

    A, draw = gallery.poisson((15, 15))[0].matrix, np.random.default_rng(0)
    A = sp.csr_matrix(A + sp.diags(draw.uniform(-0.5, 0.5, 224), 1))
    u, f = draw.standard_normal((2, 225))
    theirs = KSPSmoother("ilu0_", {"ksp_type": "richardson", "ksp_max_it": 1, "pc_type": "ilu"})
    expected = swept(theirs, Level(A, theirs), u, f, 2)
    np.testing.assert_allclose(swept(ILU(), Level(A, ILU()), u, f, 2), expected, rtol=1e-12)


def test_exact_without_fill():
    draw = np.random.default_rng(0)
    for A in (
        sp.diags([draw.random(49), 4 + draw.random(50), draw.random(49)], [-1, 0, 1], format="csr"),
        drawn(20, density=1.0)[0],
        sp.eye(1).tocsr(),
    ):
        n = A.shape[0]
        u = draw.standard_normal(n)
        np.testing.assert_allclose(swept(ILU(), Level(A, ILU()), 0 * u, A @ u), u, rtol=1e-12)


def test_a_pivot_that_is_small_beside_its_row_is_no_zero():
    A = sp.csr_matrix([[1e-12, 1e6], [1e-18, 2.0]])
    u = np.array([1e18, 1.0])
    np.testing.assert_allclose(swept(ILU(), Level(A, ILU()), 0 * u, A @ u), u, rtol=1e-12)


def test_a_diagonal_without_entries_may_be_filled():
    A = sp.csr_matrix([[2.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 3.0]])
    u = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(swept(ILU(), Level(A, ILU()), 0 * u, A @ u), u, rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("drop_tol", [0.0, 1e-2, 0.5])
def test_a_threshold_is_scipys(dtype, drop_tol):
    A, u, f = drawn(40, dtype)
    smoother = ILU(drop_tol, 2.0)
    expected = u + spla.spilu(A.tocsc(), drop_tol, 2.0).solve(f - A @ u)
    result = swept(smoother, Level(A, smoother), u, f)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=tolerance(dtype))


def test_a_threshold_on_every_kind_of_level():
    smoother = ILU(1e-12, 100.0)  # drops nothing: a direct solve
    check_laws(smoother, lambda A, u, f: u + np.linalg.solve(A, f - A @ u), 15)


def test_convection():
    """ILU smooths what is carried along the rows and against them, where Gauss-Seidel stalls."""
    n, eps, levels = 31, 1e-3, []
    while n >= 3:
        h = 1 / (n + 1)
        second = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)) * eps
        upwind = sp.diags([1.0, -1.0], [0, 1], shape=(n, n)) * h  # against the order of rows
        one = sp.eye(n)
        levels.append(sp.csr_matrix(sp.kron(second + upwind, one) + sp.kron(one, second + upwind)))
        n = (n - 1) // 2
    P = [interpolation_matrix(int(A.shape[0] ** 0.5), degree=1) for A in levels[1:]]
    P = [sp.csr_matrix(sp.kron(p, p)) for p in P]
    f = np.random.default_rng(0).standard_normal(31 * 31)
    cycles = []
    for smoother in (ILU(), GaussSeidel()):
        solver = Solver(Hierarchy.from_matrices(levels, P, smoother=smoother), max_cycles=60)
        cycles.append(solver.solve(f).cycles)
    assert 2 * cycles[0] <= cycles[1]


@pytest.mark.parametrize("smoother", [ILU(), ILU(1e-3), ILU(0.0, 2.5)])
def test_text(smoother):
    assert parse_smoother(repr(smoother)) == smoother
    assert str(ILU()) == "ILU()" and str(ILU(1e-3)) == "ILU(drop_tol=0.001)"


@pytest.mark.parametrize("arguments", [(-0.1,), (1.5,), ("x",), (0.1, 0.5), (None, np.nan)])
def test_parameters_are_checked(arguments):
    with pytest.raises(ValueError, match="ILU got drop_tol .*; drop_tol must be None or from 0 to"):
        ILU(*arguments)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("dtype", DTYPES)
def test_pivots_that_are_zero(dtype):
    A = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], dtype))
    level = Level(A, ILU(), name="level 1")
    with pytest.raises(ValueError, match=r"^ILU\(\) on level 1: the pivot of unknown 1 is zero to"):
        ILU().start(level, np.zeros(3, dtype))
    exchanged = swept(ILU(0.0), level, np.zeros(3, dtype), A @ np.ones(3, dtype))
    np.testing.assert_allclose(exchanged, 1.0, rtol=1e-5)
    singular = Level(sp.csr_matrix(np.ones((3, 3), dtype)), ILU(0.0), name="level 1")
    with pytest.raises(ValueError, match="on level 1: a pivot is zero; use a smaller drop_tol"):
        ILU(0.0).start(singular, np.zeros(3, dtype))
