"""A start at zero, as on every coarse level, gives what any other start gives."""

import numpy as np
import pytest
import scipy.linalg as la
import scipy.sparse as sp

from mgnet import Chebyshev, GaussSeidel, Jacobi, Level, Solver, cycle, gallery, kernels, run

SMOOTHERS = [
    *map(GaussSeidel, ("forward", "backward", "symmetric")),
    Jacobi(0.7),
    Chebyshev(1),
    Chebyshev(3),
]
FORMS = {
    "sorted": lambda A: A,
    "from the last column": lambda A: reversed_rows(A),
    "entries in two parts": lambda A: doubled(A),
    "CSC": lambda A: A.tocsc(),
    "array": lambda A: sp.csr_array(A),
}


def drawn(n, draw, dtype):
    """Rows of any length, some of a diagonal alone, and any reach."""
    A = sp.random(n, n, draw.uniform(0.0, 0.4), random_state=draw).toarray()
    A = A + 1j * np.flip(A) if np.dtype(dtype).kind == "c" else A
    return sp.csr_matrix((A + np.diag(draw.uniform(3, 4, n))).astype(dtype))


def reversed_rows(A):
    rows = [np.arange(*ends)[::-1] for ends in zip(A.indptr[:-1], A.indptr[1:], strict=True)]
    order = np.concatenate(rows)
    return sp.csr_matrix((A.data[order], A.indices[order], A.indptr), A.shape)


def doubled(A):
    """Every entry as the sum of two, side by side."""
    data, indices = np.repeat(A.data, 2), np.repeat(A.indices, 2)
    data[::2] *= 0.25
    data[1::2] *= 0.75
    return sp.csr_matrix((data, indices, 2 * A.indptr), A.shape)


def by_triangles(A, u, f, directions):
    for direction in directions:
        lower = direction == "forward"
        triangle = np.tril(A) if lower else np.triu(A)
        u = u + la.solve_triangular(triangle, f - A @ u, lower=lower)
    return u


@pytest.mark.parametrize("numba", [True, False], ids=["numba", "SciPy"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("direction", ["forward", "backward", "symmetric"])
def test_a_start_at_zero_is_a_triangular_solve(monkeypatch, direction, form, numba):
    monkeypatch.setattr(kernels, "available", numba and kernels.available)
    draw = np.random.default_rng(len(form) + len(direction))
    for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 1e-5), (np.complex128, 1e-13)):
        n, sweeps = int(draw.integers(1, 40)), int(draw.integers(1, 4))
        A, f = drawn(n, draw, dtype), draw.standard_normal(n).astype(dtype)
        smoother = GaussSeidel(direction)
        level, zero = Level(FORMS[form](A), smoother), -0.0 * f
        memory = smoother.start(level, zero)
        order = sweeps * (("forward", "backward") if direction == "symmetric" else (direction,))
        expected = by_triangles(A.toarray(), zero, f, order)
        u, _ = smoother.smooth(level, zero, f, sweeps, memory)
        v, _, r = smoother.smooth_ahead(level, zero, f, sweeps, memory)
        assert u.dtype == dtype and not zero.any()
        np.testing.assert_allclose(u, expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(u, v)
        if r is not None:
            np.testing.assert_allclose(r, f - A @ expected, atol=10 * tolerance)


@pytest.mark.parametrize("numba", [True, False], ids=["numba", "SciPy"])
@pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)
@pytest.mark.parametrize("sweeps", [1, 2])
def test_zero_is_as_good_a_start_as_one_that_is_hardly_zero(monkeypatch, smoother, sweeps, numba):
    """The same state, residual and work, and nothing that was given is edited."""
    monkeypatch.setattr(kernels, "available", numba and kernels.available)
    draw = np.random.default_rng(sweeps)
    A, f = drawn(30, draw, float), draw.standard_normal(30)
    A = A + A.T
    level, zero, tiny = Level(A, smoother), np.zeros(30), np.full(30, 1e-300)
    memory = smoother.start(level, zero)
    told = []
    for u in (zero, tiny):
        before, given, kept = level.tally[0], u.copy(), f.copy()
        new, _, r = smoother.smooth_ahead(level, u, f, sweeps, memory)
        assert new is not u and new is not f and not np.shares_memory(new, f)
        np.testing.assert_array_equal(u, given)
        np.testing.assert_array_equal(f, kept)
        told.append((new, level.tally[0] - before, level.residual_at(new, f) if r is None else r))
    np.testing.assert_allclose(told[0][0], told[1][0], rtol=1e-13, atol=1e-14)
    assert told[0][1] == told[1][1]
    np.testing.assert_allclose(told[0][2], told[1][2], atol=1e-13)


@pytest.mark.parametrize("backward", [False, True])
def test_the_half_that_meets_zeros_is_not_read(backward):
    A, f = drawn(20, np.random.default_rng(3), float), np.ones(20)
    expected = by_triangles(A.toarray(), 0 * f, f, ["backward" if backward else "forward"])
    inverse = 1 / A.diagonal()
    rows = np.repeat(np.arange(20), np.diff(A.indptr))
    A.data[A.indices < rows if backward else A.indices > rows] = np.nan
    u = np.full(20, np.nan)
    kernels.gauss_seidel(A, inverse, u, f, backward, from_zero=True)
    np.testing.assert_allclose(u, expected, rtol=1e-13)


def test_the_columns_of_the_users_matrix_stay_in_their_order():
    A = reversed_rows(gallery.poisson((7, 7))[0].matrix)
    before, smoother = A.indices.copy(), GaussSeidel()
    level = Level(A, smoother)
    smoother.smooth(level, np.zeros(49), np.ones(49), 2, smoother.start(level, np.zeros(49)))
    np.testing.assert_array_equal(A.indices, before)


@pytest.mark.parametrize("smoother", SMOOTHERS[:4] + SMOOTHERS[5:], ids=str)
def test_histories_with_and_without_numba_agree(monkeypatch, smoother):
    histories = []
    for numba in (True, False):
        monkeypatch.setattr(kernels, "available", numba and kernels.available)
        solver = Solver(gallery.poisson((31, 31), smoother=smoother), "V(1,1)", max_cycles=8)
        histories.append(solver.solve(np.ones(961)).residual_norms)
    np.testing.assert_allclose(*histories, rtol=1e-8, atol=1e-12)


def test_a_run_that_goes_on_from_a_record_has_the_same_bits():
    """Zero is seen in the state, so a coarse level that was just entered is told from no other."""
    hierarchy, kept = gallery.poisson(31, smoother=GaussSeidel()), []
    schedule, f = cycle(len(hierarchy)), np.random.default_rng(0).standard_normal(31)
    u, _ = run(schedule, hierarchy, None, f, record=lambda _, data: kept.append(data.progress))
    for progress in kept:
        again, _ = run(schedule, hierarchy, None, None, resume=progress)
        np.testing.assert_array_equal(again, u)
