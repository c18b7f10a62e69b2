"""PETSc matrices of knot refinement are the products that they stand for, and serve PCMG."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mgnet.knots import KAN, knot_transfer, kronecker_matrix
from mgnet.knots.refinement import mass_matrix, refinement_matrix, uniform_knots


@pytest.mark.parametrize("dof", [1, 3])
@pytest.mark.parametrize("factor", [2, 3])
def test_blockwise_products_are_those_of_the_assembled_matrix(petsc, dof, factor):
    from mgnet.petsc.matrices import aij, kronecker

    P = refinement_matrix(4, 3, factor)
    whole = sp.kron(P, sp.eye(dof), format="csr")
    shell, assembled = kronecker(P, dof), aij(whole)
    assert shell.getSize() == assembled.getSize() == whole.shape
    generator = np.random.default_rng(0)
    u, v = generator.standard_normal(whole.shape[1]), generator.standard_normal(whole.shape[0])
    for mat in (shell, assembled):
        coarse, fine = mat.createVecs()
        coarse.setArray(u)
        mat.mult(coarse, fine)
        np.testing.assert_allclose(fine.array, whole @ u, rtol=0, atol=1e-14)
        fine.setArray(v)
        mat.multTranspose(fine, coarse)
        np.testing.assert_allclose(coarse.array, whole.T @ v, rtol=0, atol=1e-14)


def test_the_assembled_matrix_refines_a_whole_network(petsc):
    from mgnet.petsc.matrices import aij

    kan = KAN([2, 3, 2, 1], [4, 2], linear=True)
    P = aij(kronecker_matrix(kan))
    coarse, fine = P.createVecs()
    u = torch.nn.utils.parameters_to_vector(kan.parameters()).detach()
    coarse.setArray(u.numpy())
    P.mult(coarse, fine)
    np.testing.assert_allclose(fine.array, knot_transfer(kan).prolong(u).numpy(), atol=1e-15)


def energy(n, degree):
    """H1 inner product of splines on n intervals of [0, 1], times 1 and 5 for two outputs."""
    size = n + degree
    slope = sp.csr_matrix(sp.diags([-n, n], [0, 1], shape=(size - 1, size)))  # one degree less
    inner = sp.eye(n) / n
    if degree > 1:
        inner = mass_matrix(uniform_knots(n, degree - 1, (0.0, 1.0)), degree - 1)
    one = slope.T @ inner @ slope + mass_matrix(uniform_knots(n, degree, (0.0, 1.0)), degree)
    return sp.csr_matrix(sp.kron(one, sp.diags([1.0, 5.0])))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_multigrid_on_the_knots_of_two_outputs(petsc, degree):
    from mgnet.petsc.matrices import aij, kronecker

    counts = []
    for n in (32, 256):
        A = energy(n, degree)
        ksp = petsc.KSP().create(petsc.COMM_SELF)
        ksp.setOperators(aij(A))
        ksp.setType("cg")
        ksp.setTolerances(rtol=1e-8)
        pc = ksp.getPC()
        pc.setType("mg")
        grids = [4]  # coarsest first, as PETSc counts
        while grids[-1] < n:
            grids.append(2 * grids[-1])
        pc.setMGLevels(len(grids))
        pc.getMGCoarseSolve().setOperators(aij(energy(grids[0], degree)))
        for number, (coarse, fine) in enumerate(zip(grids[:-1], grids[1:], strict=True), 1):
            pc.setMGInterpolation(number, kronecker(refinement_matrix(coarse, degree), 2))
            pc.getMGSmoother(number).setOperators(aij(energy(fine, degree)))
        expected = np.sin(np.arange(A.shape[0]))
        rhs, solution = ksp.getOperators()[0].createVecs()
        rhs.setArray(A @ expected)
        ksp.solve(rhs, solution)
        np.testing.assert_allclose(solution.array, expected, rtol=0, atol=1e-5)
        counts.append(ksp.getIterationNumber())
    assert max(counts) <= 8
    assert counts[1] <= counts[0] + 2


def test_refusal(petsc):
    from mgnet.petsc.matrices import kronecker

    with pytest.raises(ValueError, match="got 0 unknowns per row"):
        kronecker(refinement_matrix(2, 1), 0)
