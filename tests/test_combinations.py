"""Sums in place and complex inner products, beside NumPy's."""

import numpy as np
import pytest
import torch

from mgnet import norms
from mgnet.combinations import add_scaled, advanced, inner

KINDS = [np.float32, np.float64, np.complex64, np.complex128, np.longdouble]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 3)])
def test_arrays(kind, shape):
    generator = np.random.default_rng(0)
    u, v = (generator.standard_normal(shape).astype(kind) for _ in range(2))
    weight = 0.3 - 0.2j if np.dtype(kind).kind == "c" else 0.3
    expected = u + u.dtype.type(weight) * v
    assert np.allclose(add_scaled(u.copy(), weight, v), expected, rtol=1e-6)
    strided = np.repeat(u, 2, axis=-1)[..., ::2] if u.ndim else u
    assert np.allclose(add_scaled(strided, weight, v), expected, rtol=1e-6)


def test_a_contiguous_array_is_edited_and_the_other_is_not():
    u, v = np.ones(5), np.arange(5.0)
    assert add_scaled(u, 2.0, v) is not None
    assert np.array_equal(u, 1 + 2 * np.arange(5.0)) and np.array_equal(v, np.arange(5.0))


def test_tensors():
    u, v = torch.ones(3), torch.arange(3.0)
    assert torch.equal(add_scaled(u.clone(), -1.0, v), u - v)
    w = torch.tensor([1j, 2.0])
    assert inner(w, w) == pytest.approx(5.0) and isinstance(inner(u, v), float)


@pytest.mark.parametrize("size", [1.0, 1e-170, 1e170])
def test_complex_inner_products_over_the_range(size):
    generator = np.random.default_rng(1)
    u, v = np.array([1, 1j]) @ generator.standard_normal((2, 2, 9))
    expected = np.vdot(u, v)
    assert inner(size * u, v / size) == pytest.approx(expected)
    assert inner(u, v, lambda a, b: norms.dot(a, b)) == pytest.approx(expected)


@pytest.mark.parametrize("old", [0.0, 0.75])
def test_advanced_is_the_same_of_arrays_and_vecs(petsc, old):
    u, d, step = np.random.default_rng(0).standard_normal((3, 5))
    expected = u + old * d + 1.5 * step, old * d + 1.5 * step
    vecs = [petsc.Vec().createWithArray(x.copy(), comm=petsc.COMM_SELF) for x in (u, d, step)]
    for told in (advanced(*vecs, (old, 1.5)), advanced(u, d.copy(), step.copy(), (old, 1.5))):
        for each, wanted in zip(told, expected, strict=True):
            np.testing.assert_allclose(getattr(each, "array", each), wanted, rtol=1e-14)
    np.testing.assert_array_equal(vecs[0].array, u)
