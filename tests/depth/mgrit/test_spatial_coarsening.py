"""Laws: the solution is that of the fine equation, and a transfer changes only how fast."""

import numpy as np
import pytest

import mgnet
from mgnet import AxisTransfer, MatrixTransfer, Transfer, interpolation_matrix
from mgnet.depth.mgrit.c_layers import CLayers, intervals
from mgnet.depth.mgrit.one_step import OneStep, heat
from mgnet.depth.mgrit.spatial_coarsening import SpaceTimeTransfer, SpatialCoarsening

FINE, COARSE, STEPS = 31, 15, 128
P = interpolation_matrix(COARSE)
EVEN = np.eye(FINE)[1::2]  # the fine points that the coarse grid has


def full_weighting(rows):
    return 0.25 * rows[:, :-2:2] + 0.5 * rows[:, 1:-1:2] + 0.25 * rows[:, 2::2]


def linear(rows):
    return np.asarray((P @ rows.T).T)


TRANSFERS = {
    "transpose": MatrixTransfer(P),
    "transpose, injection": MatrixTransfer(P, injection=EVEN),
    "given R": MatrixTransfer(P, R=0.5 * P.T),
    "axis": AxisTransfer(P, injection=EVEN),
    "functions": (full_weighting, linear),
    "functions, injection": (full_weighting, linear, lambda rows: rows[:, 1::2]),
}


def problem(points=FINE):
    x = np.arange(1, points + 1) / (points + 1)
    return heat(
        points, STEPS, final_time=0.2, initial=np.sin(np.pi * x) + 0.3 * np.sin(6 * np.pi * x)
    )


@pytest.mark.parametrize("name", TRANSFERS)
@pytest.mark.parametrize("cycle", ["V(1,1)", "F(1,1)", "nested V(1,1)"])
def test_the_fine_equation_is_solved(name, cycle):
    space = [SpatialCoarsening(problem(COARSE).step, TRANSFERS[name]), None]
    hierarchy = problem().hierarchy(3, 4, ("FCF",), spatial=space)
    solution = mgnet.Solver(hierarchy, cycle, rtol=1e-10, max_cycles=40).solve(u=problem().guess())
    assert solution.reason.converged
    assert abs(solution.value - problem().serial()).max() < 1e-8


@pytest.mark.parametrize("name", TRANSFERS)
def test_c_points_alone_are_enough(name):
    space = [SpatialCoarsening(problem(COARSE).step, TRANSFERS[name]), None]
    hierarchy = problem().hierarchy(3, 4, ("FCF",), spatial=space, c_points_only=True)
    assert hierarchy[0].unknowns == 33 * FINE
    solution = mgnet.Solver(hierarchy, rtol=1e-10).solve(u=problem().guess()[::4]).require()
    assert abs(solution.value - problem().serial()[::4]).max() < 1e-8


def test_laws_of_fas():
    for name, transfer in TRANSFERS.items():
        space = [SpatialCoarsening(problem(COARSE).step, transfer)]
        hierarchy = problem().hierarchy(spatial=space)
        if name.endswith("injection") or name == "axis":
            assert "level 0: inject undoes prolong" in hierarchy.check(problem().serial())
        else:
            with pytest.raises(ValueError, match="inject does not undo prolong"):
                hierarchy.check(problem().serial())


def by_hand(restrict, inject, cycles):
    """Two-level FAS with F-relaxation, written out with dense matrices, one state at a time."""
    dt, factor, fine, coarse = 0.2 / STEPS, 4, problem(), problem(COARSE)

    def phi(points, h):
        A = (points + 1) ** 2 * (2 * np.eye(points) - np.eye(points, k=1) - np.eye(points, k=-1))
        return np.linalg.inv(np.eye(points) + h * A)

    small, large = phi(FINE, dt), phi(COARSE, factor * dt)
    u = np.repeat(fine.initial[None], STEPS // factor + 1, axis=0)  # the C-points
    norms = []
    for _ in range(cycles):
        ends = u[:-1] @ np.linalg.matrix_power(small, factor).T
        r = np.concatenate([0 * u[:1], ends - u[1:]])
        norms.append(np.linalg.norm(r))
        v = u @ inject.T
        f = r @ restrict.T + np.concatenate([v[:1], v[1:] - v[:-1] @ large.T])
        w = [f[0]]
        for k in range(1, len(f)):
            w.append(large @ w[-1] + f[k])
        u = u + (np.array(w) - v) @ P.T
    del coarse
    return u, norms


@pytest.mark.parametrize("injected", [True, False])
def test_cycles_are_fas(injected):
    dense = P.toarray()
    restrict = 0.5 * dense.T
    transfer = MatrixTransfer(P, injection=EVEN if injected else None)
    space = [SpatialCoarsening(problem(COARSE).step, transfer)]
    hierarchy = problem().hierarchy(2, 4, "F", spatial=space)
    start = problem().guess()
    solution = mgnet.Solver(hierarchy, "V(1,1)", rtol=1e-30, max_cycles=5).solve(u=start)
    u, norms = by_hand(restrict, EVEN if injected else restrict, 6)
    assert np.allclose(solution.residual_norms[1:], norms[1:], rtol=1e-7)


def test_three_spatial_levels_two_dimensions():
    """Diagonal steps of a two-dimensional heat equation in the sine basis, states (n, n)."""

    def step_on(n):
        x = np.arange(1, n + 1) / (n + 1)
        S = np.sqrt(2.0 / (n + 1)) * np.sin(np.pi * np.outer(np.arange(1, n + 1), x * 1.0))
        rates = (n + 1) ** 2 * (2.0 - 2.0 * np.cos(np.pi * x))
        total = rates[:, None] + rates[None]

        def step(t, dt, u):
            modes = np.einsum("ia,kab,jb->kij", S, u, S)
            modes = modes / (1.0 + dt[:, None, None] * total)
            return np.einsum("ia,kij,jb->kab", S, modes, S)

        return step

    sizes = (15, 7, 3)
    transfers = [AxisTransfer((interpolation_matrix(n),) * 2, axis=(0, 1)) for n in sizes[1:]]
    space = [
        SpatialCoarsening(step_on(n), transfer)
        for n, transfer in zip(sizes[1:], transfers, strict=True)
    ]
    initial = np.random.default_rng(0).random((15, 15))
    fine = OneStep(step_on(15), initial, np.full(64, 0.002))
    hierarchy = fine.hierarchy(3, (4, 2), ("FCF",), spatial=space)
    assert [level.unknowns for level in hierarchy] == [65 * 225, 17 * 49, 9 * 9]
    solution = mgnet.Solver(hierarchy, rtol=1e-9).solve(u=fine.guess())
    assert abs(solution.require().value - fine.serial()).max() < 1e-7


def test_transpose_is_averaged():
    space = SpatialCoarsening(problem(COARSE).step, MatrixTransfer(P))
    ones = np.ones((3, FINE))
    assert space.restrict(ones) == pytest.approx(1.0)
    rows = np.random.default_rng(0).random((3, FINE))
    assert abs(space.restrict(rows) - full_weighting(rows)).max() < 1e-14
    given = SpatialCoarsening(problem(COARSE).step, MatrixTransfer(P, R=P.T))
    assert given.restrict(ones) == pytest.approx(2.0)  # what is given stays


def test_any_transfer_goes_row_by_row():
    class Pairs(Transfer):
        def prolong(self, correction):
            return np.repeat(correction, 2)

        def restrict(self, residual):
            return residual[::2] + residual[1::2]

    transfer = SpaceTimeTransfer(
        CLayers(intervals(4, 2, False)), SpatialCoarsening(abs, Pairs()), (4,), (2,)
    )
    rows = np.arange(20.0).reshape(5, 4)
    assert (transfer.restrict(rows) == 0.5 * (rows[::2, ::2] + rows[::2, 1::2])).all()
    assert (transfer.inject(rows) == transfer.restrict(rows)).all()
    w = np.arange(6.0).reshape(3, 2)
    assert (transfer.prolong(w)[::2] == np.repeat(w, 2, axis=1)).all()
    assert (transfer.correct(rows, w) == rows + transfer.prolong(w)).all()


def test_refusals():
    step = problem(COARSE).step
    with pytest.raises(TypeError, match="got a step of type int"):
        SpatialCoarsening(3, MatrixTransfer(P))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got the transfer"):
        SpatialCoarsening(step, (full_weighting,))
    with pytest.raises(ValueError, match="for 3 levels; give 2 entries"):
        problem().hierarchy(3, spatial=[SpatialCoarsening(step, MatrixTransfer(P))])
    wrong = SpatialCoarsening(step, (lambda rows: rows[0, 1::2], linear))
    with pytest.raises(TypeError, match=r"takes 2 states of shape \(31,\) and float64 down to"):
        problem().hierarchy(spatial=[wrong])
    wrong = SpatialCoarsening(step, (full_weighting, lambda rows: rows))
    solver = mgnet.Solver(problem().hierarchy(spatial=[wrong]))
    with pytest.raises(TypeError, match=r"prolong that takes .* must give an array \(33, 31\)"):
        solver.solve(u=problem().guess())


def test_a_coarse_step_is_checked_like_the_fine_one():
    def step(t, dt, u):
        return u / (1.0 + dt[0])

    unequal = OneStep(problem().step, problem().initial, np.linspace(0.001, 0.01, 64))
    with pytest.raises(ValueError, match="take each row on its own"):
        unequal.hierarchy(spatial=[SpatialCoarsening(step, MatrixTransfer(P))])
