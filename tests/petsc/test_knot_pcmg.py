"""Law: the system is that of the dense Jacobian; conjugate gradients with PCMG solve it."""

from functools import partial

import numpy as np
import pytest
import torch

from mgnet import Hierarchy, Level, cascade, run
from mgnet.knots import KAN, kronecker_matrix, roughness
from mgnet.training import LeastSquares, LevenbergMarquardt, NewtonKrylov
from mgnet.training.least_squares.newton_krylov import conjugate_gradients

X = torch.rand(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
Y = torch.cat([torch.sin(3 * X[:, :1]) * X[:, 1:], X[:, :1]], 1)
COARSEST = KAN([2, 3, 2], 4)
FINE = COARSEST.refine().refine()
PROLONGATIONS = [kronecker_matrix(COARSEST.refine()), kronecker_matrix(COARSEST)]


def system(kan, penalty=None):
    from mgnet.petsc.distributed_least_squares import distribute_samples

    problem = LeastSquares(kan, (X, Y), penalty)
    r, J = distribute_samples(problem).linearize(problem.start())
    return problem, r, J, problem.jacobian(problem.start())


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("penalty", [None, partial(roughness, weight=1e-3)])
def test_rows_are_those_of_the_jacobian(petsc, linear, penalty):
    from mgnet.petsc.knot_pcmg import rows_mat

    _, _, J, dense = system(KAN([2, 3, 3, 2], 30, linear=linear), penalty)
    mat = rows_mat(J)
    rows, columns, values = mat.getValuesCSR()
    assert len(values) < 0.7 * dense.numel()
    found = np.zeros(mat.getSize())
    for row in range(len(rows) - 1):
        part = slice(rows[row], rows[row + 1])
        found[row, columns[part]] = values[part]
    np.testing.assert_allclose(found, dense.numpy(), rtol=1e-13, atol=1e-15)


def test_systems_are_solved_in_fewer_iterations_than_without_levels(petsc):
    from mgnet.petsc.knot_pcmg import KnotPCMG

    _, r, J, dense = system(FINE)
    prepared = KnotPCMG(PROLONGATIONS).prepare(J)
    gram = dense.T @ dense
    assert prepared.scale == pytest.approx(float(gram.trace()) / len(gram))
    product, precondition = prepared.shifted(1e-3 * prepared.scale)
    gram.diagonal().add_(1e-3 * prepared.scale)
    b = J.rmatvec(r)
    torch.testing.assert_close(product(b), gram @ b)
    found = conjugate_gradients(product, b, precondition, 1e-10)
    torch.testing.assert_close(
        found.value, torch.linalg.solve(gram, b), rtol=1e-7, atol=1e-7 * float(b.norm())
    )
    by_layer = COARSEST.refine().refine(layers=[0]).refine(layers=[1])
    assert by_layer.intervals == FINE.intervals
    steps = [COARSEST.refine().refine(layers=[0]), COARSEST.refine(), COARSEST]
    matrices = [kronecker_matrix(n, 2, k) for n, k in zip(steps, [[1], [0], None], strict=True)]
    _, other = KnotPCMG(matrices).prepare(J).shifted(1e-3 * prepared.scale)
    again = conjugate_gradients(product, b, other, 1e-10)
    torch.testing.assert_close(again.value, found.value, rtol=1e-6, atol=1e-7 * float(b.norm()))
    assert again.iterations <= 2 * found.iterations
    jacobi = conjugate_gradients(product, b, lambda r: r / gram.diagonal(), 1e-10)
    assert found.converged
    assert found.iterations < 0.8 * jacobi.iterations


def test_options_choose_the_smoother(petsc, options):
    from mgnet.petsc.knot_pcmg import KnotPCMG

    _, r, J, _ = system(FINE)
    prepared = KnotPCMG(PROLONGATIONS, "a_", {"mg_levels_ksp_type": "richardson"}).prepare(J)
    options("-a_mg_levels_pc_type sor")
    ksp = prepared._solver(prepared.gram)
    smoother = ksp.getPC().getMGSmoother(2)
    assert (smoother.getType(), smoother.getPC().getType()) == ("richardson", "sor")


def test_training_gets_where_direct_solves_get(petsc):
    from mgnet.petsc.distributed_least_squares import distribute_samples
    from mgnet.petsc.knot_pcmg import KnotPCMG

    alone = LeastSquares(FINE, (X, Y))
    krylov = NewtonKrylov(KnotPCMG(PROLONGATIONS), direct=0, loosest=1e-6)
    values = []
    for problem, solver in ((alone, None), (distribute_samples(alone), krylov)):
        level = Level(problem, LevenbergMarquardt(mu=1.0, linear_solver=solver))
        u, _ = run(cascade([3]), Hierarchy([level]), alone.start(), None)
        values.append(alone.value(u))
    assert values[1] == pytest.approx(values[0], rel=1e-3)
    assert values[1] < 0.2 * alone.value(alone.start())


def test_other_jacobians_and_prolongations_are_refused(petsc):
    from mgnet.petsc.knot_pcmg import KnotPCMG

    problem, _, J, _ = system(FINE)
    with pytest.raises(TypeError, match="got a StackedJacobian; it needs"):
        KnotPCMG(PROLONGATIONS).prepare(problem.linearize(problem.start())[1])
    for wrong in ([], PROLONGATIONS[1:], PROLONGATIONS[::-1]):
        with pytest.raises(ValueError, match="one or more, finest first"):
            KnotPCMG(wrong).prepare(J)
