"""Law: PETSc's multigrid has the traps of docs/petsc.md, and mgnet's ways into PETSc avoid them.

The first half drives PETSc alone and holds for 3.18; where a later version has closed a trap, the
page says so. The second half is ours.
"""

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import Hierarchy, Jacobi, Level, Solver, interpolation_matrix

JACOBI = {
    "mg_levels_ksp_type": "richardson",
    "mg_levels_ksp_richardson_scale": 0.8,
    "mg_levels_ksp_max_it": 1,
    "mg_levels_pc_type": "jacobi",
}
SIDE, N = 31, 961
B = np.random.default_rng(0).standard_normal(N)


def laplacian(along=1.0):
    axis = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(SIDE, SIDE))
    return (sp.kron(axis, sp.eye(SIDE)) + along * sp.kron(sp.eye(SIDE), axis)).tocsr()


@pytest.fixture
def mat(petsc):
    def make(matrix):
        matrix = sp.csr_matrix(matrix)
        matrix.sort_indices()
        csr = (matrix.indptr, matrix.indices, matrix.data)
        return petsc.Mat().createAIJ(matrix.shape, csr=csr, comm=petsc.COMM_SELF)

    return make


@pytest.fixture
def pcmg(petsc, options, mat):
    """A function that makes a KSP with four Galerkin levels of PCMG."""

    def make(matrix, **given):
        ksp = petsc.KSP().create(petsc.COMM_SELF)
        ksp.setOptionsPrefix("trap_")
        ksp.setOperators(matrix)
        pc = ksp.getPC()
        pc.setType("mg")
        pc.setMGLevels(4)
        for level, points in zip((3, 2, 1), (15, 7, 3), strict=True):
            P = interpolation_matrix(points)
            pc.setMGInterpolation(level, mat(sp.kron(P, P)))
        for name, value in ({"pc_mg_galerkin": "both"} | JACOBI | given).items():
            options(f"-trap_{name} {value}")
        ksp.setFromOptions()
        ksp.setUp()
        return ksp

    return make


def solved(petsc, ksp, matrix):
    """Reason and true relative residual."""
    b = petsc.Vec().createWithArray(B.copy(), comm=petsc.COMM_SELF)
    x = b.duplicate()
    x.set(0.0)
    ksp.setTolerances(rtol=1e-8, max_it=60)
    ksp.solve(b, x)
    return ksp.getConvergedReason(), np.linalg.norm(matrix @ x.array - B) / np.linalg.norm(B)


def asymmetry(petsc, apply):
    """Of an operator on vectors, along two random ones, relative."""
    u, v = np.random.default_rng(1).standard_normal((2, N))
    vecs = [petsc.Vec().createWithArray(each.copy(), comm=petsc.COMM_SELF) for each in (u, v)]
    images = [each.duplicate() for each in vecs]
    for each, image in zip(vecs, images, strict=True):
        apply(each, image)
    left, right = images[0].dot(vecs[1]), images[1].dot(vecs[0])
    return abs(left - right) / (images[0].norm() * vecs[1].norm())


def test_distinct_smoothup_inherits_nothing(pcmg, mat):
    pc = pcmg(mat(laplacian()), pc_mg_distinct_smoothup="").getPC()
    kinds = [
        (s.getType(), s.getPC().getType()) for s in (pc.getMGSmootherDown(2), pc.getMGSmootherUp(2))
    ]
    assert kinds == [("richardson", "jacobi"), ("chebyshev", "sor")]


def test_rtol_is_relative_to_b_also_from_a_start(petsc, mat):
    ksp = petsc.KSP().create(petsc.COMM_SELF)
    ksp.setOperators(mat(laplacian()))
    ksp.setType("cg")
    ksp.getPC().setType("none")
    ksp.setInitialGuessNonzero(True)
    ksp.setTolerances(rtol=1e-6, divtol=1e30)
    b = petsc.Vec().createWithArray(B.copy(), comm=petsc.COMM_SELF)
    x = petsc.Vec().createWithArray(1e3 * B, comm=petsc.COMM_SELF)
    ksp.solve(b, x)
    end = np.linalg.norm(laplacian() @ x.array - B)
    assert ksp.getConvergedReason() > 0
    assert 1e-8 * np.linalg.norm(B) < end <= 1e-6 * np.linalg.norm(B)
    first = np.linalg.norm(laplacian() @ (1e3 * B) - B)
    assert end < 1e-9 * first


def test_a_start_far_off_ends_as_diverged(petsc, mat):
    ksp = petsc.KSP().create(petsc.COMM_SELF)
    ksp.setOperators(mat(laplacian()))
    ksp.setInitialGuessNonzero(True)
    x = petsc.Vec().createWithArray(1e5 * B, comm=petsc.COMM_SELF)
    ksp.solve(petsc.Vec().createWithArray(B.copy(), comm=petsc.COMM_SELF), x)
    assert ksp.getConvergedReason() == petsc.KSP.ConvergedReason.DIVERGED_DTOL
    assert ksp.getIterationNumber() == 0


def test_galerkin_solves_with_the_old_matrix_after_another_mat(petsc, pcmg, mat):
    ksp = pcmg(mat(laplacian()), ksp_type="richardson")
    assert solved(petsc, ksp, laplacian())[1] < 1e-7
    ksp.setOperators(mat(1000.0 * laplacian()))
    reason, residual = solved(petsc, ksp, 1000.0 * laplacian())
    assert reason > 0 and residual > 100.0, "it says 'converged' and has not"


def test_middle_levels_keep_chebyshev_bounds_when_entries_change(petsc, pcmg, mat):
    A, other = mat(laplacian()), laplacian(1000.0)
    chebyshev = {"mg_levels_ksp_type": "chebyshev", "mg_levels_ksp_max_it": 2}
    ksp = pcmg(A, ksp_type="richardson", **chebyshev)
    solved(petsc, ksp, laplacian())
    other.sort_indices()
    A.setValuesCSR(other.indptr, other.indices, other.data)
    A.assemble()
    ksp.setOperators(A)
    kept = solved(petsc, ksp, other)[1]
    fresh = solved(petsc, pcmg(mat(other), ksp_type="richardson", **chebyshev), other)[1]
    assert fresh < 1.0
    assert not kept < 1e6 * fresh


@pytest.mark.parametrize(("kind", "symmetric"), [("multiplicative", True), ("additive", True),
                                                 ("full", False), ("kaskade", False)])  # fmt: skip
def test_which_types_are_symmetric(petsc, pcmg, mat, kind, symmetric):
    pc = pcmg(mat(laplacian()), pc_mg_type=kind).getPC()
    assert (asymmetry(petsc, pc.apply) < 1e-12) == symmetric


# mgnet -----------------------------------------------------------------------------------------


def test_ours_smooths_upwards_as_downwards(petsc, options):
    """The options of a `KSPSmoother`, and those of its command line, hold for both."""
    from mgnet.petsc.ksp_smoother import with_options

    options("-both_pc_mg_distinct_smoothup -both_mg_levels_2_pc_type sor")
    options("-both_mg_levels_up_ksp_max_it 7")
    given = {"mg_levels_ksp_type": "richardson", "mg_levels_ksp_max_it": 3, "pc_type": "mg"}
    with with_options("both_", given):
        database = petsc.Options("both_")
        assert database.getString("mg_levels_up_ksp_type") == "richardson"
        assert database.getString("mg_levels_2_up_pc_type") == "sor"
        assert database.getInt("mg_levels_up_ksp_max_it") == 7
        assert not database.hasName("mg_levels_up_up_ksp_max_it")
    assert not petsc.Options("both_").hasName("mg_levels_up_ksp_type")


@pytest.mark.parametrize("method", ["cg", "richardson"])
def test_a_warm_start_far_off_is_smoothed(petsc, mat, method):
    from mgnet.petsc import KSPSmoother

    options = {"ksp_type": method, "ksp_max_it": 3, "pc_type": "sor"}
    level = Level(mat(laplacian()), KSPSmoother("far_", options))
    f = petsc.Vec().createWithArray(B.copy(), comm=petsc.COMM_SELF)
    u = petsc.Vec().createWithArray(1e8 * B, comm=petsc.COMM_SELF)
    before = level.residual_at(u, f).norm()
    after, _ = level.smoother.smooth(level, u, f, 1, level.smoother.start(level, u))
    assert level.residual_at(after, f).norm() < 0.5 * before


def hierarchy_of(mat, matrix):
    """Galerkin products on three levels, as Mats."""
    matrices, prolongations = [sp.csr_matrix(matrix)], []
    for points in (15, 7):
        P = sp.csr_matrix(sp.kron(*[interpolation_matrix(points)] * 2))
        prolongations.append(P)
        matrices.append(P.T @ matrices[-1] @ P)
    return Hierarchy.from_matrices([mat(A) for A in matrices], [mat(P) for P in prolongations])


def test_our_solver_has_rtol_relative_to_f_and_no_limit_for_starts(petsc, mat):
    hierarchy = hierarchy_of(mat, laplacian())
    f = petsc.Vec().createWithArray(B.copy(), comm=petsc.COMM_SELF)
    u = petsc.Vec().createWithArray(1e8 * B, comm=petsc.COMM_SELF)
    told = Solver(hierarchy, rtol=1e-3, max_cycles=100).solve(f, u)
    assert told.reason.name == "RTOL"
    assert told.residual_norms[-1] <= 1e-3 * np.linalg.norm(B) < told.residual_norms[-2]


def test_our_cycle_under_snes_takes_starts_far_off(petsc, mat):
    from mgnet.petsc import Cycle, dmshell

    snes = petsc.SNES().create(petsc.COMM_SELF)
    snes.setDM(dmshell(hierarchy_of(mat, laplacian())))
    snes.setType("python")
    snes.setPythonContext(Cycle())
    snes.setTolerances(rtol=1e-8)
    x = petsc.Vec().createWithArray(1e8 * B, comm=petsc.COMM_SELF)
    snes.solve(petsc.Vec().createWithArray(B.copy(), comm=petsc.COMM_SELF), x)
    assert snes.getConvergedReason() > 0


@pytest.mark.parametrize("given", [{}, {"pc_mg_galerkin": "both"}])
def test_dmshell_gives_pcmg_the_transposes_of_mats(petsc, options, mat, given):
    """R = None: PCMG takes `P^T`, for Galerkin products too."""
    from mgnet.petsc import dmshell

    for name, value in ({"ksp_type": "cg", "pc_type": "mg", "pc_mg_levels": 3} | given).items():
        options(f"-dmt_{name} {value}")
    for name, value in JACOBI.items():
        options(f"-dmt_{name} {value}")
    ksp = petsc.KSP().create(petsc.COMM_SELF)
    ksp.setOptionsPrefix("dmt_")
    ksp.setDM(dmshell(hierarchy_of(mat, laplacian())))
    ksp.setFromOptions()
    b = petsc.Vec().createWithArray(B.copy(), comm=petsc.COMM_SELF)
    x = b.duplicate()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    assert ksp.getIterationNumber() < 20


def test_another_matrix_is_another_solve(petsc, mat):
    """Nothing is kept between two solves, unless the memory of the first is given."""
    f = petsc.Vec().createWithArray(B.copy(), comm=petsc.COMM_SELF)
    A = mat(laplacian())
    hierarchy = Hierarchy([Level(A, Jacobi(0.5))])
    Solver(hierarchy, max_cycles=1).solve(f)
    A.scale(1000.0)
    kept = Solver(hierarchy, max_cycles=3).solve(f).residual_norms
    fresh = Solver(Hierarchy([Level(mat(1000.0 * laplacian()), Jacobi(0.5))]), max_cycles=3)
    np.testing.assert_allclose(kept, fresh.solve(f).residual_norms, rtol=1e-12)
