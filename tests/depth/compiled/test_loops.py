"""Single operations of the loops are NumPy's; a matrix of any size meets any number of samples."""

import numpy as np
import pytest

pytest.importorskip("numba")

from mgnet.depth.compiled import operations as ops  # noqa: E402
from mgnet.depth.compiled.loops import backward, forward  # noqa: E402


def run(code, numbers, at, par, par_at, mem, slope, width, layers, S, lanes):
    table = np.array(code, np.int64).reshape(-1, 10)
    forward(
        table, np.array(numbers, mem.dtype).reshape(-1, 2), np.array(at, np.int64), par,
        np.array(par_at, np.int64), mem, False, slope, True, width, layers, S, lanes,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(12))
def test_products_of_any_size(seed, dtype):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 21, 2)
    width = max(rows, columns)  # the state; the slope has some of its rows
    lanes = 64 // np.dtype(dtype).itemsize
    S = lanes * int(rng.integers(1, 6))
    W, v = rng.normal(size=(rows, columns)).astype(dtype), rng.normal(size=rows).astype(dtype)
    x, step = rng.normal(size=(width, S)).astype(dtype), dtype(0.5)
    par = np.concatenate([[step], v, W.T.reshape(-1), W.reshape(-1)]).astype(dtype)
    par_at = [(0, 0), (1, 0), (1 + rows, 0), (1 + rows + rows * columns, 0)]
    mem = np.concatenate([x.reshape(-1), np.full(width * S, 7.0, dtype)])
    at = [(0, 0), (width * S, 0)]
    code = [(ops.LINEAR, 1, 0, 0, rows, columns, 2, 1, 0, 0)]
    run(code, [(1.0, 0.0)], at, par, par_at, mem, 1, rows, 1, S, lanes)
    y = W.astype(float) @ x[:columns] + v[:, None]
    eps = 50 * np.finfo(dtype).eps
    np.testing.assert_allclose(mem.reshape(-1, S)[width : width + rows], y, rtol=eps, atol=eps)
    new = x.astype(float)
    new[:rows] += 0.5 * y
    np.testing.assert_allclose(mem.reshape(-1, S)[:width], new, rtol=eps, atol=eps)


def test_the_adjoint_of_a_product_and_of_a_step():
    S, lanes = 16, 8
    rng = np.random.default_rng(0)
    W, x, g = rng.normal(size=(3, 3)), rng.normal(size=(3, S)), rng.normal(size=(3, S))
    par = np.concatenate([[0.5], W.T.reshape(-1), W.reshape(-1)])
    par_at = np.array([(0, 0), (1, 0), (10, 0)])
    # the state, the slope, the adjoints of the slope and of the state, room for one turned round
    mem = [x.reshape(-1), (W @ x).reshape(-1), np.full(3 * S, 7.0), g.reshape(-1)]
    mem = np.concatenate([*mem, np.zeros(S * lanes)])
    at, of = np.array([(0, 0), (3 * S, 0)]), np.array([(9 * S, 0), (6 * S, 0)])
    code = np.array([(ops.LINEAR, 1, 0, 0, 3, 3, 1, 0, 0, 0)])
    sums, sums_at = np.ones(1 + 3 * lanes), np.array([(0, 0), (1, 0), (-1, 0)])
    none = np.zeros((0, 3), np.int64)
    backward(
        code, np.array([(1.0, 0.0)]), at, of, none, -1, -1, 0, 12 * S, par, par_at, mem, sums,
        sums_at, 1, True, 3, 1, S, lanes,
    )  # fmt: skip
    rows = mem[: 12 * S].reshape(-1, S)
    np.testing.assert_allclose(rows[9:], g + 0.5 * W.T @ g)
    np.testing.assert_allclose(rows[6:9], 0.5 * g)
    np.testing.assert_allclose(sums[0], 1.0 + (g * (W @ x)).sum())
    np.testing.assert_allclose(sums[1:].reshape(3, lanes)[:, :3], 1.0 + 0.5 * x @ g.T)
