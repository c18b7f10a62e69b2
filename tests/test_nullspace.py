"""Singular equations: projections, kept components, and what is refused."""

import numpy as np
import pytest
import scipy.linalg as la
import scipy.sparse as sp
import torch

from mgnet import (
    CG,
    FGMRES,
    GMRES,
    Anderson,
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
    with pytest.raises(ValueError, match="does not take to zero"):
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
