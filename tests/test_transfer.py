"""Transfers are matrices: adjoint pairs, exact on polynomials, equal to Kronecker products."""

import itertools
from functools import reduce

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgnet import (
    AxisTransfer,
    Injection,
    MatrixTransfer,
    PackedTransfer,
    interpolation_matrix,
)

seeds = st.integers(0, 2**32 - 1)


@st.composite
def grids(draw):
    """Draw arguments of `interpolation_matrix`, all valid."""
    boundary = draw(st.sampled_from(["zero", "open"]))
    degree = draw(st.integers(1, 4))
    least = max(1, degree + 1 - (2 if boundary == "zero" else 0))
    coarse = draw(st.integers(least, least + 6))
    return coarse, draw(st.integers(2, 5)), degree, boundary


def adjoint(transfer, fine, coarse, seed):
    """Tell whether <R r, w> = <r, P w> for a random r and w."""
    generator = np.random.default_rng(seed)
    r, w = generator.standard_normal(fine), generator.standard_normal(coarse)
    left, right = np.vdot(transfer.restrict(r), w), np.vdot(r, transfer.prolong(w))
    return abs(left - right) <= 1e-12 * max(np.linalg.norm(r) * np.linalg.norm(w), 1.0)


# Matrices ------------------------------------------------------------------------------------


@given(grids(), seeds)
def test_restriction_is_the_transpose(grid, seed):
    P = interpolation_matrix(*grid)
    for matrix in (P, P.toarray(), sp.csc_matrix(P)):
        transfer = MatrixTransfer(matrix)
        assert transfer.adjoint
        assert adjoint(transfer, P.shape[0], P.shape[1], seed)


def test_each_matrix_of_a_matrix_transfer_does_its_part():
    P, R, Q, J = (np.full(shape, k) for k, shape in enumerate([(3, 1), (1, 3), (3, 1), (1, 3)], 2))
    transfer = MatrixTransfer(P, R, injection=J, interpolation=Q)
    assert not transfer.adjoint
    np.testing.assert_array_equal(transfer.prolong(np.ones(1)), P[:, 0])
    np.testing.assert_array_equal(transfer.restrict(np.ones(3)), [9])
    np.testing.assert_array_equal(transfer.interpolate(np.ones(1)), Q[:, 0])
    np.testing.assert_array_equal(transfer.inject(np.ones(3)), [15])
    assert MatrixTransfer(P).inject is None
    np.testing.assert_array_equal(MatrixTransfer(P).interpolate(np.ones(1)), P[:, 0])
    assert str(transfer) == "MatrixTransfer"


def test_a_function_needs_its_restriction():
    transfer = MatrixTransfer(lambda u: np.repeat(u, 2))
    np.testing.assert_array_equal(transfer.prolong(np.ones(1)), [1, 1])
    assert str(transfer) == "MatrixTransfer"
    with pytest.raises(TypeError, match="type function, which has no transpose .* give .* `R`"):
        transfer.restrict(np.ones(2))


# Axes ----------------------------------------------------------------------------------------


def kronecker(matrices):
    return reduce(np.kron, [matrix.toarray() for matrix in matrices])


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.data(),
    st.integers(2, 3),
    seeds,
)
def test_an_axis_transfer_is_a_kronecker_product(shape, data, factor, seed):
    axis = data.draw(st.integers(0, len(shape) - 1))
    P = interpolation_matrix(shape[axis], factor)
    R = interpolation_matrix(shape[axis], factor).T.tocsr() * 0.5
    transfer = AxisTransfer(P, axis, injection=R)
    fine = [*shape[:axis], P.shape[0], *shape[axis + 1 :]]
    factors = [P if k == axis else sp.eye(n) for k, n in enumerate(shape)]
    u = np.random.default_rng(seed).standard_normal(shape)
    v = np.random.default_rng(seed).standard_normal(fine)

    assert transfer.fine_shape(tuple(shape)) == tuple(fine)
    dense = kronecker(factors)
    for up in (transfer.prolong, transfer.interpolate):
        assert up(u).shape == tuple(fine)
        np.testing.assert_allclose(up(u).ravel(), dense @ u.ravel(), atol=1e-13)
    assert transfer.restrict(v).shape == tuple(shape)
    np.testing.assert_allclose(transfer.restrict(v).ravel(), dense.T @ v.ravel(), atol=1e-13)
    np.testing.assert_allclose(transfer.inject(v).ravel(), 0.5 * dense.T @ v.ravel(), atol=1e-13)
    assert transfer.adjoint and adjoint(transfer, fine, shape, seed)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3), 2)))
def test_two_axes(axes):
    shape = (2, 3, 4)
    matrices = [interpolation_matrix(shape[axis], boundary="open") for axis in axes]
    transfer = AxisTransfer(tuple(matrices), axes)
    factors = [sp.eye(n) for n in shape]
    for matrix, axis in zip(matrices, axes, strict=True):
        factors[axis] = matrix
    u = np.random.default_rng(0).standard_normal(shape)
    fine = transfer.prolong(u)
    assert fine.shape == transfer.fine_shape(shape)
    np.testing.assert_allclose(fine.ravel(), kronecker(factors) @ u.ravel(), atol=1e-14)
    assert adjoint(transfer, fine.shape, shape, 1)


def test_each_matrix_of_an_axis_transfer_does_its_part():
    P = interpolation_matrix(2)
    transfer = AxisTransfer(P, 1, R=2 * P.T, interpolation=3 * P)
    u = np.ones((1, 2))
    assert not transfer.adjoint and transfer.inject is None
    np.testing.assert_allclose(transfer.interpolate(u), 3 * transfer.prolong(u))
    v = np.arange(5.0)[None]
    np.testing.assert_allclose(transfer.restrict(v), 2 * AxisTransfer(P, 1).restrict(v))
    assert str(transfer) == "AxisTransfer on axis 1"


def dense_tensor(matrix):
    return torch.tensor(matrix.toarray())


def sparse_tensor(matrix):
    return dense_tensor(matrix).to_sparse()


@pytest.mark.parametrize("to_torch", [dense_tensor, sparse_tensor])
@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2)])
def test_torch_gives_what_numpy_gives(to_torch, axis):
    shape = (3, 2, 3)
    P = interpolation_matrix(2 if axis == 1 else 3)
    several = isinstance(axis, tuple)
    ours = AxisTransfer((P, P) if several else P, axis)
    theirs = AxisTransfer((to_torch(P), to_torch(P)) if several else to_torch(P), axis)
    u = np.random.default_rng(0).standard_normal(shape)
    v = np.random.default_rng(1).standard_normal(ours.fine_shape(shape))
    for method, state in (("prolong", u), ("interpolate", u), ("restrict", v)):
        result = getattr(theirs, method)(torch.tensor(state))
        assert isinstance(result, torch.Tensor) and result.dtype == torch.float64
        np.testing.assert_allclose(result.numpy(), getattr(ours, method)(state), atol=1e-14)


@pytest.mark.parametrize("shape", [(2,), (4, 2), (2, 4)])
def test_an_axis_of_another_length_is_refused(shape):
    transfer = AxisTransfer(interpolation_matrix(3), axis=1)
    with pytest.raises(ValueError, match=r"got a state of shape .*; axis 1 must have length 3"):
        transfer.prolong(np.ones(shape))


# Packed arrays -------------------------------------------------------------------------------


def packed(matrix=lambda matrix: matrix):
    """Make a packed transfer and its three pieces; the middle one is the same on both levels."""
    P, Q = interpolation_matrix(3), interpolation_matrix(2, boundary="open")
    J, K, twice, P, Q = (matrix(M) for M in (0.5 * P.T.tocsr(), Q.T.tocsr(), 2 * P, P, Q))
    pieces = [
        AxisTransfer(P, 1, injection=J, interpolation=twice),
        None,
        AxisTransfer((Q, Q), (0, 1), injection=(K, K)),
    ]
    shapes = [(2, 3, 2), (4,), (2, 2)]
    return PackedTransfer(tuple(zip(shapes, pieces, strict=True))), pieces, shapes


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
@pytest.mark.parametrize("method", ["prolong", "interpolate", "restrict", "inject"])
def test_a_packed_transfer_is_its_pieces(method, kind):
    transfer = packed(dense_tensor if kind is torch.tensor else sp.csr_matrix)[0]
    _, pieces, shapes = packed()
    if method in ("restrict", "inject"):
        shapes = [s if t is None else t.fine_shape(s) for t, s in zip(pieces, shapes, strict=True)]
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal(shape) for shape in shapes]
    expected = [
        a if t is None else getattr(t, method)(a) for t, a in zip(pieces, arrays, strict=True)
    ]
    flat = np.concatenate([a.ravel() for a in arrays])
    result = getattr(transfer, method)(kind(flat))
    assert type(result) is type(kind(flat))
    np.testing.assert_allclose(
        np.asarray(result), np.concatenate([a.ravel() for a in expected]), atol=1e-14
    )


def test_a_packed_transfer_is_adjoint_where_its_pieces_are():
    transfer, _, shapes = packed()
    coarse = sum(int(np.prod(s)) for s in shapes)
    assert transfer.adjoint
    assert adjoint(transfer, transfer.prolong(np.ones(coarse)).shape, coarse, 0)
    P = interpolation_matrix(2)
    assert not PackedTransfer((((2,), AxisTransfer(P, R=P.T)),)).adjoint
    assert PackedTransfer((((2,), AxisTransfer(P)), ((1,), None))).inject is None
    assert str(transfer) == "PackedTransfer of 3 arrays"


@pytest.mark.parametrize("size", [19, 21])
def test_a_packed_state_of_another_length_is_refused(size):
    transfer, _, shapes = packed()
    assert sum(int(np.prod(s)) for s in shapes) == 20
    with pytest.raises(ValueError, match=rf"PackedTransfer.prolong got a state of {size} entries"):
        transfer.prolong(np.ones(size))


# Injection -----------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(2, 6), st.sampled_from([(), (2,), (2, 3)]), seeds)
def test_injection(size, factor, rest, seed):
    transfer = Injection(size, factor)
    points = list(range(0, size, factor))  # the last interval may be short
    S = np.eye(size)[points]
    u = np.random.default_rng(seed).standard_normal((size, *rest))
    w = np.random.default_rng(seed).standard_normal((len(points), *rest))
    np.testing.assert_allclose(transfer.inject(u), np.tensordot(S, u, 1))
    np.testing.assert_allclose(transfer.restrict(u), np.tensordot(S, u, 1))
    np.testing.assert_allclose(transfer.prolong(w), np.tensordot(S.T, w, 1))
    np.testing.assert_array_equal(transfer.inject(transfer.prolong(w)), w)
    assert adjoint(transfer, (size, *rest), (len(points), *rest), seed)


def test_injection_of_tensors_keeps_their_kind():
    coarse = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    fine = Injection(4, 3).prolong(coarse)
    assert fine.dtype == torch.float32
    assert fine.tolist() == [[1, 2], [0, 0], [0, 0], [3, 4]]


@pytest.mark.parametrize(("method", "length", "right"), [("inject", 6, 7), ("prolong", 2, 3)])
def test_injection_refuses_a_state_of_another_length(method, length, right):
    with pytest.raises(ValueError, match=f"got a state of {length} entries.*must have {right}"):
        getattr(Injection(7, 3), method)(np.ones(length))


@pytest.mark.parametrize(("matrices", "axis"), [(1, -1), (2, (0, 1, 2)), (2, (0, -1))])
def test_an_axis_transfer_needs_one_matrix_per_axis(matrices, axis):
    P = interpolation_matrix(3)
    with pytest.raises(ValueError, match="give one matrix per axis, axes counted from 0"):
        AxisTransfer(P if matrices == 1 else (P,) * matrices, axis=axis)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, sp.csr_matrix.toarray])
def test_a_correction_is_added_to_a_new_state(kind):
    P, u, w = interpolation_matrix(3), np.arange(7.0), np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(MatrixTransfer(kind(P)).correct(u, w), u + P @ w)
    np.testing.assert_array_equal(u, np.arange(7.0))


@pytest.mark.parametrize("arguments", [(0, 2), (5, 1)])
def test_injection_refuses(arguments):
    with pytest.raises(ValueError, match="Injection got size .* the factor at least 2"):
        Injection(*arguments)


def test_nothing_that_is_given_is_edited():
    P = interpolation_matrix(3)
    J = 0.5 * P.T.tocsr()
    for transfer in (
        MatrixTransfer(P, injection=J),
        AxisTransfer(P, injection=J),
        PackedTransfer((((3,), AxisTransfer(P, injection=J)),)),
        Injection(7, 3),
    ):
        for method, size in (("prolong", 3), ("interpolate", 3), ("restrict", 7), ("inject", 7)):
            state = np.arange(float(size))
            getattr(transfer, method)(state)
            np.testing.assert_array_equal(state, np.arange(float(size)))


def test_gradients_go_up_as_parts_of_the_coarse_one():
    """Their restriction is the gradient they came from, whichever way they are shared out."""
    P = np.repeat(np.eye(3), 2, axis=0)
    first = P * np.array([1.0, 0.0] * 3)[:, None]
    shared, chosen = AxisTransfer(P), AxisTransfer(P, gradients=first)
    g = np.array([1.0, -2.0, 4.0])
    np.testing.assert_array_equal(shared.carry_gradient(g), np.repeat(g / 2, 2))
    np.testing.assert_array_equal(shared.carry_gradient(g**2, 2), np.repeat(g / 2, 2) ** 2)
    np.testing.assert_array_equal(chosen.carry_gradient(g), [1.0, 0.0, -2.0, 0.0, 4.0, 0.0])
    packed = PackedTransfer((((3,), shared), ((1,), None), ((3,), chosen)))
    u = np.concatenate([g, [7.0], g])
    for power in (1, 2):
        parts = shared.carry_gradient(g, power), [7.0], chosen.carry_gradient(g, power)
        np.testing.assert_array_equal(packed.carry_gradient(u, power), np.concatenate(parts))
    np.testing.assert_allclose(packed.restrict(packed.carry_gradient(u)), u)
    weighted = AxisTransfer(P, gradients=0.5 * P)
    np.testing.assert_array_equal(weighted.carry_gradient(g**2, 2), np.repeat(g / 2, 2) ** 2)
