"""Singular equations: projections, kept components, and what is refused."""

import numpy as np
import pytest
import scipy.linalg as la
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch

from mgnet import (
    CG,
    FGMRES,
    GMRES,
    Anderson,
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Level,
    NullSpace,
    Solver,
    interpolation_matrix,
)


def laplacian(n, ends="neumann"):
    A = sp.lil_matrix(sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)))
    if ends == "neumann":
        A[0, 0] = A[-1, -1] = 1.0
    else:
        A[0, -1] = A[-1, 0] = -1.0
    return sp.csr_matrix(A)


def hierarchy(n, dims=1, kind=float, ends="neumann"):
    one, A = laplacian(n, ends), sp.csr_matrix((1, 1))
    for _ in range(dims):
        A = sp.kron(A, sp.identity(n)) + sp.kron(sp.identity(A.shape[0]), one)
    prolongations = []
    while n > 3:
        n = (n + 1) // 2
        P = interpolation_matrix(n, boundary="open")
        prolongations.append(sp.csr_matrix(sp.kron(P, P) if dims == 2 else P, dtype=kind))
    return Hierarchy.galerkin(sp.csr_matrix(A, dtype=kind), prolongations, nullspace="constant")


@pytest.mark.parametrize("acceleration", [None, CG(), GMRES(5), FGMRES(), Anderson()])
@pytest.mark.parametrize("dims", [1, 2])
def test_the_solution_is_the_pseudo_inverse_and_the_mean_of_the_start(acceleration, dims):
    levels, generator = hierarchy(17, dims), np.random.default_rng(dims)
    f, start = generator.standard_normal((2, 17**dims)) + 3.0
    solution = Solver(levels, rtol=1e-10, acceleration=acceleration).solve(f, start).require()
    A = levels[0].matrix.toarray()
    wanted = la.pinv(A) @ f + start.mean()
    assert abs(solution.value - wanted).max() <= 1e-7 * abs(wanted).max()
    assert solution.value.mean() == pytest.approx(start.mean())
    share = abs(f.mean()) * np.sqrt(f.size) / np.linalg.norm(f)
    assert solution.projected == pytest.approx(share)
    assert "projected out" in str(solution)
    assert Solver(levels, acceleration=acceleration).solve(f).value.mean() == pytest.approx(0.0)


def test_a_right_hand_side_in_the_left_null_space_alone_has_the_solution_zero():
    solution = Solver(hierarchy(9)).solve(np.ones(9))
    assert solution.reason.converged and abs(solution.value).max() < 1e-14
    assert solution.projected == pytest.approx(1.0)


def test_single_precision_and_tensors():
    levels = hierarchy(9, kind=np.float32)
    solution = Solver(levels, rtol=1e-4).solve(np.arange(9, dtype=np.float32))
    assert solution.value.dtype == np.float32 and solution.reason.converged
    A = torch.tensor(laplacian(9).toarray())
    level = Level(A, Jacobi())
    torch_levels = Hierarchy([level], nullspace=[torch.ones(9, dtype=torch.float64)])
    solver = Solver(torch_levels, "V(0,0)", rtol=1e-6, max_cycles=3000)
    solution = solver.solve(torch.arange(9.0, dtype=torch.float64))
    assert solution.reason.converged and abs(float(solution.value.mean())) < 1e-10


@pytest.mark.parametrize("seed", range(5))
def test_given_vectors_right_and_left(seed):
    """A matrix with a null space of two vectors, and another one on the left."""
    generator = np.random.default_rng(seed)
    right, left = (la.qr(generator.standard_normal((8, 8)))[0] for _ in range(2))
    # D + D^T keeps the cycle convergent: a matrix near the identity on the complement.
    A = left[:, 2:] @ np.diag(generator.uniform(1.0, 2.0, 6)) @ right[:, 2:].T
    space = NullSpace(right[:, :2] @ generator.standard_normal((2, 2)), left=left[:, :2])
    space.check(A)
    f, u = generator.standard_normal((2, 8))
    assert np.allclose(left[:, :2].T @ space.project(f), 0.0)
    assert np.allclose(A @ la.pinv(A) @ f, space.project(f))
    removed = space.remove(u, keep=f)
    assert np.allclose(right[:, :2].T @ removed, right[:, :2].T @ f)
    assert np.allclose(right[:, 2:].T @ removed, right[:, 2:].T @ u)
    with pytest.raises(ValueError, match="left vector"):
        NullSpace(right[:, :2]).check(A)
    with pytest.raises(ValueError, match="does not map to zero"):
        NullSpace(generator.standard_normal(8)).check(A)


def test_complex_vectors():
    generator = np.random.default_rng(0)
    q = la.qr(generator.standard_normal((6, 6)) + 1j * generator.standard_normal((6, 6)))[0]
    A = q[:, 1:] @ np.diag([1.0, 2, 3, 4, 5]) @ q[:, 1:].conj().T
    levels = Hierarchy([Level(A, Jacobi())], nullspace=q[:, 0])
    f = generator.standard_normal(6) + 1j
    solution = Solver(levels, "V(0,0)", acceleration=GMRES(), rtol=1e-10).solve(f).require()
    assert np.allclose(solution.value, la.pinv(A) @ f)
    with pytest.raises(ValueError, match="real and imaginary"):
        NullSpace(q[:, 0]).check(np.eye(6))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("ones", "'constant'"),
        (np.ones((3, 2)), "vector 1 that is a combination"),
        (np.zeros(3), "vector 0 of norm 0"),
        (np.array([1.0, np.nan]), "norm nan"),
        (3.0, "shape"),
        (np.array(["a"]), "numbers"),
        (np.ones(4), "4 entries"),
    ],
)
def test_what_is_refused(given, told):
    with pytest.raises((TypeError, ValueError), match=told):
        Hierarchy([Level(laplacian(3), Jacobi())], nullspace=given)


def test_a_regular_matrix_is_refused():
    A = laplacian(9) + 1e-3 * sp.identity(9)
    with pytest.raises(ValueError, match="leave nullspace out"):
        Hierarchy.galerkin(A, [], nullspace="constant")


def test_one_null_space_serves_levels_of_two_sizes():
    space = NullSpace()
    for n in (9, 17):
        assert abs(space.project(np.arange(float(n))).mean()) < 1e-14


def test_the_preconditioner_removes_it_and_cut_hierarchies_forget_it():
    levels = hierarchy(17)
    M = Solver(levels).as_preconditioner()
    assert abs((M @ np.arange(17.0)).mean()) < 1e-12
    assert levels.with_levels(lambda given: given[1:], first=1).nullspace is None
    assert levels.with_levels(lambda given: given).nullspace is levels.nullspace


def complex_singular(seed, n=6):
    """A matrix with one null vector v and one left null vector w, both complex."""
    generator = np.random.default_rng(seed)
    v, w, *columns = generator.standard_normal((n + 2, n)) + 1j * generator.standard_normal(
        (n + 2, n)
    )
    v, w = v / la.norm(v), w / la.norm(w)
    A = np.array(columns)
    A = A - np.outer(w, w.conj() @ A)
    return A - np.outer(A @ v, v.conj()), v, w


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, spla.aslinearoperator, torch.tensor])
@pytest.mark.parametrize("seed", range(3))
def test_complex_left_null_vectors_of_matrices_of_any_kind(kind, seed):
    A, v, w = complex_singular(seed)
    smoother = Jacobi()
    level = Level(kind(A), smoother)
    assert Hierarchy([level], nullspace=NullSpace(v, left=w)).nullspace is not None
    for wrong in (NullSpace(v), NullSpace(v, left=w.conj())):
        with pytest.raises(ValueError, match="left vector"):
            Hierarchy([level], nullspace=wrong)


@pytest.mark.parametrize("jump", [1e8, 1e10, 1e14])
def test_a_regular_part_with_small_coefficients_is_seen(jump):
    """Beside entries of 1e10, a row of 2, -1 looks as if it took constants to zero."""
    L = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(9, 9)).tolil()
    regular = sp.csr_matrix(L)
    L[0, 0] = L[8, 8] = 1.0
    singular = sp.block_diag([jump * L, L]).tocsr()
    both = np.repeat(np.eye(2), 9, axis=0)
    assert Hierarchy([Level(singular, Direct("pinv"))], nullspace=both).nullspace is not None
    with pytest.raises(ValueError, match="row"):
        parts = sp.block_diag([jump * L, regular]).tocsr()
        Hierarchy([Level(parts, Direct("pinv"))], nullspace="constant")


@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e300])
def test_vectors_of_any_length_are_scaled(scale):
    v = np.random.default_rng(0).uniform(1.0, 2.0, 5)
    assert np.allclose(NullSpace(v * scale).project(v), 0.0, atol=1e-12)


def test_tensors_of_single_precision_are_null_vectors_in_double():
    f = torch.arange(6.0, dtype=torch.float64)
    for given in (torch.ones(6), [torch.ones(6)], torch.ones(6, dtype=torch.int64)):
        assert abs(float(NullSpace(given).project(f).sum())) <= 1e-13


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([np.ones(3), np.ones(4)], "of 3, 4 entries"),
        (np.random.default_rng(0).standard_normal((2, 9)), "more vectors than"),
        (["constant", np.ones(3)], "give 'constant', or numbers"),
        (np.ma.masked_array(np.ones(3), [True, False, False]), "give 'constant', or numbers"),
    ],
)
def test_odd_vectors_are_refused(given, words):
    with pytest.raises((TypeError, ValueError), match=words):
        NullSpace(given)


@pytest.mark.parametrize("method", [None, CG(), GMRES(), FGMRES(), Anderson()], ids=str)
@pytest.mark.parametrize("kind", [float, np.float32, complex])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_left_of_a_right_hand_side_of_null_vectors(method, kind, seed):
    """Rounding would be, with which no method converges."""
    generator = np.random.default_rng(seed)
    n = int(generator.integers(3, 60))
    L = np.diag(np.full(n, 2.0)) - np.diag(np.ones(n - 1), 1) - np.diag(np.ones(n - 1), -1)
    L[0, 0] = L[-1, -1] = 1.0
    hierarchy = Hierarchy([Level(L.astype(kind), Jacobi(0.6))], nullspace="constant")
    f = np.full(n, generator.uniform(-5.0, 5.0)).astype(kind)
    solution = Solver(hierarchy, "V(0,0)", acceleration=method).solve(f)
    assert solution.reason.converged and not solution.value.any()
    assert solution.projected == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("apart", [1.0, 1e-7])
def test_projections_of_complex_bases(seed, apart):
    """Orthogonal to all vectors, also where these are nearly dependent."""
    generator = np.random.default_rng(seed)
    V = generator.standard_normal((9, 3)) + 1j * generator.standard_normal((9, 3))
    V[:, 1] = V[:, 0] + apart * V[:, 1]
    f, keep = generator.standard_normal((2, 9)) + 1j * generator.standard_normal((2, 9))
    space, Q = NullSpace(V), la.qr(V, mode="economic")[0]
    assert la.norm(V.conj().T @ space.project(f)) <= 1e-12 * la.norm(V)
    new = space.remove(f, keep=keep)
    assert np.allclose(Q.conj().T @ (new - keep), 0.0, atol=1e-6 if apart < 1.0 else 1e-12)
    gram = np.array(space.vectors).conj() @ np.array(space.vectors).T
    assert np.allclose(gram, np.eye(3), atol=1e-13)


@pytest.mark.parametrize("seed", range(4))
def test_null_vectors_of_single_precision_are_known_to_rounding(seed):
    d = np.random.default_rng(seed).uniform(0.5, 2.0, 40)
    A = sp.csr_matrix(sp.diags(d) @ laplacian(40) @ sp.diags(d), dtype=np.float32)
    assert Hierarchy([Level(A, Direct("pinv"))], nullspace=1.0 / d).nullspace is not None


@pytest.mark.parametrize("method", [CG(), GMRES(), FGMRES(2), Anderson(), None], ids=str)
def test_states_on_the_way_keep_the_mean_of_the_start(method):
    level = Level(laplacian(20), GaussSeidel("symmetric"))
    f = np.random.default_rng(0).standard_normal(20)
    means = []
    Solver(
        Hierarchy([level], nullspace="constant"),
        "V(0,0)",
        acceleration=method,
        monitor=lambda _, u: means.append(u.mean()),
    ).solve(f, np.arange(20.0))
    assert len(means) > 3 and np.allclose(means, 9.5, atol=1e-10)
