"""Law: what the core does with Mats and Vecs is what SciPy does with the same numbers."""

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import (
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Krylov,
    MatrixTransfer,
    Solver,
    gallery,
    mats,
)


def mat(petsc, matrix):
    matrix = sp.csr_matrix(matrix)
    matrix.sort_indices()
    csr = (matrix.indptr, matrix.indices, matrix.data)
    return petsc.Mat().createAIJ(matrix.shape, csr=csr, comm=petsc.COMM_SELF)


def drawn(rows, columns, seed=0):
    return sp.random(rows, columns, 0.4, "csr", random_state=seed) + sp.eye(rows, columns)


def vec(petsc, values):
    return petsc.Vec().createWithArray(np.array(values, float), comm=petsc.COMM_SELF)


def test_the_transpose_is_that_of_the_matrix_and_is_not_formed(petsc):
    P, r = drawn(7, 3), np.arange(7.0)
    R = mats.transposed(mat(petsc, P))
    assert R.getSize() == (3, 7)
    assert "transpose" in R.getType()
    np.testing.assert_allclose(R(vec(petsc, r)).array, P.T @ r, rtol=1e-14)


def test_a_transfer_by_one_mat_restricts_by_its_transpose(petsc):
    P, r = drawn(7, 3), np.arange(7.0)
    transfer = MatrixTransfer(mat(petsc, P))
    assert transfer.adjoint
    np.testing.assert_allclose(transfer.restrict(vec(petsc, r)).array, P.T @ r, rtol=1e-14)


def test_galerkin_products(petsc):
    A, P, R = drawn(7, 7), drawn(7, 3, 1), drawn(3, 7, 2)
    own = Hierarchy.galerkin(mat(petsc, A), [mat(petsc, P)])[1].matrix
    np.testing.assert_allclose(own.convert("dense").getDenseArray(), (P.T @ A @ P).toarray())
    given = mat(petsc, A), [mat(petsc, P)], [mat(petsc, R)]
    other = Hierarchy.galerkin(*given)[1].matrix
    np.testing.assert_allclose(other.convert("dense").getDenseArray(), (R @ A @ P).toarray())


def test_random_entries_are_those_of_one_process(petsc, monkeypatch):
    """Chunk by chunk, as one draw of all."""
    monkeypatch.setattr(mats, "CHUNK", 4)
    entries = mats.random_entries(vec(petsc, np.zeros(11)), np.random.default_rng(5))
    np.testing.assert_array_equal(entries, np.random.default_rng(5).standard_normal(11))


def memory():
    """Of this process, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4 / 1024


def test_a_solve_does_not_keep_its_vectors(petsc):
    """petsc4py puts dropped vectors aside: kept, they would be some 300 MB here."""
    model = gallery.poisson((255, 255), levels=3)
    matrices = [mat(petsc, level.matrix) for level in model]
    prolongations = [mat(petsc, level.transfer.P) for level in model[:-1]]  # type: ignore
    f = vec(petsc, np.ones(255**2))
    hierarchy = Hierarchy.from_matrices(matrices, prolongations)
    solver = Solver(hierarchy, rtol=0.0, max_cycles=3)
    warm = solver.solve(f).memory
    before = memory()
    Solver(hierarchy, rtol=0.0, max_cycles=60).solve(f, memory=warm)
    assert memory() - before < 100.0


def test_mats_give_the_history_of_scipy(petsc):
    model = gallery.poisson((15, 15))
    matrices = [mat(petsc, level.matrix) for level in model]
    prolongations = [mat(petsc, level.transfer.P) for level in model[:-1]]  # type: ignore
    f = np.random.default_rng(0).standard_normal(225)
    theirs = Hierarchy.from_matrices(
        [level.matrix for level in model],
        [level.transfer.P for level in model[:-1]],  # type: ignore
    )
    expected = Solver(theirs).solve(f).residual_norms
    norms = Solver(Hierarchy.from_matrices(matrices, prolongations)).solve(vec(petsc, f))
    np.testing.assert_allclose(norms.residual_norms, expected, rtol=1e-8)


class Spread:
    """A Mat or Vec as two ranks see it."""

    def getComm(self):  # noqa: N802, PETSc's name
        return self

    def getSize(self):  # noqa: N802, PETSc's name
        return 2


def test_what_is_spread_over_ranks_is_refused_with_a_remedy(monkeypatch):
    monkeypatch.setattr(mats, "is_mat", lambda given: isinstance(given, Spread))
    with pytest.raises(TypeError, match=r"^Direct on level 3 got a PETSc Spread that is spread "
                       r"over 2 ranks.*KSPSmoother\('coarse_', .*'redundant'"):  # fmt: skip
        mats.refuse_spread(Spread(), "Direct on level 3")
    with pytest.raises(TypeError, match=r"^mgnet.solve got .*galerkin\(A, \[P, .*'gamg'"):
        mats.refuse_spread(Spread(), "mgnet.solve")


def test_preconditioners_of_scipy_take_no_mats(petsc):
    hierarchy = Hierarchy.from_matrices([mat(petsc, np.eye(3))], [], coarse_solver=Direct())
    with pytest.raises(TypeError, match="-pc_python_type mgnet.petsc.Cycle"):
        Solver(hierarchy).as_preconditioner()


@pytest.mark.parametrize("smoother", [GaussSeidel(), Krylov("cg", 5)])
def test_on_one_process_smoothers_of_scipy_take_mats(petsc, smoother):
    A, f = drawn(6, 6), np.arange(6.0)
    A = A @ A.T + 6.0 * sp.eye(6)
    level = Hierarchy.from_matrices([mat(petsc, A)], [], coarse_solver=smoother)[0]
    plain = Hierarchy.from_matrices([A], [], coarse_solver=smoother)[0]
    u, zero = vec(petsc, np.zeros(6)), np.zeros(6)
    told, _ = smoother.smooth(level, u, vec(petsc, f), 1, smoother.start(level, u))
    expected, _ = smoother.smooth(plain, zero, f, 1, smoother.start(plain, zero))
    np.testing.assert_allclose(told.array, expected, rtol=1e-12)


class Counted:
    """The products of a Mat that is multiplied by Python."""

    def __init__(self, matrix):
        self.matrix, self.products = matrix, 0

    def mult(self, mat, x, y):
        self.products += 1
        y.setArray(self.matrix @ x.getArray(readonly=True))

    def getDiagonal(self, mat, d):  # noqa: N802, PETSc's name
        d.setArray(self.matrix.diagonal())


def counted(petsc, matrix):
    context = Counted(sp.csr_matrix(matrix))
    made = petsc.Mat().createPython(matrix.shape, context, comm=petsc.COMM_SELF)
    made.setUp()
    return made, context


def test_a_cycle_begins_with_the_residual_that_was_tested(petsc):
    """And coarse levels, which begin at zero, need no product to know theirs."""
    model = gallery.poisson(15, levels=2)
    (fine, first), (coarse, second) = (counted(petsc, level.matrix) for level in model)
    P = mat(petsc, model[0].transfer.P)  # type: ignore
    hierarchy = Hierarchy.from_matrices([fine, coarse], [P], coarse_solver=Jacobi())
    found = []
    for cycles in (4, 5):
        before = first.products, second.products
        Solver(hierarchy, "V(1,1,1)", rtol=0.0, max_cycles=cycles).solve(vec(petsc, np.ones(15)))
        found.append((first.products - before[0], second.products - before[1]))
    # One for the descent, one after it, one for the test.
    assert (found[1][0] - found[0][0], found[1][1] - found[0][1]) == (3, 0)


def test_a_residual_is_that_of_the_present_numbers(petsc):
    """Not of those that the Vec or the Mat had when it was last asked."""
    A = drawn(6, 6)
    level = Hierarchy.from_matrices([mat(petsc, A)], [], coarse_solver=Jacobi())[0]
    u, f = vec(petsc, np.arange(6.0)), vec(petsc, np.ones(6))
    for _ in range(2):
        np.testing.assert_allclose(level.residual_at(u, f).array, 1.0 - A @ u.array)
    u.scale(3.0)
    np.testing.assert_allclose(level.residual_at(u, f).array, 1.0 - A @ u.array)
    level.matrix.scale(2.0)
    np.testing.assert_allclose(level.residual_at(u, f).array, 1.0 - 2.0 * A @ u.array)
    np.testing.assert_allclose(level.residual_at(u, None).array, -2.0 * A @ u.array)
    other = u.copy()
    del u
    np.testing.assert_allclose(level.residual_at(other, f).array, 1.0 - 2.0 * A @ other.array)


def test_a_correction_is_added_in_one_pass(petsc):
    P, u, w = drawn(7, 3), np.arange(7.0), np.arange(3.0)
    state = vec(petsc, u)
    told = MatrixTransfer(mat(petsc, P)).correct(state, vec(petsc, w))
    np.testing.assert_allclose(told.array, u + P @ w, rtol=1e-14)
    np.testing.assert_array_equal(state.array, u)


def test_a_tested_residual_is_used_for_its_state_alone_and_once(petsc):
    level = gallery.poisson(3)[0]
    u, f, r = np.ones(3), np.ones(3), np.zeros(3)
    level.keep_residual(u, f, r)
    assert level.kept_residual(u, f) is r
    assert level.kept_residual(u, f) is None
    for other in ((u.copy(), f), (u, f.copy())):
        level.keep_residual(u, f, r)
        assert level.kept_residual(*other) is None
        assert level.kept_residual(u, f) is None
    level.keep_residual(u, f, r)
    level.keep_residual(None, None, None)
    assert level.kept_residual(u, f) is None
