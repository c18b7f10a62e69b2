"""The compiled loops against SciPy's sparse matrix of the same entries, across their blocks."""

import numpy as np
import pytest
import scipy.sparse as sp

kernels = pytest.importorskip("mgnet.knots.local_kernels", exc_type=ImportError)

RUNS = np.array([[0, 3, 12], [24, 1, 4]])  # 5 intervals, degree 3: 3 outputs, then 1


@pytest.mark.parametrize("rows", [1, kernels.ROWS, kernels.ROWS + 1, 3 * kernels.ROWS - 1])
def test_products(rows):
    rng = np.random.default_rng(rows)
    values, first = rng.standard_normal((rows, 16)), rng.integers(0, 5, (rows, 2), np.int32)
    columns = [
        RUNS[p, 0] + RUNS[p, 1] * first[:, p : p + 1] + np.arange(RUNS[p, 2]) for p in (0, 1)
    ]
    ends = np.arange(0, values.size + 1, 16)
    A = sp.csr_array((values.ravel(), np.hstack(columns).ravel(), ends), shape=(rows, 32))
    d, y = rng.standard_normal(32), rng.standard_normal(rows)
    close = {"rtol": 1e-12, "atol": 1e-11}
    np.testing.assert_allclose(kernels.matvec(values, first, RUNS, d), A @ d, **close)
    np.testing.assert_allclose(kernels.rmatvec(values, first, RUNS, y, 32), A.T @ y, **close)
    np.testing.assert_allclose(kernels.normal(values, first, RUNS, d), A.T @ (A @ d), **close)
    for p, (_, _, width) in enumerate(RUNS):
        own = np.ascontiguousarray(values[:, 12 * p : 12 * p + width])
        made = kernels.element_matrices(own, first[:, p], 5)
        for interval in range(5):
            V = own[first[:, p] == interval]
            np.testing.assert_allclose(made[interval], V.T @ V, **close)
