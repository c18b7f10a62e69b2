"""A cycle is that of dense matrices and of PETSc; its iterations do not grow with the knots."""

import math
from functools import partial
from itertools import groupby

import numpy as np
import pytest
import scipy.sparse.linalg as spla
import torch

from mgnet import cascade, cycle, run
from mgnet.knots import (
    KAN,
    KnotMultigrid,
    Patches,
    knot_hierarchy,
    knot_transfer,
    kronecker_matrix,
    roughness,
)
from mgnet.knots.local_jacobian import linearize_residual
from mgnet.knots.spline_operator import LONG
from mgnet.training import (
    LeastSquares,
    LevenbergMarquardt,
    NewtonKrylov,
    levenberg_marquardt,
)
from mgnet.training.least_squares.jacobian import DenseJacobian
from mgnet.training.least_squares.newton_krylov import conjugate_gradients

GENERATOR = torch.Generator().manual_seed(0)
X = 2.0 * torch.rand(700, 2, generator=GENERATOR, dtype=torch.float64) - 1.0
WAVE = torch.sin(math.pi * X[:, :1]) * torch.sin(2.0 * math.pi * X[:, 1:])
EDGE = 2.0 * torch.rand(200, 2, generator=GENERATOR, dtype=torch.float64) - 1.0
EDGE[:, 0] = torch.where(torch.arange(200) % 2 == 0, 1.0, -1.0)


def poisson(network):
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    second = [torch.autograd.grad(slope[:, d].sum(), x, create_graph=True)[0][:, d] for d in (0, 1)]
    laplacian = (second[0] + second[1]).unsqueeze(1)
    return (laplacian + 5.0 * math.pi**2 * WAVE) / 700**0.5, 0.7 * network(EDGE)


@pytest.fixture(scope="module")
def coarse():
    """A KAN of 4 intervals, trained."""
    network = KAN([2, 4, 1], 4)
    levenberg_marquardt(poisson, network, max_cycles=15, acceleration=0.0)
    return network


def dense_parts(network, M):
    """The sum of the inverses of the patches, and what an exact coarse correction leaves."""
    B, start = np.zeros_like(M), 0
    for u in network.coefficients:
        p, splines, q = u.shape
        for one in start + np.arange(p * splines * q).reshape(p, splines, q):
            for i in range(splines - 3):
                own = np.ix_(one[i : i + 4].ravel(), one[i : i + 4].ravel())
                B[own] += np.linalg.inv(M[own])
        start += p * splines * q
    P = kronecker_matrix(network.coarsen()).toarray()
    return B, np.eye(len(M)) - P @ np.linalg.solve(P.T @ M @ P, P.T @ M)


def test_a_cycle_is_that_of_dense_matrices(coarse):
    network = coarse.refine()
    _, J = linearize_residual(network, poisson)
    prepared = KnotMultigrid(coarsest=4, rows=1e9).prepare(J)
    shift = 1e-3 * prepared.scale
    M = (J.gram() + shift * torch.eye(J.shape[1], dtype=torch.float64)).numpy()
    hierarchy = prepared.hierarchy(shift)
    level = hierarchy[0]
    _, largest = level.smoother.start(level, torch.ones(len(M), dtype=torch.float64))
    B, left = dense_parts(network, M)
    centre, radius = 0.6 * largest, 0.5 * largest
    one = np.eye(len(M))
    z = (centre * one - B @ M) / radius  # Chebyshev: T_2(z) / T_2(sigma)
    S = (2.0 * z @ z - one) / (2.0 * (centre / radius) ** 2 - 1.0)
    _, precondition = prepared.shifted(shift)
    r = torch.randn(len(M), generator=GENERATOR, dtype=torch.float64)
    expected = (one - S @ left @ S) @ np.linalg.solve(M, r.numpy())
    np.testing.assert_allclose(
        precondition(r), expected, rtol=1e-6, atol=1e-9 * abs(expected).max()
    )


@pytest.mark.parametrize("formed", [0, 10_000])
def test_the_transfers_are_those_of_the_networks(coarse, formed):
    _, J = linearize_residual(coarse.refine().refine(), poisson)
    prepared = KnotMultigrid(coarsest=4, formed=formed).prepare(J)
    assert len(prepared.jacobians) == 3
    for transfer, network in zip(prepared.transfers, (coarse.refine(), coarse), strict=True):
        theirs = knot_transfer(network)
        d = torch.randn(sum(p.numel() for p in network.parameters()), dtype=torch.float64)
        torch.testing.assert_close(transfer.prolong(d), theirs.prolong(d))
        up = theirs.prolong(d)
        torch.testing.assert_close(transfer.restrict(up), theirs.restrict(up))


def test_what_is_kept_grows_with_the_knots_and_not_their_square():
    kept = []
    for n in (256, 512):
        _, J = linearize_residual(KAN([2, 1, 1], n), lambda kan: kan(X))
        prepared = KnotMultigrid(formed=0).prepare(J)
        matrices = {id(N): N for level in prepared.identities for N in level}.values()
        steps = [part.P for transfer in prepared.transfers for _, part in transfer.parts]
        entries = [P.factors[0].nnz if P.shape[0] > LONG else P._nnz() for P in steps]
        kept.append(sum(N.nnz for N in matrices) + sum(entries))
    assert kept[1] < 2.1 * kept[0] < 42 * 256


@pytest.mark.parametrize(("rows", "formed"), [(1e9, 0), (1e9, 10_000), (8.0, 0)])
def test_the_levels_are_galerkin_products(coarse, rows, formed):
    _, J = linearize_residual(coarse.refine().refine(), poisson)
    prepared = KnotMultigrid(coarsest=4, rows=rows, formed=formed).prepare(J)
    hierarchy = prepared.hierarchy(1e-2 * prepared.scale)
    for number, network in enumerate((coarse.refine(), coarse)):
        P = torch.from_numpy(kronecker_matrix(network).toarray())
        galerkin = P.T @ hierarchy[number].operator.dense() @ P
        ours = hierarchy[number + 1].operator.dense()
        if rows == 1e9:
            torch.testing.assert_close(ours, galerkin, rtol=1e-8, atol=1e-8)
        else:  # an estimate from some rows
            ratio = torch.linalg.eigvals(torch.linalg.solve(galerkin, ours)).real
            assert 0.1 < float(ratio.min()) <= float(ratio.max()) < 4.0


LAYERS = [  # intervals; of each level below, the layers that are coarsened from 4 intervals on
    ((16, 4, 4), [[0], [0]]),
    ((16, 8, 4), [[0], [0, 1]]),
    ((7, 8, 4), [[1]]),
    ((16, 5, 6), [[0], [0]]),
    ((12, 8, 9), [[0, 1]]),
    ((8, 32, 8), [[1], [1], [0, 1, 2]]),
]


@pytest.mark.parametrize(("intervals", "expected"), LAYERS)
@pytest.mark.parametrize("formed", [0, 10_000])
def test_layers_that_still_can_are_coarsened(intervals, expected, formed):
    """Odd or few intervals in one layer do not stop the others; all is as dense matrices say."""
    network = KAN([2, 3, 2, 1], intervals)
    _, J = linearize_residual(network, poisson)
    prepared = KnotMultigrid(coarsest=4, rows=1e9, formed=formed).prepare(J)
    hierarchy = prepared.hierarchy(0.5 * prepared.scale)
    assert len(hierarchy) == 1 + len(expected)
    matrix = J.gram() + 0.5 * prepared.scale * torch.eye(J.shape[1], dtype=torch.float64)
    torch.testing.assert_close(hierarchy[0].operator.dense(), matrix)
    for number, layers in enumerate(expected):
        network = network.coarsen(layers=layers)
        P = torch.from_numpy(kronecker_matrix(network, layers=layers).toarray())
        matrix = P.T @ matrix @ P
        ours = hierarchy[number + 1].operator
        torch.testing.assert_close(ours.dense(), matrix, rtol=1e-8, atol=1e-8)
        d = torch.randn(len(matrix), generator=GENERATOR, dtype=torch.float64)
        torch.testing.assert_close(ours @ d, matrix @ d, rtol=1e-8, atol=1e-8)
        transfer = prepared.transfers[number]
        torch.testing.assert_close(transfer.prolong(d), P @ d)
        torch.testing.assert_close(transfer.restrict(P @ d), P.T @ (P @ d))
    told = ", ".join(str(n) for n, _ in groupby(network.intervals))  # neighbours told once
    assert hierarchy[-1].name == f"level {len(expected)} ({told} intervals)"
    _, precondition = prepared.shifted(1e-6 * prepared.scale)
    r, s = torch.randn(2, J.shape[1], generator=GENERATOR, dtype=torch.float64)
    assert float(r @ precondition(s)) == pytest.approx(float(s @ precondition(r)), rel=1e-6)


@pytest.mark.parametrize("outer", [7, 8])
def test_iterations_do_not_grow_with_the_knots_of_one_layer(outer):
    network, counts = KAN([2, 4, 1], [4, outer]), []
    levenberg_marquardt(poisson, network, max_cycles=10, acceleration=0.0)
    for _ in range(4):
        network = network.refine(layers=[0])
        r, J = linearize_residual(network, poisson)
        prepared = KnotMultigrid(coarsest=4).prepare(J)
        assert prepared.jacobians[-1].inputs[0].intervals <= 7
        product, precondition = prepared.shifted(1e-3 * prepared.scale)
        counts.append(conjugate_gradients(product, J.rmatvec(r), precondition, 1e-6).iterations)
    assert network.intervals == (64, outer)
    assert max(counts) <= 20 and counts[-1] <= counts[0]


def test_a_cycle_is_symmetric_and_positive(coarse):
    _, J = linearize_residual(coarse.refine().refine(), poisson)
    prepared = KnotMultigrid(coarsest=4).prepare(J)
    _, precondition = prepared.shifted(1e-6 * prepared.scale)
    r, s = torch.randn(2, J.shape[1], generator=GENERATOR, dtype=torch.float64)
    assert float(r @ precondition(s)) == pytest.approx(float(s @ precondition(r)), rel=1e-6)
    assert float(r @ precondition(r)) > 0.0


def test_iterations_do_not_grow_with_the_knots(coarse):
    counts = {"patch": [], "point": []}
    network = coarse
    for _ in range(3):
        network = network.refine()
        r, J = linearize_residual(network, poisson)
        b = J.rmatvec(r)
        for blocks, found in counts.items():
            prepared = KnotMultigrid(Patches(blocks=blocks), coarsest=4).prepare(J)
            product, precondition = prepared.shifted(1e-3 * prepared.scale)
            ours = conjugate_gradients(product, b, precondition, 1e-6, 500)
            found.append(ours.iterations)
            if blocks == "patch":
                size = (len(b), len(b))
                A = spla.LinearOperator(
                    size, lambda d, p=product: p(torch.from_numpy(d)).numpy(), dtype=float
                )
                B = spla.LinearOperator(
                    size, lambda d, p=precondition: p(torch.from_numpy(d)).numpy(), dtype=float
                )
                told = []
                spla.cg(A, b.numpy(), M=B, rtol=1e-6, callback=told.append)
                assert abs(len(told) - ours.iterations) <= 1
    assert max(counts["patch"]) <= 40
    assert counts["patch"][-1] <= counts["patch"][0]
    assert counts["point"][-1] > 1.5 * counts["point"][0]


def test_newton_multigrid_trains_as_the_direct_solver(coarse):
    values = []
    for solver in (None, NewtonKrylov(KnotMultigrid(coarsest=4), direct=0, loosest=1e-2)):
        network = coarse.refine()
        solution = levenberg_marquardt(
            poisson, network, max_cycles=12, acceleration=0.0, linear_solver=solver
        )
        assert all(b <= a for a, b in zip(solution.values[:-1], solution.values[1:], strict=True))
        values.append(solution.values[-1])
    assert values[1] < 3.0 * values[0]


@pytest.mark.parametrize("penalty", [None, partial(roughness, weight=1e-6)])
@pytest.mark.parametrize("form", ["subspace", "injected"])
@pytest.mark.parametrize("most_intervals", [None, (8, 4), (4, 8)])
def test_it_serves_a_plain_least_squares_on_all_levels(penalty, form, most_intervals):
    """Data instead of residuals, a penalty, coarse problems around a fine state, cascades."""
    y = torch.cat([WAVE, WAVE**2], 1)
    values = []
    for solver in (None, NewtonKrylov(KnotMultigrid(coarsest=4), direct=0, loosest=1e-3)):
        network = KAN([2, 3, 2], 4)
        problem = LeastSquares(network, (X, y), penalty)
        smoother = LevenbergMarquardt(linear_solver=solver, acceleration=0.0)
        most = {"form": form, "most_intervals": most_intervals}
        levels = knot_hierarchy(network, problem, 2, smoother, **most)
        for schedule in (cascade([6, 6]), cycle(2)):
            u, _ = run(schedule, levels, levels[0].operator.start(), None)
            values.append(levels[0].operator.value(u))
    assert values[2] == pytest.approx(values[0], rel=0.1)
    assert values[3] == pytest.approx(values[1], rel=0.1)


def test_refusals():
    with pytest.raises(TypeError, match="without knot intervals; it needs that of a KAN"):
        KnotMultigrid().prepare(DenseJacobian(torch.eye(2)))
    with pytest.raises(ValueError, match="needs at least 1 interval"):
        KnotMultigrid(coarsest=0)


def test_a_cycle_is_that_of_petsc(coarse):
    PETSc = pytest.importorskip("petsc4py.PETSc")  # noqa: N806
    from mgnet.petsc.matrices import aij

    network = coarse.refine()
    _, J = linearize_residual(network, poisson)
    prepared = KnotMultigrid(Patches(degree=1, lower=0.5, upper=1.5), coarsest=4, rows=1e9).prepare(
        J
    )
    shift = 1e-2 * prepared.scale
    hierarchy = prepared.hierarchy(shift)
    level = hierarchy[0]
    _, largest = level.smoother.start(level, torch.ones(J.shape[1], dtype=torch.float64))
    M = aij(level.operator.dense().numpy())
    P = aij(kronecker_matrix(coarse))
    pc = PETSc.PC().create(PETSc.COMM_SELF)
    pc.setOperators(M)
    pc.setType("mg")
    pc.setMGLevels(2)
    pc.setMGInterpolation(1, P)
    coarse_ksp = pc.getMGCoarseSolve()
    coarse_ksp.setOperators(M.ptap(P))
    coarse_ksp.setType("preonly")
    coarse_ksp.getPC().setType("lu")
    smoother = pc.getMGSmoother(1)
    smoother.setType("richardson")
    smoother.setOperators(M)
    smoother.setTolerances(max_it=1)
    smoother.setNormType(PETSc.KSP.NormType.NONE)
    schwarz = smoother.getPC()
    schwarz.setType("asm")
    index, start = [], 0
    for u in network.coefficients:
        numbers = start + np.arange(u.numel()).reshape(u.shape)
        start += u.numel()
        for one in numbers:
            index += [one[i : i + 4].ravel() for i in range(u.shape[1] - 3)]
    sets = [PETSc.IS().createGeneral(i.astype(PETSc.IntType), comm=PETSc.COMM_SELF) for i in index]
    schwarz.setASMLocalSubdomains(len(sets), sets)
    schwarz.setASMOverlap(0)
    schwarz.setASMType(PETSc.PC.ASMType.BASIC)
    options = PETSc.Options()
    smoother.setOptionsPrefix("patches_")  # options are global: no other test may meet these
    options["patches_ksp_richardson_scale"] = 1.0 / largest
    options["patches_sub_pc_type"] = "cholesky"
    smoother.setFromOptions()
    pc.setUp()
    r = torch.randn(J.shape[1], generator=GENERATOR, dtype=torch.float64)
    x, y = M.createVecs()
    x.setArray(r.numpy())
    pc.apply(x, y)
    _, precondition = prepared.shifted(shift)
    np.testing.assert_allclose(precondition(r), y.array, rtol=1e-6, atol=1e-10 * abs(y.array).max())
