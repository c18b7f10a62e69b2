"""Law: memory is shared, norms are true, and nothing but `assign` and `copy_of` copies."""

import numpy as np
import pytest
import torch

KINDS = [np.zeros((2, 3)), torch.zeros(2, 3, dtype=torch.float64)]


@pytest.fixture
def vectors(petsc):
    from mgnet.petsc import vectors

    return vectors


@pytest.mark.parametrize("like", KINDS, ids=["numpy", "torch"])
def test_norm_after_writing_through_shared_memory(vectors, like):
    v = vectors.vec_like(like)
    v.set(1.0)
    assert v.norm() == pytest.approx(6**0.5)  # PETSc remembers it
    with vectors.editing(v, like) as u:
        assert type(u) is type(like)
        assert u.shape == (2, 3)
        u[0, 0] = 100.0
    assert v.norm() == pytest.approx((100.0**2 + 5) ** 0.5)
    with pytest.raises(KeyError), vectors.editing(v, like) as u:
        u[0, 0] = 1.0
        raise KeyError
    assert v.norm() == pytest.approx(6**0.5)
    vectors.assign(v, like)
    assert v.norm() == 0.0


@pytest.mark.parametrize("like", KINDS, ids=["numpy", "torch"])
def test_memory_is_shared_both_ways(vectors, like):
    state = like + 0.0
    v = vectors.as_vec(state)
    v.set(2.0)
    assert float(state.sum()) == 12.0
    assert v.norm() == pytest.approx(24**0.5)
    with vectors.editing(v, state):
        state[0, 0] = 0.0
    assert v.norm() == pytest.approx(20**0.5)
    seen = vectors.view(v, like)
    kept = vectors.copy_of(v, like)
    v.set(3.0)
    assert float(seen.sum()) == 18.0
    assert float(kept.sum()) == 10.0
    del v
    assert float(seen.sum()) == 18.0


@pytest.mark.parametrize(
    "like", [np.zeros(4, np.float32), torch.zeros(4, dtype=torch.float32)], ids=["numpy", "torch"]
)
def test_single_precision_crosses_explicitly(vectors, like):
    v = vectors.vec_like(like)
    vectors.assign(v, like + 0.1)
    assert v.norm() == 2.0 * float(np.float32(0.1))
    assert vectors.view(v, like).dtype == like.dtype
    with pytest.raises(TypeError, match="as_vec got .*float32; .*assign"):
        vectors.as_vec(like)
    with pytest.raises(TypeError, match="editing got .*float32"), vectors.editing(v, like):
        pass


def test_strided_memory_is_refused(vectors):
    with pytest.raises(TypeError, match="contiguous"):
        vectors.as_vec(np.zeros(6)[::2])


def test_the_memory_of_a_view_with_a_sign_is_not_shared(vectors):
    u = torch.ops.aten._neg_view(torch.ones(4, dtype=torch.float64))
    with pytest.raises(TypeError, match="copy with assign"):
        vectors.as_vec(u)
    v = vectors.vec_like(u)
    vectors.assign(v, u)
    assert v.getArray().tolist() == [-1.0] * 4


def test_vecs_stay_what_they_are(vectors):
    v = vectors.vec_like(np.zeros(3))
    assert vectors.view(v, v) is v is vectors.as_vec(v)
    w = vectors.copy_of(v, v)
    w.set(1.0)
    vectors.assign(v, w)
    assert v.norm() == pytest.approx(3**0.5)
    with vectors.editing(v, v) as u:
        assert u is v
