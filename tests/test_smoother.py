"""Each smoother is its matrix form; the exact solution is its fixed point; nothing is edited."""

import numpy as np
import pytest
import scipy.linalg as la
import scipy.sparse as sp
import torch

from mgnet import (
    Chebyshev,
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Krylov,
    Level,
    Smoother,
    Solver,
    gallery,
    kernels,
)
from mgnet.fourth_kind import _optimal_roots
from tests.smoother_laws import check_that_nan_is_refused, check_vecs

SMOOTHERS = [
    Jacobi(),
    Jacobi(0.9),
    GaussSeidel(),
    GaussSeidel("backward"),
    GaussSeidel("symmetric"),
    Chebyshev(1),
    Chebyshev(3),
    Chebyshev(3, kind="fourth"),
    Chebyshev(1, kind="opt_fourth"),
    Chebyshev(4, kind="opt_fourth"),
    Direct(),
    Direct("pinv"),
    *(Krylov(method, iterations=4) for method in ("cg", "gmres", "bicgstab", "minres")),
]
smoothers = pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)


def spd(n=12, seed=0):
    """Make a symmetric positive definite matrix with a diagonal that varies."""
    generator = np.random.default_rng(seed)
    B = sp.random(n, n, 0.3, random_state=generator)
    return sp.csr_matrix(B @ B.T + sp.diags(generator.uniform(1, 3, n)))


def states(n=12, seed=1):
    generator = np.random.default_rng(seed)
    return generator.standard_normal(n), generator.standard_normal(n)


def smooth(smoother, level, u, f, sweeps=1):
    return smoother.smooth(level, u, f, sweeps, smoother.start(level, u))[0]


def kinds_of_level(A, smoother):
    """Make the same equation with matrices of three kinds, a function, a residual of its own."""
    return {
        "csr": Level(A, smoother),
        "csc": Level(A.tocsc(), smoother),
        "dense": Level(A.toarray(), smoother),
        "function": Level(lambda u: A @ u, smoother, linearize=lambda u: A, size=A.shape[0]),
        "residual": Level(A, smoother, residual=lambda u, f: (0 * u if f is None else f) - A @ u),
    }


KINDS = ["csr", "csc", "dense", "function", "residual"]
kinds = pytest.mark.parametrize("kind", KINDS)


# Matrix forms --------------------------------------------------------------------------------


def splitting(smoother, A):
    """List the matrices M of the half sweeps u + M^-1 (f - A u)."""
    if isinstance(smoother, Jacobi):
        return [np.diag(np.diag(A)) / smoother.omega]
    if isinstance(smoother, Direct):
        return [A]
    parts = {"forward": [np.tril(A)], "backward": [np.triu(A)]}
    parts["symmetric"] = parts["forward"] + parts["backward"]
    return parts[smoother.direction]


@kinds
@pytest.mark.parametrize("numba", [True, False], ids=["numba", "SciPy"])
@pytest.mark.parametrize("smoother", SMOOTHERS[:5] + SMOOTHERS[10:12], ids=str)
@pytest.mark.parametrize("with_f", [True, False], ids=["f", "no f"])
@pytest.mark.parametrize("sweeps", [1, 3])
def test_a_stationary_smoother_is_its_splitting(monkeypatch, smoother, kind, numba, with_f, sweeps):
    if not numba:
        monkeypatch.setattr(kernels, "available", False)
    A, (u, f) = spd(), states()
    f = f if with_f else None
    expected = u
    for _ in range(sweeps):
        for M in splitting(smoother, A.toarray()):
            r = (0.0 if f is None else f) - A @ expected
            expected = expected + np.linalg.solve(M, r)
    result = smooth(smoother, kinds_of_level(A, smoother)[kind], u, f, sweeps)
    np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("smoother", [Jacobi(), GaussSeidel("symmetric"), Chebyshev(), Direct()])
def test_an_integer_matrix(smoother):
    A, (u, f) = sp.csr_matrix([[2, -1], [-1, 2]]), states(2)
    expected = smooth(smoother, Level(A.astype(float), smoother), u, f)
    np.testing.assert_allclose(smooth(smoother, Level(A, smoother), u, f), expected, rtol=1e-14)


@kinds
@pytest.mark.parametrize("degree", [1, 2, 3, 6])
@pytest.mark.parametrize(("lower", "upper"), [(0.1, 1.1), (0.3, 1.0)])
def test_chebyshev_is_its_error_polynomial(kind, degree, lower, upper):
    A, (u, f) = spd(), states()
    smoother = Chebyshev(degree, lower, upper)
    level = kinds_of_level(A, smoother)[kind]
    memory = smoother.start(level, u)
    largest = memory[1]
    exact = np.linalg.solve(A.toarray(), f)
    # In the eigenvectors of D^-1 A the error is multiplied by T_m((c - x) / r) / T_m(c / r).
    values, vectors = la.eigh(A.toarray(), np.diag(A.diagonal()))
    centre, radius = (upper + lower) * largest / 2, (upper - lower) * largest / 2
    T = np.polynomial.Chebyshev.basis(degree)
    for sweeps in (1, 2):
        factor = (T((centre - values) / radius) / T(centre / radius)) ** sweeps
        coefficients = la.solve(vectors, u - exact)
        expected = exact + vectors @ (factor * coefficients)
        result, _ = smoother.smooth(level, u, f, sweeps, memory)
        np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-11)


@kinds
@pytest.mark.parametrize("numba", [True, False], ids=["numba", "SciPy"])
@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("degree", [1, 2, 3, 6])
@pytest.mark.parametrize("name", ["fourth", "opt_fourth"])
def test_the_fourth_kind_is_its_error_polynomial(monkeypatch, name, degree, dtype, numba, kind):
    monkeypatch.setattr(kernels, "available", numba and kernels.available)
    A, (u, f) = spd(), states()
    if dtype is complex:
        phases = sp.diags(np.exp(1j * np.arange(12)))
        A, u = sp.csr_matrix(phases @ A @ phases.conj()), u + 1j * f
        f = f + 0j
    smoother = Chebyshev(degree, kind=name, upper=1.2)
    level = kinds_of_level(A, smoother)[kind]
    memory = smoother.start(level, u)
    exact = np.linalg.solve(A.toarray(), f)
    values, vectors = la.eigh(A.toarray(), np.diag(A.diagonal()))
    x = values / (1.2 * memory[1])
    if name == "fourth":
        angle = np.arccos(1 - 2 * x)
        p = np.sin((degree + 0.5) * angle) / np.sin(angle / 2) / (2 * degree + 1)
    else:
        p = np.prod(1 - x[:, None] / _optimal_roots(degree), axis=1)
    for start in (u, 0 * u):
        for sweeps in (1, 2):
            expected = exact + vectors @ (p**sweeps * la.solve(vectors, start - exact))
            result, _ = smoother.smooth(level, start, f, sweeps, memory)
            assert result.dtype == dtype
            np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["first", "fourth", "opt_fourth"])
def test_chebyshev_of_vecs_and_of_nan(kind):
    check_vecs(Chebyshev(3, kind=kind), 12)
    check_that_nan_is_refused(Chebyshev(3, kind=kind), 12)


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_the_eigenvalue_of_a_small_level_is_exact(n):
    A = gallery.poisson(n, levels=1)[0].matrix
    largest = la.eigvalsh(A.toarray(), np.diag(A.diagonal())).max()
    for dtype, tolerance in ((float, 1e-12), (np.float32, 1e-5)):
        level = Level(A.astype(dtype), Chebyshev())
        estimate = Chebyshev().start(level, np.zeros(n, dtype))[1]
        assert estimate == pytest.approx(largest, rel=tolerance)


@pytest.mark.parametrize(
    "A",
    [gallery.poisson(63)[0].matrix, gallery.poisson((31, 31))[0].matrix, spd(200)],
    ids=["1-D", "2-D", "random"],
)
def test_the_eigenvalue_estimate(A):
    largest = la.eigvals(A.toarray() / A.diagonal()[:, None]).real.max()
    level = Level(A, Chebyshev())
    u = np.zeros(A.shape[0])
    assert Chebyshev().start(level, u)[1] == pytest.approx(largest, rel=0.06)
    assert Chebyshev(steps=40).start(level, u)[1] == pytest.approx(largest, rel=0.005)
    # The interval of the smoother contains the eigenvalue, so no mode grows.
    assert Chebyshev().upper * Chebyshev().start(level, u)[1] > largest
    same, other = (Chebyshev(seed=seed).start(level, u)[1] for seed in (0, 1))
    assert same == Chebyshev().start(level, u)[1] != other


# Nonlinear levels ----------------------------------------------------------------------------


def cubic(smoother, n=7):
    return gallery.reaction(n, levels=1, coarse_solver=smoother)[0]


@pytest.mark.parametrize("smoother", [Jacobi(), GaussSeidel("symmetric"), Chebyshev(2)], ids=str)
def test_relaxation_of_a_nonlinear_level_has_its_solution_as_fixed_point(smoother):
    level, (u, _) = cubic(smoother), states(7)
    f = level.operator(u)
    np.testing.assert_allclose(smooth(smoother, level, u, f, 3), u, rtol=1e-12)
    start = u + 0.01
    before, after = (np.linalg.norm(v - u) for v in (start, smooth(smoother, level, start, f, 5)))
    assert after < 0.9 * before


def test_relaxation_uses_the_jacobian_of_the_first_visit():
    level, (u, f) = cubic(Jacobi()), states(7)
    for smoother, part in ((Jacobi(1.0), np.diag), (GaussSeidel(), np.tril)):
        J = level.linearize(u).toarray()
        M = np.diag(np.diag(J)) if part is np.diag else np.tril(J)
        expected = u
        for _ in range(2):
            expected = expected + np.linalg.solve(M, f - level.operator(expected))
        np.testing.assert_allclose(smooth(smoother, level, u, f, 2), expected, rtol=1e-12)


# What every smoother keeps -------------------------------------------------------------------


@kinds
@smoothers
def test_the_solution_is_a_fixed_point(smoother, kind):
    A, (u, _) = spd(), states()
    result = smooth(smoother, kinds_of_level(A, smoother)[kind], u, A @ u, 2)
    np.testing.assert_allclose(result, u, rtol=1e-10, atol=1e-10)


@kinds
@smoothers
def test_nothing_is_edited(smoother, kind):
    A, (u, f) = spd(), states()
    level = kinds_of_level(A, smoother)[kind]
    before = A.toarray(), u.copy(), f.copy()
    memory = smoother.start(level, u)
    first, after = smoother.smooth(level, u, f, 2, memory)
    for old, new in zip(before, (A.toarray(), u, f), strict=True):
        np.testing.assert_array_equal(old, new)
    # The old memory still does what it did: it was not edited either.
    again, _ = smoother.smooth(level, u, f, 2, memory)
    np.testing.assert_array_equal(first, again)
    assert after is not None or memory is None
    assert not np.shares_memory(first, u) and not np.shares_memory(first, f)


@pytest.mark.parametrize("numba", [True, False], ids=["numba", "SciPy"])
@kinds
@smoothers
def test_float32_stays_float32(monkeypatch, smoother, kind, numba):
    monkeypatch.setattr(kernels, "available", numba and kernels.available)
    A, (u, f) = spd(), states()
    expected = smooth(smoother, Level(A, smoother), u, f)
    A, u, f = A.astype("f"), u.astype("f"), f.astype("f")
    level = kinds_of_level(A, smoother)[kind]
    for rhs in (f, None):
        assert smooth(smoother, level, u, rhs).dtype == np.float32
    np.testing.assert_allclose(smooth(smoother, level, u, f), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("layout", ["dense", "sparse", "function"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@smoothers
def test_torch_gives_what_numpy_gives(smoother, dtype, layout):
    A, (u, f) = spd(), states()
    expected = smooth(smoother, Level(A, smoother), u, f, 2)
    T = torch.tensor(A.toarray(), dtype=dtype)
    level = {
        "dense": Level(T, smoother),
        "sparse": Level(T.to_sparse(), smoother),
        "function": Level(lambda u: T @ u, smoother, linearize=lambda u: T),
    }[layout]
    u, f = torch.tensor(u, dtype=dtype), torch.tensor(f, dtype=dtype)
    copies = u.clone(), f.clone()
    result = smooth(smoother, level, u, f, 2)
    assert isinstance(result, torch.Tensor) and result.dtype == dtype
    tolerance = 1e-10 if dtype == torch.float64 else 5e-3
    np.testing.assert_allclose(result.numpy(), expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(u, copies[0]) and torch.equal(f, copies[1])
    no_f = smooth(smoother, level, u, None)
    assert isinstance(no_f, torch.Tensor) and no_f.dtype == dtype


AHEAD = "Jacobi", "GaussSeidel", "Chebyshev"  # give the residual with their last sweep


@pytest.mark.parametrize("numba", [True, False], ids=["numba", "SciPy"])
@pytest.mark.parametrize("sweeps", [1, 3])
@kinds
@smoothers
def test_a_residual_that_comes_with_the_last_sweep(monkeypatch, smoother, kind, sweeps, numba):
    """The same state, the same work, and `f - A u` with the bits of the level's own residual."""
    if not numba:
        monkeypatch.setattr(kernels, "available", False)
    A, (u, f) = spd(40), states(40)
    level = kinds_of_level(A, smoother)[kind]
    memory = smoother.start(level, u)
    expected, _ = smoother.smooth(level, u, f, sweeps, memory)
    before = level.tally[0]
    result, _, r = smoother.smooth_ahead(level, u, f, sweeps, memory)
    np.testing.assert_array_equal(result, expected)
    if smoother.fixed_work:
        assert level.tally[0] - before == smoother.work(level, sweeps)
    name = type(smoother).__name__
    compiled = numba and kernels.available and name in AHEAD
    if kind == "csr" and (compiled or name == "Jacobi"):
        np.testing.assert_array_equal(r, level.residual_at(result, f))
    elif r is not None:  # Gauss-Seidel makes its own CSR matrix of whatever it gets
        assert name == "GaussSeidel"
        np.testing.assert_allclose(r, f - A @ result, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("linearize", [None, lambda u: spd(40)], ids=["matrix", "linearize"])
@smoothers
def test_a_residual_after_a_strided_start(smoother, linearize):
    """The compiled loops do not take a strided state, but the states that follow it."""
    A, (u, f) = spd(40), states(40)
    level = Level(A, smoother, linearize=linearize)
    memory = smoother.start(level, np.repeat(u, 2)[::2])
    result, _, r = smoother.smooth_ahead(level, u, f, 1, memory)
    if r is not None:
        np.testing.assert_allclose(r, f - A @ result, rtol=1e-12, atol=1e-12)


@smoothers
def test_no_right_hand_side_is_zero(smoother):
    A, (u, f) = spd(), states()
    level = Level(A, smoother)
    zero = smooth(smoother, level, u, 0 * f)
    np.testing.assert_allclose(smooth(smoother, level, u, None), zero, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS[:4])
@smoothers
def test_work_is_what_is_counted(smoother, kind):
    A, (u, f) = spd(), states()
    level = kinds_of_level(A, smoother)[kind]
    memory = smoother.start(level, u)
    level.tally[0] = 0.0
    smoother.smooth(level, u, f, 3, memory)
    if smoother.fixed_work:
        assert level.tally[0] == smoother.work(level, 3)
    else:
        assert 0.0 < level.tally[0] <= 2.5 * smoother.work(level, 3)


# Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoother", [Jacobi(), GaussSeidel(), Chebyshev()], ids=str)
@pytest.mark.parametrize("matrix", [np.asarray, sp.csr_matrix, torch.tensor])
def test_a_zero_on_the_diagonal_is_refused(smoother, matrix):
    A = np.array([[1.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    u = torch.zeros(3, dtype=torch.float64) if matrix is torch.tensor else np.zeros(3)
    level = Level(matrix(A), smoother, name="the pressure level")
    with pytest.raises(ValueError, match="on the pressure level: the matrix has zeros on its diag"):
        smoother.start(level, u)


@pytest.mark.parametrize("smoother", SMOOTHERS[:-4], ids=str)
def test_a_function_without_derivative_is_refused(smoother):
    level = Level(lambda u: u, smoother, name="level 1")
    with pytest.raises(TypeError, match="level 1 has neither a matrix nor `linearize`"):
        smoother.start(level, np.zeros(2))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: GaussSeidel("red-black"), "direction 'red-black'; it must be 'forward'"),
        (lambda: Chebyshev(0), "needs degree and steps of at least 1"),
        (lambda: Chebyshev(steps=0), "needs degree and steps of at least 1"),
        (lambda: Chebyshev(lower=0.0), "0 < lower < upper"),
        (lambda: Chebyshev(lower=1.2), "0 < lower < upper"),
        (lambda: Chebyshev(kind="second"), "kind 'second'; it must be 'first', 'fourth' or 'opt_f"),
        (lambda: Chebyshev(lower=0.2, kind="fourth"), "the fourth kind has no lower end; leave it"),
        (
            lambda: Chebyshev(101, kind="opt_fourth"),
            "degree 101 for kind 'opt_fourth'; at most 100",
        ),
    ],
)
def test_parameters_are_checked(make, why):
    with pytest.raises(ValueError, match=why):
        make()


# The abstract class --------------------------------------------------------------------------


def test_defaults_of_a_smoother():
    class Richardson(Smoother):
        def smooth(self, level, u, f, sweeps, memory):
            assert memory is None
            for _ in range(sweeps):
                u = u + 0.1 * level.residual_at(u, f)
            return u, memory

    with pytest.raises(TypeError, match="abstract"):
        Smoother()
    smoother = Richardson()
    level = Level(np.eye(2), smoother)
    assert smoother.start(level, np.zeros(2)) is None
    assert smoother.carry(None, None) is None
    assert smoother.work(level, 3) == 3.0
    assert smoother.fixed_work
    solution = Solver(Hierarchy([level]), "V(0,0,5)").solve(np.ones(2))
    np.testing.assert_allclose(solution.value, 1.0, rtol=1e-7)


@pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)
def test_smoothers_are_values(smoother):
    assert hash(smoother) == hash(smoother)
    with pytest.raises(AttributeError):
        smoother.omega = 1.0
