"""Coarse solvers: Direct solves, takes Newton steps when nonlinear; Krylov is best in its space."""

import numpy as np
import pytest
import scipy.linalg as la
import scipy.sparse as sp

from mgnet import Direct, Krylov, Level, gallery

METHODS = ["cg", "gmres", "bicgstab", "minres"]


def spd(n=12, seed=0):
    """Make a dense-spectrum symmetric positive definite matrix, well conditioned."""
    B = np.random.default_rng(seed).standard_normal((n, n))
    return sp.csr_matrix(B @ B.T / n + np.eye(n))


def states(n=12, seed=1):
    generator = np.random.default_rng(seed)
    return generator.standard_normal(n), generator.standard_normal(n)


def smooth(smoother, level, u, f, sweeps=1):
    return smoother.smooth(level, u, f, sweeps, smoother.start(level, u))[0]


@pytest.mark.parametrize("matrix", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("method", ["lu", "pinv"])
def test_direct_solves(matrix, method):
    A, (u, f) = spd().toarray(), states()
    level = Level(matrix(A), Direct(method))
    np.testing.assert_allclose(
        smooth(level.smoother, level, u, f), np.linalg.solve(A, f), rtol=1e-10
    )


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.int64])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_direct_has_the_precision_of_the_state(kind, dtype):
    A, (u, f) = np.diag([2, 3, 4]) - np.eye(3, k=1), (x.astype(dtype) for x in states(3))
    level = Level(sp.csr_matrix(A.astype(kind)), Direct())
    found = smooth(level.smoother, level, u, f)
    rtol = 1e-14 if dtype == np.float64 else 1e-6
    assert found.dtype == dtype
    np.testing.assert_allclose(found, np.linalg.solve(A, f), rtol=rtol)


@pytest.mark.parametrize("smoother", [Direct(), Direct("pinv"), Krylov(iterations=20)], ids=str)
def test_a_sweep_is_a_newton_step_on_a_nonlinear_level(smoother):
    level, (u, f) = gallery.reaction(7, levels=1, coarse_solver=smoother)[0], states(7)
    expected = u
    for _ in range(2):
        J = level.linearize(expected).toarray()
        expected = expected + np.linalg.solve(J, f - level.operator(expected))
    np.testing.assert_allclose(smooth(smoother, level, u, f, 2), expected, rtol=1e-9)


REFUSED = r"level 3 has a matrix of shape .* singular to working precision; use Direct\('pinv'\)"


def neumann(n):
    """-Laplacian on n x n points without boundary values: singular, but no pivot is exactly 0."""
    ends = np.ones(n)
    ends[[0, -1]] = 0.5
    line = sp.diags([2.0 * ends, -np.ones(n - 1), -np.ones(n - 1)], [0, 1, -1])
    return sp.csr_matrix(sp.kron(line, sp.diags(ends)) + sp.kron(sp.diags(ends), line))


@pytest.mark.parametrize("dense", [True, False])
def test_direct_refuses_a_matrix_that_is_nearly_singular(dense):
    A = neumann(12)
    level = Level(A.toarray() if dense else A, Direct(), name="level 3")
    with pytest.raises(ValueError, match=REFUSED):
        Direct().start(level, np.zeros(144))


@pytest.mark.parametrize("matrix", [np.asarray, sp.csr_matrix])
def test_direct_takes_badly_scaled_rows_and_columns(matrix):
    A = np.array([[1e-20, 0.0, 0.0], [0.0, 1.0, 2e8], [0.0, 0.0, 1e8]])
    u = smooth(Direct(), Level(matrix(A), Direct()), np.zeros(3), A @ np.ones(3))
    np.testing.assert_allclose(u, 1.0, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Diagonal number")
@pytest.mark.parametrize("matrix", [np.asarray, sp.csr_matrix])
def test_direct_refuses_a_singular_matrix(matrix):
    A = matrix(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    level = Level(A, Direct(), name="level 3")
    with pytest.raises(ValueError, match=REFUSED):
        Direct().start(level, np.zeros(2))
    f = np.array([1.0, -1.0])
    np.testing.assert_allclose(smooth(Direct("pinv"), level, np.zeros(2), f), [0.5, -0.5])


def krylov_basis(A, r, k):
    columns = [r]
    for _ in range(k - 1):
        columns.append(A @ columns[-1] / np.linalg.norm(columns[-1]))
    return la.orth(np.array(columns).T)


@pytest.mark.parametrize("kind", ["matrix", "function"])
@pytest.mark.parametrize("method", ["cg", "gmres", "minres"])
def test_krylov_is_the_best_in_its_space(kind, method):
    A, (u, f) = spd(), states()
    smoother = Krylov(method, iterations=4)
    levels = {
        "matrix": Level(A, smoother),
        "function": Level(lambda u: A @ u, smoother, linearize=lambda u: A),
    }
    r = f - A @ u
    V = krylov_basis(A, r, 4)
    if method == "cg":  # least energy error
        d = V @ np.linalg.solve(V.T @ (A @ V), V.T @ r)
    else:  # least residual
        d = V @ np.linalg.lstsq(A @ V, r, rcond=None)[0]
    result = smooth(smoother, levels[kind], u, f)
    np.testing.assert_allclose(result, u + d, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_krylov_solves_in_as_many_iterations_as_unknowns(method):
    A, (u, f) = spd(), states()
    level = Level(A, Krylov(method, iterations=24))
    expected = np.linalg.solve(A.toarray(), f)
    np.testing.assert_allclose(smooth(level.smoother, level, u, f), expected, rtol=1e-8)
    # An exact solution, at the start or on the way, stays one.
    for n in (1, 3):
        level = Level(2.0 * np.eye(n), Krylov(method))
        np.testing.assert_allclose(smooth(level.smoother, level, np.ones(n), np.ones(n)), 0.5)
        np.testing.assert_allclose(smooth(level.smoother, level, np.ones(n), 2 * np.ones(n)), 1.0)


def test_krylov_stops_at_its_tolerance():
    A, (u, f) = spd(60), states(60)
    results = {}
    for rtol in (1e-1, 1e-6):
        level = Level(A, Krylov(iterations=60, rtol=rtol))
        v = smooth(level.smoother, level, u, f)
        assert np.linalg.norm(f - A @ v) <= rtol * np.linalg.norm(f - A @ u)
        results[rtol] = level.tally[0]
    assert results[1e-1] < results[1e-6]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Direct("qr"), "method 'qr'; it must be 'lu' or 'pinv'"),
        (lambda: Krylov("lsqr"), "method 'lsqr'; it must be 'cg', 'gmres'"),
        (lambda: Krylov(iterations=0), "at least 1 iteration"),
        (lambda: Krylov(rtol=-1.0), "rtol that is not negative"),
    ],
)
def test_parameters_are_checked(make, why):
    with pytest.raises(ValueError, match=why):
        make()
