"""Products of any size are NumPy's; what is beside them stays as it was."""

import numpy as np
import pytest

pytest.importorskip("numba")

from mgnet.depth.compiled.products import ADDED, ALONE, BIASED, add_outer, product  # noqa: E402


def drawn(seed, dtype):
    rng = np.random.default_rng(seed)
    lanes = 64 // np.dtype(dtype).itemsize
    rows, columns = rng.integers(1, 40, 2)
    S = lanes * int(rng.integers(1, 4))
    near = {"rtol": 0.0, "atol": 200 * np.finfo(dtype).eps}
    return rng, lanes, int(rows), int(columns), S, near


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(10))
def test_a_matrix_and_rows_of_samples(seed, dtype):
    rng, lanes, rows, columns, S, near = drawn(seed, dtype)
    M, v = rng.normal(size=(columns, rows)).astype(dtype), rng.normal(size=rows).astype(dtype)
    x, y = (rng.normal(size=(k, S)).astype(dtype) for k in (columns, rows + 1))
    par = np.concatenate([v, M.reshape(-1), np.full(8, np.nan, dtype)])
    exact = M.astype(float).T @ x
    for start, more in ((ALONE, 0.0), (BIASED, v[:, None]), (ADDED, y[:rows])):
        mem = np.concatenate([x.reshape(-1), y.reshape(-1)])
        product(start, par, rows, 0, mem, 0, columns * S, rows, columns, S, lanes)
        found = mem[columns * S :].reshape(-1, S)
        np.testing.assert_allclose(found[:rows], exact + more, **near)
        assert np.array_equal(found[rows], y[rows])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(10))
def test_sums_over_samples(seed, dtype):
    rng, lanes, rows, columns, S, near = drawn(100 + seed, dtype)
    x, g = (rng.normal(size=(k, S)).astype(dtype) for k in (columns, rows))
    wide = -(-rows // lanes) * lanes
    room = np.full(S * wide, np.nan, dtype)
    mem = np.concatenate([x.reshape(-1), g.reshape(-1), room])
    out = np.ones((columns + 1) * wide, dtype)
    places = {"both": (wide, 0), "matrix": (wide, -1), "bias": (-1, 0)}
    for asked, (to, bias) in places.items():
        sums = out.copy()
        turned = (columns + rows) * S
        add_outer(mem, 0, columns, columns * S, rows, S, turned, sums, to, bias, lanes)
        found = sums.reshape(-1, wide)
        wanted = np.ones((columns + 1, rows))
        wanted[0] += g.astype(float).sum(1) if asked != "matrix" else 0.0
        wanted[1:] += x.astype(float) @ g.T if asked != "bias" else 0.0
        np.testing.assert_allclose(found[:, :rows], wanted, **near)
