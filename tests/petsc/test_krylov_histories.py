"""CG, GMRES and FGMRES around our cycle have the histories of PETSc's KSP around the same cycle."""

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import (
    CG,
    FGMRES,
    GMRES,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Solver,
    gallery,
    interpolation_matrix,
)

pytest.importorskip("petsc4py")
from petsc4py import PETSc

from mgnet.petsc import Cycle, dmshell
from mgnet.petsc.matrices import aij

CYCLES = 10


def diffusion():
    return gallery.poisson((31, 15))


def convection():
    one = sp.diags([-3.0, 4.0, -1.0], [-1, 0, 1], shape=(15, 15))
    A = sp.csr_matrix(sp.kron(one, sp.identity(15)) + sp.kron(sp.identity(15), one))
    P = interpolation_matrix(7)
    return Hierarchy.galerkin(A, [sp.csr_matrix(sp.kron(P, P))], smoother=GaussSeidel())


def theirs(hierarchy, f, kind, restart):
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setDM(dmshell(hierarchy))
    ksp.setType(kind)
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    if kind != "cg":
        ksp.setPCSide(PETSc.PC.Side.RIGHT)
        ksp.setGMRESRestart(restart)
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(Cycle("V(1,1)"))
    ksp.setTolerances(rtol=1e-300, atol=0.0, divtol=1e300, max_it=CYCLES)
    ksp.setConvergenceHistory(CYCLES + 1)
    x, b = ksp.getDM().createGlobalVec(), ksp.getDM().createGlobalVec()
    b.setArray(f)
    ksp.solve(b, x)
    return ksp.getConvergenceHistory(), x.array.copy()


@pytest.mark.parametrize(
    ("make", "kind", "method"),
    [
        (diffusion, "cg", CG()),
        (diffusion, "gmres", GMRES()),
        (diffusion, "fgmres", FGMRES()),
        (convection, "gmres", GMRES(3)),
        (convection, "fgmres", FGMRES()),
    ],
)
def test_histories(make, kind, method):
    hierarchy = make()
    f = np.random.default_rng(0).standard_normal(hierarchy[0].unknowns)
    told = Solver(hierarchy, rtol=0.0, max_cycles=CYCLES, acceleration=method).solve(f)
    norms, x = theirs(hierarchy, f, kind, getattr(method, "restart", 30))
    assert len(norms) == CYCLES + 1
    assert np.allclose(told.residual_norms, norms, rtol=1e-6, atol=1e-12 * norms[0])
    assert np.allclose(told.value, x, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", [CG(), GMRES(5), FGMRES()], ids=str)
def test_vecs_and_mats(method):
    given = gallery.poisson((15, 15))
    mats = [aij(level.matrix) for level in given]
    ups = [aij(level.transfer.P) for level in given[:-1]]
    downs = [aij(sp.csr_matrix(level.transfer.P.T)) for level in given[:-1]]
    hierarchy = Hierarchy.from_matrices(mats, ups, downs, Jacobi())
    f = np.random.default_rng(0).standard_normal(225)
    b = mats[0].createVecLeft()
    b.setArray(f)
    ours = Solver(hierarchy, acceleration=method).solve(b).require()
    plain = Solver(given, acceleration=method).solve(f)
    assert np.allclose(ours.residual_norms, plain.residual_norms, rtol=1e-6)
    assert np.allclose(ours.value.array, plain.value)


@pytest.mark.parametrize("attached", [True, False])
def test_the_null_space_of_a_mat(attached):
    A = sp.lil_matrix(sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(17, 17)))  # type: ignore
    A[0, 0] = A[-1, -1] = 1.0
    P = sp.csr_matrix(interpolation_matrix(9, boundary="open"))
    mats, ups = [aij(sp.csr_matrix(A)), aij(sp.csr_matrix(P.T @ A @ P))], [aij(P)]
    if attached:
        mats[0].setNullSpace(PETSc.NullSpace().create(constant=True, comm=PETSc.COMM_SELF))
    given = None if attached else "constant"
    downs = [aij(sp.csr_matrix(P.T))]
    hierarchy = Hierarchy.from_matrices(mats, ups, downs, Jacobi(), nullspace=given)
    b = mats[0].createVecLeft()
    b.setArray(np.arange(17.0))
    solution = Solver(hierarchy, acceleration=CG()).solve(b).require()
    wanted = np.linalg.pinv(A.toarray()) @ np.arange(17.0)
    assert np.allclose(solution.value.array, wanted, atol=1e-6)
    assert solution.projected > 0.1


def test_restarted_fgmres_which_petsc_logs_twice():
    """KSPFGMRES of 3.18.5 counts the first norm after a restart as an iteration; KSPGMRES not.

    It may then also do its last iteration without logging it, so solutions are not compared.
    """
    hierarchy, f = diffusion(), np.random.default_rng(0).standard_normal(465)
    told = Solver(hierarchy, rtol=0.0, max_cycles=8, acceleration=FGMRES(4)).solve(f)
    norms, _ = theirs(hierarchy, f, "fgmres", 4)
    once = [norm for k, norm in enumerate(norms) if not k or abs(norm / norms[k - 1] - 1) > 1e-9]
    assert np.allclose(told.residual_norms, once, rtol=1e-6)
