"""Functions of vectors are NumPy's to a few units in the last place, at the ends too."""

import numpy as np
import pytest

pytest.importorskip("numba")
from numba import njit
from scipy.special import expit

from mgnet.depth.compiled.functions import (
    exp,
    gate,
    gate_slope,
    rectify,
    root,
    sigmoid,
    step,
    tanh,
)
from mgnet.simd import load, store

ONE = (0,)


def mapped(function):
    @njit
    def run(x, y, lanes):
        for t in range(0, len(x), lanes):
            store(y, t, function(load(x, t, ONE)))

    return run


RUN = {f: mapped(f) for f in (exp, gate, gate_slope, rectify, root, sigmoid, step, tanh)}


def values(function, x):
    lanes = 64 // x.itemsize
    padded = np.resize(x, -(-len(x) // lanes) * lanes).astype(x.dtype)
    out = np.empty_like(padded)
    RUN[function](padded, out, lanes)
    return out[: len(x)]


def drawn(dtype, seed):
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], 20000)
    small, large = (-38, 2) if dtype == np.float32 else (-300, 3)
    sizes = 10.0 ** rng.uniform(small, large, 20000)
    return np.concatenate([signs * sizes, rng.normal(size=20000), [0.0, -0.0]]).astype(dtype)


def slope_of_gate(x):
    return expit(x) * (1.0 + x * expit(-x))


ORACLES = {tanh: np.tanh, sigmoid: expit, exp: np.exp, gate: lambda x: x * expit(x)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", ORACLES, ids=["tanh", "sigmoid", "exp", "gate"])
def test_errors_are_a_few_units_in_the_last_place(function, dtype):
    x = drawn(dtype, 0)
    wide = np.longdouble if dtype == np.float64 else np.float64
    with np.errstate(over="ignore", under="ignore"):
        if function in (tanh, exp):
            wanted = ORACLES[function](x.astype(wide)).astype(dtype)
        else:
            wanted = ORACLES[function](x.astype(np.float64)).astype(dtype)
    found = values(function, x)
    finite = np.isfinite(wanted)
    assert np.array_equal(found[~finite], wanted[~finite])
    apart = np.abs(found[finite] - wanted[finite])
    # Of results below the smallest normal number, or made of such, not all digits are there.
    units = np.spacing(np.abs(wanted[finite])) + 20 * np.finfo(dtype).tiny
    assert (apart / units).max() <= (2.0 if function is tanh else 8.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_slope_of_the_gate(dtype):
    x = drawn(dtype, 1)
    x = x[np.abs(x) < 80.0]
    wanted = slope_of_gate(x.astype(np.float64))
    np.testing.assert_allclose(
        values(gate_slope, x), wanted, rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_simple_functions_are_exact(dtype):
    x = drawn(dtype, 2)
    assert np.array_equal(values(rectify, x), np.maximum(x, 0.0))
    assert np.array_equal(values(step, x), (x > 0.0).astype(dtype))
    assert np.array_equal(values(root, np.abs(x)), np.sqrt(np.abs(x)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite(dtype):
    x = np.array([np.nan, np.inf, -np.inf], dtype)
    np.testing.assert_array_equal(values(step, x), [1.0, 1.0, 0.0])
    np.testing.assert_array_equal(values(tanh, x), [np.nan, 1.0, -1.0])
    small = np.array([0.0, -0.0, np.finfo(dtype).smallest_subnormal, -1e-44], dtype)
    np.testing.assert_array_equal(values(tanh, small), small)
    assert np.array_equal(np.signbit(values(tanh, small)), np.signbit(small))
    np.testing.assert_array_equal(values(sigmoid, x), [np.nan, 1.0, 0.0])
    np.testing.assert_array_equal(values(exp, x), [np.nan, np.inf, 0.0])
    np.testing.assert_array_equal(values(rectify, x), [np.nan, np.inf, 0.0])
    assert np.isnan(values(gate, x)[0]) and values(gate, x)[1] == np.inf
