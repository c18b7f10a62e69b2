"""Operations on states give the same numbers for NumPy arrays, torch tensors and PETSc Vecs."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mgnet import vector

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def numpy_state(dtype):
    return lambda values: np.array(values, dtype=dtype)


def torch_state(dtype, device="cpu"):
    return lambda values: torch.tensor(values, dtype=dtype, device=device)


KINDS = [
    pytest.param(numpy_state(np.float64), 1e-15, id="numpy-float64"),
    pytest.param(numpy_state(np.float32), 1e-6, id="numpy-float32"),
    pytest.param(torch_state(torch.float64), 1e-15, id="torch-float64"),
    pytest.param(torch_state(torch.float32), 1e-6, id="torch-float32"),
    pytest.param(torch_state(torch.float32, "cuda"), 1e-6, id="cuda-float32", marks=CUDA),
]
kinds = pytest.mark.parametrize(("make", "tolerance"), KINDS)
shapes = pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3)])


def values_of(shape):
    return np.random.default_rng(7).standard_normal(shape)


def same_kind(u, v):
    assert type(u) is type(v)
    assert u.dtype == v.dtype
    assert getattr(u, "device", None) == getattr(v, "device", None)
    assert u is not v


@kinds
@shapes
def test_new_and_joined_states(make, tolerance, shape):
    u = make(values_of(shape))
    for new, expected in ((vector.empty_like(u), shape), (vector.empty_like(u, (4, 1)), (4, 1))):
        same_kind(new, u)
        assert tuple(new.shape) == expected
    parts = [make(values_of((k, *shape))) for k in (1, 2)]
    joined = vector.join(parts)
    same_kind(joined, parts[0])
    assert (joined[:1] == parts[0]).all() and (joined[1:] == parts[1]).all() and len(joined) == 3


@kinds
@shapes
def test_dot_and_norm(make, tolerance, shape):
    a, b = values_of(shape), values_of(shape)[::-1]
    dot, norm = vector.dot(make(a), make(b.copy())), vector.norm(make(a))
    assert isinstance(dot, float) and isinstance(norm, float)
    assert dot == pytest.approx(np.sum(a * b), rel=tolerance, abs=tolerance)
    assert norm == pytest.approx(np.linalg.norm(a.ravel()), rel=tolerance)


def test_float32_tensors_are_summed_in_float64():
    ones = torch.full((10**6,), 0.1, dtype=torch.float32)
    exact = 1e6 * float(np.float32(0.1)) ** 2
    # A processor that adds the terms one by one errs by 1e6 roundings at most, not 1e-7.
    assert vector.dot(ones, ones) == pytest.approx(exact, rel=1e6 * np.finfo(float).eps)
    assert vector.norm(ones) ** 2 == pytest.approx(exact, rel=1e-10)
    assert np.isfinite(vector.norm(torch.tensor([1e30], dtype=torch.float32)))


def test_complex_arrays():
    u, v = np.array([1 + 2j, 3j]), np.array([2 - 1j, 1.0])
    assert vector.dot(u, v) == pytest.approx(np.sum(np.conj(u) * v).real)
    assert vector.norm(u) == pytest.approx(np.linalg.norm(u))
    t = torch.tensor(u)
    assert vector.norm(t) == pytest.approx(np.linalg.norm(u))


@kinds
@shapes
def test_states_like_another(make, tolerance, shape):
    u = make(values_of(shape))
    for v, expected in (
        (vector.zeros_like(u), np.zeros(shape)),
        (vector.zeros_like(u, (4, 2)), np.zeros((4, 2))),
        (vector.like(np.arange(6), u), np.arange(6).reshape(shape)),
        (
            vector.random_like(u, np.random.default_rng(3)),
            np.random.default_rng(3).standard_normal(shape),
        ),
    ):
        same_kind(v, u)
        np.testing.assert_allclose(vector.as_numpy(v), expected, rtol=tolerance)
    np.testing.assert_allclose(vector.as_numpy(u), values_of(shape), rtol=tolerance)


def test_a_state_like_another_shares_no_memory():
    values = np.ones(3)
    v = vector.like(values, np.zeros(3))
    v[0] = 7.0
    assert values[0] == 1.0


@kinds
def test_concatenate(make, tolerance):
    parts = [np.arange(2.0), np.arange(6.0).reshape(2, 3), np.ones((1, 1, 1))]
    flat = vector.concatenate([make(part) for part in parts])
    same_kind(flat, make([0.0]))
    expected = np.concatenate([part.ravel() for part in parts])
    np.testing.assert_array_equal(vector.as_numpy(flat), expected)


@kinds
@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered")
@pytest.mark.parametrize(
    ("entries", "finite"),
    [
        ([1.0, -2.0], True),
        ([0.0, np.nan], False),
        ([np.inf, 0.0], False),
        ([np.inf, -np.inf], False),
        ([[1.0], [-np.inf]], False),
    ],
)
def test_is_finite(make, tolerance, entries, finite):
    assert vector.is_finite(make(entries)) is finite


@kinds
def test_as_numpy_of_a_state_that_needs_a_gradient(make, tolerance):
    u = make([1.0, 2.0])
    if isinstance(u, torch.Tensor):
        u.requires_grad_()
    assert vector.as_numpy(u).tolist() == [1.0, 2.0]
    assert vector.dot(u, u) == 5.0 and vector.norm(u) == pytest.approx(5.0**0.5)


def views_of(values):
    """The kinds of view that a torch tensor can be, each of the given complex numbers."""
    z = torch.tensor(values)
    yield "plain", z
    yield "conjugate", z.conj().resolve_conj().conj()
    yield "negative", torch.ops.aten._neg_view(-z)
    yield "both", torch.ops.aten._neg_view(-z.conj().resolve_conj()).conj()
    yield "leaf", z.clone().requires_grad_()
    yield "strided", torch.stack([z, z], 1)[:, 0]
    for part in ("real", "imag"):
        yield part, getattr(z.conj(), part)
        yield f"{part} of a leaf", getattr(z.clone().requires_grad_().conj(), part)


@pytest.mark.parametrize("seed", range(3))
def test_views_of_tensors_are_what_numpy_has(seed):
    draw = np.random.default_rng(seed)
    values, others = (draw.standard_normal(5) + 1j * draw.standard_normal(5) for _ in range(2))
    kinds = set()
    for name, u in views_of(values):
        part = name.split()[0]
        expected = getattr(values.conj(), part) if part in ("real", "imag") else values
        kinds.add((u.is_conj(), u.is_neg(), u.requires_grad))
        np.testing.assert_array_equal(vector.as_numpy(u), expected, name)
        assert vector.norm(u) == pytest.approx(np.linalg.norm(expected)), name
        assert vector.dot(u, u) == pytest.approx(np.linalg.norm(expected) ** 2), name
        assert vector.is_finite(u) and vector.dtype_of(u) == expected.dtype, name
        given = others[::-1] if u.is_complex() else others.real[::-1]
        copy = vector.like(given, u)
        np.testing.assert_array_equal(copy.numpy(), given, name)
        np.testing.assert_array_equal(vector.like(u, u).numpy(), expected, name)
        np.testing.assert_array_equal(vector.like(u, given), expected, name)
        np.testing.assert_array_equal(vector.as_scipy(u.expand(2, 5))[1], expected, name)
    assert len(kinds) == 6


class Remote(torch.Tensor):
    """A tensor whose entries must not come to the host."""

    def cpu(self, *_):
        raise AssertionError("a state was copied")

    numpy = cpu  # type: ignore[assignment]


def test_shape_and_precision_copy_nothing():
    u = torch.zeros(2, 3, dtype=torch.complex64).as_subclass(Remote)
    with pytest.raises(AssertionError):
        vector.as_numpy(u)
    assert vector.state_shape(u) == (2, 3) and vector.dtype_of(u) == np.complex64
    drawn = vector.random_like(u, np.random.default_rng(0))
    expected = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(drawn.real.numpy(), expected)


@pytest.mark.parametrize("u", [[1.0], 1.0, None, "u", sp.eye(2)])
@pytest.mark.parametrize(
    "operation",
    [
        lambda u: vector.dot(u, u),
        vector.norm,
        vector.zeros_like,
        vector.as_numpy,
        lambda u: vector.like(np.ones(1), u),
        lambda u: vector.random_like(u, np.random.default_rng(0)),
    ],
    ids=["dot", "norm", "zeros_like", "as_numpy", "like", "random_like"],
)
def test_other_kinds_are_refused(operation, u):
    refusal = f"state has the type {type(u).__name__}; a state must be a NumPy array, a torch"
    with pytest.raises(TypeError, match=refusal):
        operation(u)


# Matrices ------------------------------------------------------------------------------------


def test_apply():
    A = np.array([[1.0, 2.0], [3.0, 4.0]])
    u = np.array([1.0, -1.0])
    for operator in (A, sp.csr_matrix(A), sp.linalg.aslinearoperator(A), lambda u: A @ u):
        np.testing.assert_array_equal(vector.apply(operator, u), [-1.0, -1.0])
    np.testing.assert_array_equal(vector.apply(torch.tensor(A), torch.tensor(u)), [-1.0, -1.0])


DENSE = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])


@pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC) tensor support")
@pytest.mark.parametrize(
    "make",
    [
        sp.csr_matrix,
        sp.csc_matrix,
        sp.coo_matrix,
        sp.dia_matrix,
        sp.csr_array,
        lambda A: torch.tensor(A).to_sparse(),
        lambda A: torch.tensor(A).to_sparse_csr(),
        lambda A: torch.tensor(A).to_sparse_csc(),
    ],
    ids=["csr", "csc", "coo", "dia", "array", "torch-coo", "torch-csr", "torch-csc"],
)
def test_sparse_matrices_as_scipy(make):
    result = vector.as_scipy(make(DENSE))
    assert sp.issparse(result) and result.format == "csr"
    np.testing.assert_array_equal(result.toarray(), DENSE)


def test_dense_matrices_as_scipy():
    assert vector.as_scipy(DENSE) is DENSE
    result = vector.as_scipy(torch.tensor(DENSE, requires_grad=True))
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, DENSE)


@pytest.mark.parametrize("matrix", [abs, sp.linalg.aslinearoperator(DENSE), None])
def test_a_matrix_without_entries_is_refused(matrix):
    with pytest.raises(
        TypeError, match=f"matrix has the type {type(matrix).__name__}; the entries"
    ):
        vector.as_scipy(matrix)


# PETSc ---------------------------------------------------------------------------------------


@pytest.fixture
def vec(petsc):
    def make(values):
        return petsc.Vec().createWithArray(np.array(values, float), comm=petsc.COMM_SELF)

    return make


def test_petsc_vecs(vec, petsc):
    a, b = values_of(6), values_of(6)[::-1].copy()
    u, v = vec(a), vec(b)
    assert vector.is_vec(u) and not vector.is_tensor(u) and not vector.is_vec(a)
    assert vector.dot(u, v) == pytest.approx(a @ b)
    assert vector.norm(u) == pytest.approx(np.linalg.norm(a))
    assert vector.is_finite(u) and not vector.is_finite(vec([0.0, np.nan]))
    np.testing.assert_array_equal(vector.as_numpy(u), a)
    for w, expected in (
        (vector.zeros_like(u), np.zeros(6)),
        (vector.like(np.arange(6), u), np.arange(6)),
        (
            vector.random_like(u, np.random.default_rng(3)),
            np.random.default_rng(3).standard_normal(6),
        ),
    ):
        assert isinstance(w, petsc.Vec)
        np.testing.assert_allclose(w.getArray(), expected)
    np.testing.assert_array_equal(u.getArray(), a)


def test_petsc_mats(petsc):
    A = sp.csr_matrix(DENSE)
    mat = petsc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data), comm=petsc.COMM_SELF)
    result = vector.as_scipy(mat)
    assert result.format == "csr"
    np.testing.assert_array_equal(result.toarray(), DENSE)
