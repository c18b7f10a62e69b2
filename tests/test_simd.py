"""The vector operations are NumPy's sums, in both precisions."""

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from mgnet import simd  # noqa: E402
from mgnet.simd import (  # noqa: E402
    collect,
    gather,
    load,
    prefetch,
    pull,
    put,
    scatter,
    spread,
    spread_rows,
    store,
    transpose,
    zeros,
)

TWO, THREE = (0, 0), (0, 0, 0)  # two vectors, three weights


@numba.njit
def combine(weights, table, out, at, stride):
    total = load(out, 1, TWO)
    store(out, 1, gather(total, spread(weights, 2, THREE), table, at, stride))


@numba.njit
def project(weights, value, table, at, stride):
    return pull(load(value, 1, TWO), spread(weights, 2, THREE), table, at, stride)


@numba.njit
def outer(weights, value, table, at, stride):
    block = zeros(table, THREE, TWO)
    for _ in range(2):
        block = collect(block, spread(weights, 2, THREE), load(value, 1, TWO))
    scatter(block, THREE, table, at, stride)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_three_sums(dtype):
    rng = np.random.default_rng(0)
    width = 2 * simd.BYTES // np.dtype(dtype).itemsize
    stride, at = width + 3, 5  # nothing aligned
    weights, value = rng.random(6).astype(dtype), rng.random(width + 2).astype(dtype)
    table = rng.random(at + 3 * stride).astype(dtype)
    rows = np.stack([table[at + k * stride :][:width] for k in range(3)]).astype(float)
    w, v = weights[2:5].astype(float), value[1 : 1 + width].astype(float)
    near = {"rtol": 20 * np.finfo(dtype).eps}
    out = value.copy()
    combine(weights, table, out, at, stride)
    np.testing.assert_allclose(out[1 : 1 + width], v + w @ rows, **near)
    assert out[0] == value[0] and out[-1] == value[-1]
    np.testing.assert_allclose(project(weights, value, table, at, stride), w @ rows @ v, **near)
    changed = table.copy()
    outer(weights, value, changed, at, stride)
    for k in range(3):
        there = slice(at + k * stride, at + k * stride + width)
        np.testing.assert_allclose(changed[there], rows[k] + 2.0 * w[k] * v, **near)
        changed[there] = table[there]
    assert (changed == table).all()


@numba.njit
def elementwise(x, y, out):
    one, two = load(x, 0, TWO), load(y, 0, TWO)
    width = len(x)
    store(out, 0, simd.plus(one, two))
    store(out, width, simd.minus(one, two))
    store(out, 2 * width, simd.times(one, two))
    store(out, 3 * width, simd.over(one, two))
    store(out, 4 * width, simd.fused(one, two, two))
    store(out, 5 * width, simd.equal(x, y[3], TWO))
    return simd.total(one)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operations_number_by_number(dtype):
    rng = np.random.default_rng(1)
    width = 2 * simd.BYTES // np.dtype(dtype).itemsize
    x, y = rng.normal(size=(2, width)).astype(dtype)
    out = np.empty((6, width), dtype)
    found = elementwise(x, y, out.reshape(-1))
    wanted = [x + y, x - y, x * y, x / y]
    assert np.array_equal(out[:4], wanted)
    eps = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(out[4], x + y * y, rtol=eps, atol=eps)
    assert np.array_equal(out[5], np.full(width, y[3]))
    np.testing.assert_allclose(found, x.sum(), rtol=100 * eps, atol=100 * eps)


@numba.njit
def turn(table, at, stride, to, wide):
    transpose(table, at, stride, to, wide)


@numba.njit
def rows_of(table, at, stride, out):
    put(spread_rows(table, at, stride, THREE), THREE, out, 0, len(out) // 3)
    prefetch(table, at)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squares_the_other_way_round_and_numbers_of_rows(dtype):
    lanes = simd.BYTES // np.dtype(dtype).itemsize
    stride, wide = lanes + 3, lanes + 1
    table = np.arange(3 * lanes * stride).astype(dtype)
    square = table[5 : 5 + lanes * stride].reshape(lanes, stride)[:, :lanes].copy()
    to = 5 + lanes * stride
    turn(table, 5, stride, to, wide)
    found = table[to : to + lanes * wide].reshape(lanes, wide)
    assert np.array_equal(found[:, :lanes], square.T)
    out = np.zeros(3 * lanes, dtype)
    rows_of(table, 5, stride, out)
    assert np.array_equal(out.reshape(3, lanes), np.repeat(square[:3, :1], lanes, 1))
