"""Sweeps by blocks of rows are those over the whole matrix, whatever the blocks."""

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import blocked_sweeps, kernels


@pytest.mark.parametrize("private", [True, False], ids=["SciPy's private loop", "without it"])
@pytest.mark.parametrize("entries", [1, 7, 60, 10**6])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
def test_a_sweep_and_its_residual(monkeypatch, private, entries, dtype):
    monkeypatch.setattr(blocked_sweeps, "ENTRIES", entries)
    if not private:
        monkeypatch.setattr(kernels, "csr_matvec", None)
    draw = np.random.default_rng(entries)
    for reach in (0, 1, 5, 50):
        n = int(draw.integers(1, 50))
        A = sp.triu(sp.tril(sp.random(n, n, 0.5, random_state=draw), reach), -reach)
        A = sp.csr_matrix(A, dtype=dtype)
        u, f, scale = draw.standard_normal((3, n)).astype(dtype)
        r, before = np.full_like(u, np.nan), u.copy()
        out = blocked_sweeps.jacobi(A, scale, u, f, r, kernels.reach(A))
        tolerance = 1e-4 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(out, u + scale * (f - A @ u), rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(r, f - A @ out)
        np.testing.assert_array_equal(u, before)
        np.testing.assert_array_equal(blocked_sweeps.jacobi(A, scale, u, f), out)


def test_one_number_as_scale():
    A, (u, f) = sp.csr_matrix(sp.eye(30) * 4.0), np.random.default_rng(0).standard_normal((2, 30))
    out = blocked_sweeps.jacobi(A, np.broadcast_to(0.25, u.shape), u, f)
    np.testing.assert_allclose(out, 0.25 * f, atol=1e-15)
