"""What every linear smoother keeps: tested by the files of the smoothers that solve for parts."""

from importlib.util import find_spec

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mgnet import Level

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def tolerance(dtype):
    return 3e-4 if np.finfo(dtype).eps > 1e-10 else 1e-11


def drawn(n, dtype=float, seed=0, density=0.4):
    """Draw a sparse matrix that is neither symmetric nor singular, and two states."""
    draw = np.random.default_rng(seed)
    A = sp.random(n, n, density, random_state=draw).toarray()
    u, f = draw.standard_normal((2, n))
    if np.dtype(dtype).kind == "c":
        A = A + 1j * np.flip(A)
        u, f = u + 1j * f[::-1], f - 1j * u
    A = sp.csr_matrix((A + np.diag(draw.uniform(3, 4, n))).astype(dtype))
    return A, u.astype(dtype), f.astype(dtype)


def kinds_of_level(A, smoother, shape=()):
    """Make the same equation with matrices of several kinds, a function, an own residual."""
    n = A.shape[0]

    def residual(u, f):
        return (0 * u if f is None else f) - A @ u

    return {
        "csr": Level(A, smoother, shape=shape),
        "csc": Level(A.tocsc(), smoother, shape=shape),
        "coo": Level(A.tocoo(), smoother, shape=shape),
        "dense": Level(A.toarray(), smoother, shape=shape),
        "function": Level(
            lambda u: A @ u, smoother, linearize=lambda u: A, size=n, shape=shape, name="function"
        ),
        "residual": Level(A, smoother, residual=residual, shape=shape, name="residual"),
    }


def swept(smoother, level, u, f, sweeps=1):
    return smoother.smooth(level, u, f, sweeps, smoother.start(level, u))[0]


def check_laws(smoother, expected, n, shape=(), sweeps=2):
    """Compare with a dense form on all kinds of level, precisions and states.

    `expected(A, u, f)` is the state after one sweep, by dense linear algebra.
    """
    for dtype in DTYPES:
        A, u, f = drawn(n, dtype)
        near = {"rtol": tolerance(dtype), "atol": tolerance(dtype)}
        for kind, level in kinds_of_level(A, smoother, shape).items():
            for rhs in (f, None):
                for start in (u, 0 * u):
                    copies = start.copy(), f.copy(), A.toarray()
                    memory, dense = smoother.start(level, start), start
                    for _ in range(sweeps):
                        dense = expected(A.toarray(), dense, 0 * f if rhs is None else rhs)
                    before = level.tally[0]
                    result, memory = smoother.smooth(level, start, rhs, sweeps, memory)
                    assert result.dtype == dtype, (kind, dtype, result.dtype)
                    np.testing.assert_allclose(result, dense, **near, err_msg=f"{kind} {dtype}")
                    if rhs is not None:
                        work = level.tally[0] - before
                        assert abs(work - smoother.work(level, sweeps)) < 1e-12, (kind, work)
                    for old, new in zip(copies, (start, f, A.toarray()), strict=True):
                        np.testing.assert_array_equal(old, new)
                    assert not np.shares_memory(result, start)
                    again = smoother.smooth(level, start, rhs, sweeps, memory)[0]
                    np.testing.assert_array_equal(again, result)
        level = kinds_of_level(A, smoother, shape)["csr"]
        fixed = swept(smoother, level, u, A @ u, 3)
        np.testing.assert_allclose(fixed, u, **near)
    _check_tensors(smoother, expected, n, shape)
    _check_mixed(smoother, expected, n, shape)
    check_vecs(smoother, n, shape)
    check_units(smoother, n, shape)
    check_that_nan_is_refused(smoother, n, shape)


def _check_tensors(smoother, expected, n, shape):
    A, u, f = drawn(n)
    dense = expected(A.toarray(), u, f)
    T = torch.tensor(A.toarray())
    for level in (Level(T, smoother, shape=shape), Level(T.to_sparse(), smoother, shape=shape)):
        result = swept(smoother, level, torch.tensor(u), torch.tensor(f))
        assert isinstance(result, torch.Tensor)
        np.testing.assert_allclose(result.numpy(), dense, rtol=1e-11, atol=1e-11)


def check_vecs(smoother, n, shape=()):
    """PETSc's Mat and Vec give what SciPy's matrix and arrays give, where PETSc is installed."""
    if find_spec("petsc4py") is None:
        return
    from petsc4py import PETSc

    A, u, f = drawn(n)
    mat = PETSc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data))
    states = mat.createVecLeft(), mat.createVecLeft()
    for vec, values in zip(states, (u, f), strict=True):
        vec.setArray(values)
    result = swept(smoother, Level(mat, smoother, shape=shape), *states, 2)
    expected = swept(smoother, Level(A, smoother, shape=shape), u, f, 2)
    assert isinstance(result, PETSc.Vec)
    np.testing.assert_allclose(result.getArray(), expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(states[0].getArray(), u)


def check_that_nan_is_refused(smoother, n, shape=()):
    for value in (np.nan, np.inf):
        A, u, _ = drawn(n)
        A.data[n // 2] = value
        level = Level(A, smoother, shape=shape, name="level 4")
        with pytest.raises(ValueError, match="on level 4: the matrix has entries that are not fin"):
            smoother.start(level, u)


def check_units(smoother, n, shape=()):
    """Other units of unknowns and equations, from 2^-25 to 2^25, change no digit but rounding."""
    A, u, f = drawn(n)
    draw = np.random.default_rng(3)
    rows, columns = 2.0 ** draw.integers(-25, 26, (2, n))
    scaled = sp.csr_matrix(sp.diags(rows) @ A @ sp.diags(columns))
    result = swept(smoother, Level(scaled, smoother, shape=shape), u / columns, rows * f, 2)
    expected = swept(smoother, Level(A, smoother, shape=shape), u, f, 2)
    np.testing.assert_allclose(result * columns, expected, rtol=1e-10, atol=1e-10)


def _check_mixed(smoother, expected, n, shape):
    """A complex right-hand side or state of a real matrix, and the other way round."""
    real, complex_ = drawn(n), drawn(n, complex)
    for A, u, f in (
        (real[0], complex_[1], complex_[2]),
        (complex_[0], complex_[1], real[2]),
        (sp.csr_matrix((2 * real[0]).astype(int) + 3 * sp.eye(n, dtype=int)), real[1], real[2]),
    ):
        A.eliminate_zeros()
        level = Level(A, smoother, shape=shape)
        dense = expected(A.toarray(), u, f)
        result = swept(smoother, level, u, f)
        assert result.dtype == np.result_type(u, float)
        np.testing.assert_allclose(result, dense, rtol=1e-11, atol=1e-11)
