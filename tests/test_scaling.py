"""Law: a solve scales with its right-hand side, exactly, over the whole range of a precision."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse.linalg as spla
import torch

from mgnet import (
    ILU,
    AdditiveSchwarz,
    Anderson,
    Backtracking,
    BlockGaussSeidel,
    Chebyshev,
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Krylov,
    Level,
    LineRelaxation,
    MatrixTransfer,
    MultiplicativeSchwarz,
    Solver,
    gallery,
)
from mgnet.norms import times_power_of_two

SMOOTHERS = [Jacobi(), GaussSeidel("symmetric"), Chebyshev(2)]
SMOOTHERS += [LineRelaxation(), ILU(), AdditiveSchwarz(), MultiplicativeSchwarz()]
SMOOTHERS += [BlockGaussSeidel(1), Chebyshev(3, kind="opt_fourth"), ILU(1e-2)]
SMOOTHERS += [Krylov(method, 3) for method in ("cg", "gmres", "bicgstab", "minres")]
COARSE = [Direct(), Direct("pinv"), Krylov("cg", 5), Krylov("bicgstab", 5)]
#: Exponents within which the answers of these problems, and their residuals, are normal numbers.
RANGE = {"f": (-90, 112), "F": (-90, 112), "d": (-930, 990), "D": (-930, 990)}


def in_precision(hierarchy, dtype):
    return Hierarchy(
        [
            replace(
                level,
                operator=level.operator.astype(dtype),
                transfer=level.transfer and MatrixTransfer(level.transfer.P.astype(dtype)),
            )
            for level in hierarchy
        ]
    )


def as_tensors(hierarchy):
    def dense(matrix):
        return torch.from_numpy(matrix.toarray())

    return Hierarchy(
        [
            replace(
                level,
                operator=dense(level.operator),
                transfer=level.transfer and MatrixTransfer(dense(level.transfer.P)),
            )
            for level in hierarchy
        ]
    )


def same(plain, scaled, exponent):
    assert scaled.reason is plain.reason
    assert scaled.cycles == plain.cycles
    expected = times_power_of_two(plain.value, exponent)
    assert np.array_equal(np.asarray(scaled.value), np.asarray(expected))
    assert scaled.corrections == plain.corrections
    assert scaled.restarts == plain.restarts
    assert scaled.explain() and str(scaled)


@pytest.mark.parametrize("seed", range(100))
def test_a_solve_scales_with_its_right_hand_side(seed):
    draw = np.random.default_rng(seed)
    dtype = np.dtype(list(RANGE)[seed % 4])
    shape = ((15,), (31,), (7, 7), (15, 15))[draw.integers(4)]
    smoother = SMOOTHERS[draw.integers(len(SMOOTHERS))]
    if isinstance(smoother, ILU | LineRelaxation) and len(shape) == 1:
        shape = (7, 7)  # else they solve, and the residuals that are left are no normal numbers
    hierarchy = gallery.poisson(shape, smoother=smoother, coarse_solver=COARSE[draw.integers(4)])
    hierarchy = in_precision(hierarchy, dtype)
    f = draw.standard_normal(hierarchy[0].unknowns).astype(dtype)
    if draw.integers(2) and not isinstance(smoother, Krylov):
        hierarchy, f = as_tensors(hierarchy), torch.from_numpy(f)
    if draw.integers(2):
        searching = [replace(level, line_search=Backtracking()) for level in hierarchy[:-1]]
        hierarchy = Hierarchy([*searching, hierarchy[-1]])
    low, high = RANGE[dtype.char]
    solver = Solver(
        hierarchy,
        ("V(1,1)", "F(1,1,2)", "nested V(1,1)")[draw.integers(3)],
        rtol=1e-3,
        acceleration=(None, Anderson(3), Anderson(2, damping=0.5))[draw.integers(3)],
    )
    plain = solver.solve(f)
    for exponent in (low, high, *(int(e) for e in draw.integers(low, high, 4))):
        same(plain, solver.solve(times_power_of_two(f, exponent)), exponent)


@pytest.mark.parametrize("size", [1e-310, 1e-300, 1e-170, 1e160, 1e300])
def test_a_start_far_from_the_solution_is_measured(size):
    """With f = 0 the solution is zero, and the tolerance relative to the first residual."""
    hierarchy, u = gallery.poisson(31), np.full(31, size)
    solution = Solver(hierarchy, rtol=1e-3).solve(u=u).require()
    plain = Solver(hierarchy, rtol=1e-3).solve(u=np.ones(31))
    assert solution.cycles == plain.cycles > 0


@pytest.mark.parametrize("exponent", [-600, -520, 520, 600, 900])
def test_line_searches_refuse_alike(exponent):
    """A wrong correction is refused at every scale, a right one taken."""
    level = Level(gallery.poisson(15)[0].matrix, Jacobi())
    f = np.sin(np.arange(15.0))
    right, wrong = np.linalg.solve(level.matrix.toarray(), f), -f
    for d in (right, wrong, 3.0 * right):
        lengths = {
            Backtracking()(
                level,
                np.zeros(15),
                times_power_of_two(d, e),
                times_power_of_two(f, e),
                times_power_of_two(f, e),
            )
            for e in (0, exponent)
        }
        assert len(lengths) == 1


@pytest.mark.parametrize("exponent", [-1000, -300, 0, 300, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_preconditioner_scales(dtype, exponent):
    """Also where the vectors have another range than the matrix."""
    hierarchy = in_precision(gallery.poisson((15, 15), smoother=GaussSeidel("symmetric")), dtype)
    M = Solver(hierarchy).as_preconditioner()
    f = np.random.default_rng(0).standard_normal(225)
    assert np.array_equal(M @ times_power_of_two(f, exponent), times_power_of_two(M @ f, exponent))


def test_a_single_precision_preconditioner_serves_to_the_end():
    A = gallery.poisson((15, 15))[0].matrix
    hierarchy = in_precision(gallery.poisson((15, 15), smoother=GaussSeidel("symmetric")), "f4")
    M, f = Solver(hierarchy).as_preconditioner(), np.full(225, 1e-60)
    u, info = spla.cg(A, f, rtol=1e-10, M=M)
    assert info == 0 and np.linalg.norm(f - A @ u) <= 1e-9 * np.linalg.norm(f)


@pytest.mark.parametrize("seed", range(24))
def test_a_solve_by_petsc_scales(petsc, seed):
    from mgnet.petsc import KSPSmoother

    options = [
        {"ksp_type": "cg", "ksp_max_it": 3},
        {"ksp_type": "gmres"},
        {"ksp_type": "richardson", "pc_type": "sor", "ksp_max_it": 1},
        {"ksp_type": "bcgs", "ksp_max_it": 4, "pc_type": "jacobi"},
        {"ksp_type": "preonly", "pc_type": "lu"},
        {"ksp_type": "cg", "ksp_rtol": 1e-9, "ksp_atol": 1e-12},
    ][seed % 6]
    draw = np.random.default_rng(seed)
    smoother = KSPSmoother(f"scaled{seed}_", options)
    hierarchy = gallery.poisson(((15,), (7, 7))[draw.integers(2)], smoother=smoother)
    f = draw.standard_normal(hierarchy[0].unknowns)
    solver = Solver(hierarchy, rtol=1e-6)
    plain = solver.solve(f)
    low, high = RANGE["d"] if "ksp_atol" not in options else (-1, 900)
    for exponent in (low, high, *(int(e) for e in draw.integers(low, high, 4))):
        scaled = solver.solve(times_power_of_two(f, exponent))
        if "ksp_atol" not in options:
            same(plain, scaled, exponent)
        assert scaled.reason.converged
