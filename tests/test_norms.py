"""Law: norms and inner products scale with their arguments over the whole range of a format."""

import math

import numpy as np
import pytest
import torch

from mgnet.norms import binary_exponent, dot, is_finite, norm, times_power_of_two

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def ends(dtype):
    """Exponents that leave all of 50 normal entries, and their norm, normal numbers."""
    info = np.finfo(dtype)
    return info.minexp + 60, info.maxexp - 6


def drawn(dtype, seed, n=50):
    draw = np.random.default_rng(seed)
    u = draw.standard_normal(n)
    u = np.copysign(np.clip(abs(u), 0.1, None), u)  # no entry that vanishes before the others
    if np.dtype(dtype).kind == "c":
        u = u * np.exp(1j * draw.uniform(0.0, 6.0, n))
    return u.astype(dtype), draw


def as_vec(petsc, u):
    v = petsc.Vec().createSeq(len(u))
    v.setArray(u)
    return v


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(10))
def test_norms_scale_exactly(dtype, seed):
    u, draw = drawn(dtype, seed, int(draw_size(seed)))
    low, high = ends(dtype)
    for exponent in [low, high - 10, *draw.integers(low, high - 10, 30)]:
        v = times_power_of_two(u, int(exponent))
        assert norm(v) == math.ldexp(norm(u), int(exponent))
        tensors = torch.from_numpy(u), torch.from_numpy(v)
        scaled = math.ldexp(norm(tensors[0]), int(exponent))
        # torch takes norms of complex64 in single precision, those near the ends in double.
        rel = 1e-6 if dtype is np.complex64 else 1e-15
        assert norm(tensors[1]) == pytest.approx(scaled, rel=rel)
        assert is_finite(v) and is_finite(tensors[1])


def draw_size(seed):
    return np.random.default_rng(seed).choice([1, 2, 50, 1000])


@pytest.mark.parametrize("dtype", [np.float64])
@pytest.mark.parametrize("seed", range(5))
def test_norms_of_vecs_scale_exactly(petsc, dtype, seed):
    u, draw = drawn(dtype, seed)
    low, high = ends(dtype)
    for exponent in [low, high, *draw.integers(low, high, 30)]:
        v = times_power_of_two(as_vec(petsc, u), int(exponent))
        assert norm(v) == pytest.approx(math.ldexp(norm(u), int(exponent)), rel=1e-15)
        fresh = petsc.Vec().createWithArray(times_power_of_two(u, int(exponent)))
        assert norm(fresh) == pytest.approx(norm(v), rel=1e-15)
        assert is_finite(fresh)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(10))
def test_inner_products_scale_exactly(dtype, seed):
    """As far as float64 holds the result."""
    (u, draw), (v, _) = drawn(dtype, seed), drawn(dtype, seed + 100)
    low, high = ends(dtype)
    for _ in range(30):
        first, second = (int(e) for e in draw.integers(low, high, 2))
        if -950 < first + second < 950:
            got = dot(times_power_of_two(u, first), times_power_of_two(v, second))
            assert got == math.ldexp(dot(u, v), first + second)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_the_very_ends(dtype):
    info = np.finfo(dtype)
    tiny = np.full(4, info.smallest_subnormal)
    if dtype is not np.longdouble:  # whose ends are beyond those of a Python float
        assert norm(tiny) == 2.0 * float(info.smallest_subnormal)
    assert norm(np.full(4, info.max / dtype(4))) == pytest.approx(float(info.max / dtype(2)))
    assert norm(np.zeros(4, dtype)) == 0.0 and norm(np.zeros(0, dtype)) == 0.0


def test_float64_cannot_hold_every_norm():
    u = np.full(9, 1.7e308)
    assert norm(u) == math.inf and is_finite(u)
    assert norm(torch.from_numpy(u)) == math.inf and is_finite(torch.from_numpy(u))


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1.0, 1e200, 1e308])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(petsc, size, bad):
    u = np.full(5, size)
    u[3] = bad
    for v in (u, torch.from_numpy(u), as_vec(petsc, u), u + 0j):
        assert not is_finite(v)
        assert not math.isfinite(norm(v))


def test_a_vec_that_overflows_is_finite(petsc):
    u = np.full(9, 1.7e308)
    for v in (petsc.Vec().createWithArray(u), as_vec(petsc, u)):
        assert norm(v) == math.inf and is_finite(v)


def test_sums_of_float32_may_overflow_where_the_state_does_not():
    u = np.full(1000, 1e37, np.float32)
    assert is_finite(u) and is_finite(torch.from_numpy(u))


@pytest.mark.parametrize("exponent", [-1074, -600, 0, 3, 1000, 2000])
def test_powers_of_two(exponent):
    u = np.array([3.0, -0.25])
    there = times_power_of_two(u, -(exponent // 2))
    assert np.array_equal(times_power_of_two(there, exponent // 2), u)
    assert u.tolist() == [3.0, -0.25], "the argument is not edited"


def test_binary_exponents():
    assert [binary_exponent(x) for x in (1.0, 0.75, 5e-324, 1.7e308)] == [1, 0, -1073, 1024]
    assert [binary_exponent(x) for x in (0.0, math.inf, math.nan)] == [0, 0, 0]
