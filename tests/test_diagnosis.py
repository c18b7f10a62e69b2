"""Advice: a planted fault is named with its level, and a good solve hears nothing."""

from dataclasses import dataclass, replace

import numpy as np
import pyamg
import pytest
import scipy.sparse as sp

from mgnet import (
    CG,
    FGMRES,
    GMRES,
    Anderson,
    Backtracking,
    Chebyshev,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Level,
    LineRelaxation,
    MatrixTransfer,
    Reason,
    Smoother,
    Solver,
    gallery,
    interpolation_matrix,
)
from mgnet.depth import heat
from mgnet.diagnosis import Diagnosis
from mgnet.rounding import stands_at_rounding


def swapped(hierarchy, number, **parts):
    """The hierarchy with other parts on one level."""
    levels = list(hierarchy)
    levels[number] = replace(levels[number], **parts)
    return Hierarchy(levels)


def in_precision(hierarchy, dtype):
    """The hierarchy with matrices of this precision."""
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


def scaled(hierarchy, number, factor):
    """The hierarchy with a restriction of the wrong scale."""
    transfer = hierarchy[number].transfer
    parts = transfer.P, factor * transfer.P.T
    return swapped(hierarchy, number, transfer=replace(transfer, P=parts[0], R=parts[1]))


@dataclass(frozen=True)
class Nothing(Smoother):
    """A smoother without effect."""

    def smooth(self, level, u, f, sweeps, memory):
        return u, memory


def advice(hierarchy, cycle="V(1,1)", cycles=12, rtol=1e-10, f=None):
    """The lines below the table."""
    if f is None:
        f = np.random.default_rng(0).standard_normal(hierarchy[0].unknowns)
    solution = Solver(hierarchy, cycle, rtol, max_cycles=cycles).solve(f)
    text = solution.explain().split("\n")
    return text[[line.startswith("reduction:") for line in text].index(True) + 1 :]


def poisson(smoother=None):
    return gallery.poisson((63, 63), smoother=smoother)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(
    ("factor", "cycle"), [(4.0, "V(1,1)"), (4.0, "W(2,0)"), (0.2, "V(1,1)"), (0.2, "V(0,2)")]
)
def test_a_restriction_of_the_wrong_scale(level, factor, cycle):
    (line,) = advice(scaled(poisson(), level, factor), cycle)
    assert line.startswith(f"level {level}: the correction from level {level + 1} changes")
    measured = float(line.split("residual ")[1].split(" times")[0])
    assert measured == pytest.approx(factor, rel=0.25)
    assert "transfer between" in line


def along_circles(n, weak):
    """Diffusion 1 along circles around the centre and `weak` across, by finite differences."""
    forward = sp.diags([1.0, -1.0], [0, -1], shape=(n + 1, n))
    central = 0.5 * sp.diags([1.0, -1.0], [1, -1], shape=(n, n))
    nodes, middles = np.arange(1, n + 1) / (n + 1) - 0.5, (np.arange(n + 1) + 0.5) / (n + 1) - 0.5

    def coefficient(x, y, of):
        x, y = (part.ravel() for part in np.meshgrid(x, y, indexing="ij"))
        tangent = np.array([-y, x]) / np.maximum(np.hypot(x, y), 1e-300)
        across = np.array([[0.0], [1.0]]) * (np.hypot(x, y) == 0.0)
        p, q = (tangent + across)[list(of)]
        return sp.diags((1.0 - weak) * p * q + weak * (of[0] == of[1]))

    one = sp.identity(n)
    over = sp.kron(forward, one), sp.kron(one, forward)
    mixed = sp.kron(central, one).T @ coefficient(nodes, nodes, (0, 1)) @ sp.kron(one, central)
    first = over[0].T @ coefficient(middles, nodes, (0, 0)) @ over[0]
    second = over[1].T @ coefficient(nodes, middles, (1, 1)) @ over[1]
    return sp.csr_matrix(first + second + mixed + mixed.T)


@pytest.mark.parametrize("weak", [1e-2, 1e-3])
def test_an_operator_that_is_wrong_for_some_errors_is_not_wrong_by_a_scale(weak):
    sizes = [63, 31, 15, 7]
    P = [sp.csr_matrix(sp.kron(p, p)) for p in map(interpolation_matrix, sizes[1:])]
    matrices = [along_circles(n, weak) for n in sizes]
    rediscretised = Hierarchy.from_matrices(matrices, P, smoother=GaussSeidel())
    lines = advice(rediscretised, cycles=40)
    (line,) = [line for line in lines if line.startswith("level 0: the correction from level 1")]
    assert "the scale is right, and the operator of level 1 is wrong for some errors" in line
    assert line.endswith("use P^T A P there")
    assert not any("scaled wrongly" in line for line in lines)
    followed = [matrices[0]]
    for p in P:
        followed.append(sp.csr_matrix(p.T @ followed[-1] @ p))
    f = np.random.default_rng(0).standard_normal(63 * 63)
    before, after = (
        Solver(Hierarchy.from_matrices(all_levels, P, smoother=GaussSeidel()), max_cycles=40).solve(
            f
        )
        for all_levels in (matrices, followed)
    )
    assert before.factor > 1.1 and after.factor < 0.95


def test_the_wrong_scale_is_found_in_three_dimensions():
    (line,) = advice(scaled(gallery.poisson((15, 15, 15)), 1, 4.0), cycles=20)
    assert "the transfer between levels 1 and 2 is scaled wrongly" in line


def test_the_wrong_scale_is_found_in_nonlinear_problems_too():
    (line,) = advice(scaled(gallery.reaction((31, 31)), 1, 0.2), f=np.full(961, 0.01), cycles=20)
    assert line.startswith("level 1: the correction from level 2 changes")


@pytest.mark.parametrize(
    "change", [lambda A: 9.0 * A, lambda A: A / 9.0, lambda A: A + 4.0 * sp.eye(A.shape[0])]
)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_one_level_with_the_wrong_operator(level, change):
    hierarchy = poisson()
    wrong = swapped(hierarchy, level, operator=sp.csr_matrix(change(hierarchy[level].matrix)))
    (line,) = advice(wrong, cycles=20)
    assert f"the operator of level {level} is wrong" in line


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_smoother_without_effect(level):
    (line,) = advice(swapped(poisson(), level, smoother=Nothing()), cycles=20)
    assert line.startswith(f"level {level}: a sweep of Nothing() leaves 1.000 ")


def test_a_smoother_that_diverges():
    (line,) = advice(swapped(poisson(), 1, smoother=Jacobi(1.6)), cycles=30)
    assert line.startswith("level 1: a sweep of Jacobi(omega=1.6) increases")


@pytest.mark.parametrize("points", [(127, 7), (255, 15)])
def test_a_point_smoother_on_stretched_cells(points):
    (line,) = advice(gallery.poisson(points), cycles=40)
    assert line.startswith("level") and " 0" in line.split(":")[0]
    assert "along axis 0 of the grid" in line and "GMRES()" in line
    assert "use LineRelaxation(axes=0) there" in line
    followed = gallery.poisson(points, smoother=LineRelaxation(axes=0))
    assert advice(followed, rtol=1e-8) == []


def aggregates(levels):
    """Unsmoothed aggregation in 1-D, whose V-cycles get worse with every level."""
    n = 2 ** (levels + 1)
    matrices, prolongations = [sp.diags([-1, 2, -1], [-1, 0, 1], shape=(n, n), format="csr")], []
    for _ in range(levels - 1):
        n //= 2
        prolongations.append(sp.csr_matrix(sp.kron(sp.eye(n), np.ones((2, 1)))))
        P = prolongations[-1]
        matrices.append(sp.csr_matrix(P.T @ matrices[-1] @ P))
    return Hierarchy.from_matrices(matrices, prolongations)


def test_factors_that_grow_with_the_levels():
    (line,) = advice(aggregates(7))
    assert "grows with the number of levels" in line and "F- or W-cycle" in line


def test_corrections_that_are_all_refused():
    refusing = swapped(gallery.poisson(63), 1, line_search=lambda *told: 0.0)
    assert advice(refusing)[0].startswith("level 1: all 12 coarse corrections were refused")
    guarded = swapped(gallery.poisson(63), 1, line_search=Backtracking())
    assert advice(guarded, cycles=50) == []


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_tolerance_below_rounding(dtype):
    hierarchy = in_precision(gallery.poisson(63), dtype)
    f = np.random.default_rng(1).standard_normal(63).astype(dtype)
    (line,) = advice(hierarchy, rtol=1e-20, cycles=60, f=f)
    attainable = float(line.split("rtol=")[1].split(",")[0])
    assert 1.0 < attainable / np.finfo(dtype).eps < 1e5
    assert ("float64" in line.split("rtol=")[1]) == (dtype is np.float32)
    reached = Solver(hierarchy, rtol=attainable, max_cycles=60).solve(f)
    assert reached.reason.converged


@pytest.mark.parametrize(
    ("hierarchy", "cycle"),
    [
        (poisson(), "V(1,1)"),
        (poisson(), "W(1,1)"),
        (poisson(GaussSeidel()), "V(1,0)"),
        (gallery.poisson(127), "nested F(1,1)"),
        (gallery.reaction((63, 63)), "F(2,1)"),
        (gallery.poisson((15, 15, 15)), "V(1,1)"),  # 0.58 per cycle
    ],
)
def test_a_good_solve_hears_nothing(hierarchy, cycle):
    f = np.full(hierarchy[0].unknowns, 0.01)
    assert advice(hierarchy, cycle, cycles=40, f=f) == []


def test_a_transfer_that_is_consistent_in_another_scale_hears_nothing():
    """P and A_c / 4 with P^T / 4: another scaling of the coarse equation, the same iterates."""
    fine, coarse = gallery.poisson(63, levels=2)
    transfer = MatrixTransfer(fine.transfer.P, fine.transfer.P.T / 4.0)
    levels = [
        replace(fine, transfer=transfer),
        replace(coarse, operator=sp.csr_matrix(coarse.matrix / 4.0)),
    ]
    assert advice(Hierarchy(levels)) == []


def test_a_slow_solve_without_a_culprit():
    (line,) = advice(Hierarchy([Level(np.eye(3), Jacobi(0.3))]), "pre 1")
    assert "no single level is the cause" in line


@dataclass(frozen=True)
class Wandering(Jacobi):
    """As an optimizer, whose sweeps may raise the residual."""

    monotone = False


def test_optimizers_are_not_judged_by_the_residual():
    assert advice(swapped(poisson(), 0, smoother=Wandering(0.01))) == []


def test_residuals_may_live_on_a_part_of_the_state():
    """MGRIT's live on C-layers; the comparison of the operators does without them."""
    problem = heat(31, 64, final_time=0.5)
    solution = Solver(problem.hierarchy(3, 4), max_cycles=4).solve(u=problem.guess())
    for pairs in Diagnosis(solution).changes.values():
        for fine, coarse in pairs:
            assert 0.8 < fine / coarse < 1.25


def test_restarts_are_told():
    hierarchy, f = gallery.reaction((127, 31), 100.0), np.full(127 * 31, 0.1)
    solution = Solver(hierarchy, max_cycles=60, acceleration=Anderson()).solve(f)
    assert f"the acceleration restarted {solution.restarts} times" in solution.explain()


def test_shortened_corrections_are_compared_in_full():
    shortened = swapped(gallery.poisson(31, levels=2), 0, line_search=lambda *told: 0.25)
    solution = Solver(shortened, max_cycles=3).solve(np.ones(31))
    ((fine, coarse),) = Diagnosis(solution).changes[0]
    assert fine / coarse == pytest.approx(1.0)


def periodic(n, dimension):
    """Poisson's equation on a torus, which constants solve for f = 0."""
    line = sp.diags_array([2.0 * np.ones(n), -np.ones(n - 1), -np.ones(n - 1)], offsets=[0, 1, -1])
    line = sp.lil_array(line)
    line[0, n - 1] = line[n - 1, 0] = -1.0
    A, eye = sp.csr_matrix(line), sp.eye_array(n)
    return A if dimension == 1 else sp.csr_matrix(sp.kron(A, eye) + sp.kron(eye, A))


SMOOTHERS = [Jacobi(), GaussSeidel(), GaussSeidel("symmetric"), Chebyshev(2)]


@pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_a_singular_system_without_a_solution(smoother, seed):
    draw = np.random.default_rng(seed)
    A = periodic(int(draw.integers(12, 20)), int(draw.integers(1, 3)))
    make = (pyamg.ruge_stuben_solver, pyamg.smoothed_aggregation_solver)[seed % 2]
    hierarchy = Hierarchy.from_pyamg(make(A, max_coarse=int(draw.choice([3, 10, 1000]))), smoother)
    f = draw.standard_normal(A.shape[0])
    solution = Solver(hierarchy).solve(f - f.mean() + 1.0)
    if not solution.reason.converged:  # in rounding, an immense state may solve it
        assert "(its mean, for a periodic or a Neumann" in solution.explain()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(6))
def test_standing_at_rounding_is_a_reason(seed, dtype):
    draw = np.random.default_rng(seed)
    shape = ((31,), (63,), (15, 15))[draw.integers(3)]
    smoother = SMOOTHERS[draw.integers(4)]
    hierarchy = in_precision(gallery.poisson(shape, smoother=smoother), dtype)
    f = draw.standard_normal(hierarchy[0].unknowns).astype(dtype)
    solution = Solver(hierarchy, rtol=1e-25, max_cycles=80).solve(f)
    assert solution.reason is Reason.ROUNDING
    assert not solution.reason.converged
    assert "use a tolerance of at least about rtol=" in solution.explain()
    falling = Solver(hierarchy, rtol=1e-25, max_cycles=3).solve(f)
    assert falling.reason is Reason.MAX_CYCLES


@pytest.mark.parametrize(
    "hierarchy",
    [gallery.poisson(63, smoother=Nothing()), gallery.poisson((63, 7), smoother=Jacobi(1e-3))],
    ids=["nothing", "slow"],
)
def test_a_solve_that_stagnates_above_rounding_does_not_stand_there(hierarchy):
    solution = Solver(hierarchy, max_cycles=20).solve(np.ones(hierarchy[0].unknowns))
    assert solution.reason is Reason.MAX_CYCLES


def test_a_start_at_the_solution_stands_at_rounding():
    hierarchy, f = gallery.poisson(63), np.random.default_rng(0).standard_normal(63)
    u = Solver(hierarchy, rtol=1e-25, max_cycles=80).solve(f).value
    assert Solver(hierarchy, rtol=1e-25, max_cycles=5).solve(f, u).reason is Reason.ROUNDING


def test_a_state_of_zeros_does_not_stand_at_rounding():
    level = gallery.poisson(7)[0]
    assert not stands_at_rounding([1.0] * 5, level, np.linalg.norm, np.zeros(7), np.ones(7))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
@pytest.mark.parametrize("seed", range(40))
def test_every_ending_is_explained(seed):
    draw = np.random.default_rng(seed)
    shape = ((1,), (3,), (31,), (7, 7))[draw.integers(4)]
    smoother = [*SMOOTHERS, Nothing(), Jacobi(3.0), Jacobi(1e30)][draw.integers(7)]
    hierarchy = gallery.poisson(shape, levels=[None, 1][draw.integers(2)], smoother=smoother)
    f = draw.standard_normal(hierarchy[0].unknowns)
    f *= draw.choice([0.0, 1.0, 1e-320, 1e-200, 1e200, 1e308, np.inf, np.nan])
    solution = Solver(
        hierarchy,
        ("V(1,1)", "F(2,0)", "nested W(0,1)")[draw.integers(3)],
        rtol=draw.choice([0.0, 1e-20, 1e-6, 1.0]),
        max_cycles=int(draw.choice([1, 2, 60])),
        acceleration=(None, Anderson(2))[draw.integers(2)],
        monitor=[None, lambda *told: True][int(draw.integers(5) == 0)],
    ).solve(f)
    for text in (solution.explain(), str(solution), repr(solution)):
        assert text
    assert len(solution.history) == solution.cycles + 1
    assert isinstance(solution.factor, float)


@pytest.mark.parametrize("acceleration", [CG(), FGMRES(), Anderson()])
def test_an_accelerated_solve_is_not_told_to_accelerate(acceleration):
    solver = Solver(gallery.poisson((127, 7)), max_cycles=6, acceleration=acceleration)
    told = solver.solve(np.random.default_rng(0).standard_normal(889)).explain()
    assert "LineRelaxation" in told and "acceleration=" not in told


@pytest.mark.parametrize("seed", range(8))
def test_what_only_rounding_stops_is_blamed_on_nothing_else(seed):
    draw = np.random.default_rng(seed)
    kinds = ("periodic", "neumann")[draw.integers(2)], ("neumann", "dirichlet")[draw.integers(2)]
    shape = ((700,), (30, 21))[draw.integers(2)]
    c = 10.0 ** draw.uniform(-4.0, 4.0, shape)
    hierarchy = Hierarchy.geometric(shape, coefficients=c, boundary=kinds[: len(shape)])
    f = draw.standard_normal(hierarchy[0].unknowns) + 1.0
    for acceleration in (CG(), GMRES(), FGMRES()):
        solver = Solver(hierarchy, acceleration=acceleration, rtol=1e-25, max_cycles=200)
        solution = solver.solve(f)
        assert solution.reason is Reason.ROUNDING, str(solution)
        assert not solution.message
        r = f - hierarchy[0].matrix @ solution.value
        if hierarchy.nullspace is not None:
            r -= r.mean()
        assert 0.2 < solution.residual_norms[-1] / np.linalg.norm(r) < 5.0


@pytest.mark.parametrize("method", [None, CG(), GMRES(5), FGMRES(), Anderson()], ids=str)
def test_a_neumann_problem_without_a_null_space_is_told_under_any_acceleration(method):
    A = sp.lil_matrix(sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(31, 31)))
    A[0, 0] = A[-1, -1] = 1.0
    hierarchy = Hierarchy([Level(sp.csr_matrix(A), Jacobi())])
    f = np.random.default_rng(0).standard_normal(31) + 0.5
    solution = Solver(hierarchy, "V(0,0)", acceleration=method, max_cycles=60).solve(f)
    assert not solution.reason.converged
    told = solution.explain()
    assert "or give the hierarchy its nullspace ('constant', there)" in told
