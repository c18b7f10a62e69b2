"""Law: what the core does with Mats and Vecs is what SciPy does with the same numbers."""

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import Direct, GaussSeidel, Hierarchy, Krylov, MatrixTransfer, Solver, gallery, mats


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
    own = mats.galerkin_product(mat(petsc, A), mat(petsc, P))
    np.testing.assert_allclose(own.convert("dense").getDenseArray(), (P.T @ A @ P).toarray())
    other = mats.galerkin_product(*(mat(petsc, each) for each in (A, P, R)))
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
