"""Sums in place and complex inner products, beside NumPy's."""

import numpy as np
import pytest
import torch

from mgnet import norms
from mgnet.combinations import add_scaled, inner

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
