"""Laws: multigrid converges as theory says, PyAMG agrees cycle by cycle, reasons are true."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pyamg
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch

from mgnet import (
    Anderson,
    Chebyshev,
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Krylov,
    Level,
    Reason,
    Schedule,
    Smoother,
    Solver,
    Step,
    cycle,
    gallery,
    parse,
    run,
)
from mgnet.solver import _check_clocks
from mgnet.training import LeastSquares, LevenbergMarquardt


def asymptotic_factor(hierarchy, schedule, cycles=24, last=8):
    """Residual reduction per cycle for f = 0, after the transient."""
    rng, memory, norms = np.random.default_rng(0), None, []
    u = rng.standard_normal(hierarchy[0].unknowns)
    f = np.zeros_like(u)
    for _ in range(cycles):
        u, memory = run(schedule, hierarchy, u, f, memory)
        norms.append(np.linalg.norm(hierarchy[0].residual_at(u, f)))
        u = u / norms[-1]
    return math.exp(np.mean(np.log(norms[-last:])))


def local_fourier_factor(dimension, omega, sweeps, frequencies=32):
    """Two-grid factor by local Fourier analysis: Jacobi, linear P, restriction P^T."""
    low = (np.arange(frequencies) + 0.5) / frequencies * np.pi - np.pi / 2
    worst = 0.0
    for theta in itertools.product(low, repeat=dimension):
        harmonics = [
            np.array(theta) + np.pi * np.array(shift)
            for shift in itertools.product((0, 1), repeat=dimension)
        ]
        A = np.array([np.sum(2 - 2 * np.cos(h)) for h in harmonics])
        restriction = np.array([np.prod(1 + np.cos(h)) for h in harmonics])
        coarse = np.sum(2 - 2 * np.cos(2 * np.array(theta))) * 2.0 ** (dimension - 2)
        correction = np.eye(2**dimension) - np.outer(
            restriction / 2**dimension, restriction * A / coarse
        )
        smoothing = np.diag((1 - omega * A / (2 * dimension)) ** sweeps)
        worst = max(worst, abs(np.linalg.eigvals(smoothing @ correction)).max())
    return worst


@pytest.mark.parametrize(
    ("dimension", "text", "exponents"),
    [
        (1, "V(1,1)", range(6, 13)),
        (1, "F(1,1)", range(4, 13)),
        (1, "W(1,1)", range(4, 13, 2)),
        (2, "V(1,1)", range(6, 9)),
        (2, "F(1,1)", range(4, 9)),
        (2, "W(1,1)", range(4, 9)),
    ],
)
def test_the_residual_factor_does_not_depend_on_the_mesh(dimension, text, exponents):
    factors = []
    for k in exponents:
        hierarchy = gallery.poisson((2**k - 1,) * dimension)
        factors.append(asymptotic_factor(hierarchy, parse(text, len(hierarchy))))
    assert max(factors) / min(factors) < 1.1


@pytest.mark.parametrize(("dimension", "points"), [(1, 255), (2, 127)])
@pytest.mark.parametrize("omega", [2 / 3, 0.8])
@pytest.mark.parametrize(("pre", "post"), [(1, 0), (1, 1), (2, 1)])
def test_two_grid_factors_are_those_of_local_fourier_analysis(dimension, points, omega, pre, post):
    hierarchy = gallery.poisson((points,) * dimension, levels=2, smoother=Jacobi(omega))
    measured = asymptotic_factor(hierarchy, cycle(2, pre=pre, post=post), cycles=60, last=10)
    assert measured == pytest.approx(local_fourier_factor(dimension, omega, pre + post), rel=0.02)


@pytest.mark.parametrize("points", [63, 255])
def test_one_nested_cycle_reaches_the_discretisation_error(points):
    u, f = gallery.sine((points, points))
    discrete = f / (4 - 4 * np.cos(np.pi / (points + 1)))  # sin sin is an eigenvector
    hierarchy = gallery.poisson((points, points), smoother=GaussSeidel())
    schedule = parse("nested F(1,1)", len(hierarchy))
    value, _ = run(schedule, hierarchy, None, f)
    assert np.linalg.norm(value - discrete) < 0.5 * np.linalg.norm(discrete - u)
    assert schedule.work(hierarchy).units <= 10


def in_pyamg(hierarchy, relax):
    """The same matrices, smoother and coarse solver as a PyAMG solver."""
    levels = []
    for level in hierarchy:
        part = pyamg.multilevel.MultilevelSolver.Level()
        part.A = level.matrix
        if level.transfer is not None:
            part.P, part.R = level.transfer.P, level.transfer.P.T.tocsr()
            part.presmoother = part.postsmoother = relax
        levels.append(part)
    return pyamg.multilevel.MultilevelSolver(levels, coarse_solver="splu")


def pyamg_jacobi(A, x, b):
    pyamg.relaxation.relaxation.jacobi(A, x, b, omega=2 / 3)


def pyamg_gauss_seidel(A, x, b):
    pyamg.relaxation.relaxation.gauss_seidel(A, x, b)


@pytest.mark.parametrize("letter", ["V", "W", "F"])
@pytest.mark.parametrize(
    ("smoother", "relax"), [(Jacobi(), pyamg_jacobi), (GaussSeidel(), pyamg_gauss_seidel)]
)
def test_residual_histories_are_those_of_pyamg(letter, smoother, relax):
    hierarchy = gallery.poisson((63, 63), smoother=smoother)
    f = np.random.default_rng(1).standard_normal(63 * 63)
    theirs: list[float] = []
    in_pyamg(hierarchy, relax).solve(f, tol=1e-300, maxiter=10, cycle=letter, residuals=theirs)
    ours = Solver(hierarchy, f"{letter}(1,1)", rtol=0.0, max_cycles=10).solve(f).residual_norms
    assert len(ours) == len(theirs) == 11
    assert max(abs(np.array(ours) - theirs)) <= 1e-10 * theirs[0]


def test_histories_agree_on_an_algebraic_hierarchy():
    A = pyamg.gallery.linear_elasticity((12, 12))[0].tocsr()
    theirs_solver = pyamg.smoothed_aggregation_solver(
        A, presmoother=("jacobi", {"omega": 0.5}), postsmoother=("jacobi", {"omega": 0.5})
    )
    f, theirs = np.ones(A.shape[0]), []
    theirs_solver.solve(f, tol=1e-300, maxiter=8, residuals=theirs)
    levels = []
    for part, level in zip(theirs_solver.levels, Hierarchy.from_pyamg(theirs_solver), strict=True):
        smoother = level.smoother
        if level.transfer is not None:  # PyAMG divides the damping by the spectral radius of D^-1 A
            smoother = Jacobi(0.5 / part.A.rho_D_inv)
        levels.append(Level(level.operator, smoother, level.transfer))
    ours = Solver(Hierarchy(levels), rtol=0.0, max_cycles=8).solve(f).residual_norms
    assert max(abs(np.array(ours) - theirs)) <= 1e-10 * theirs[0]


@pytest.mark.parametrize(
    "smoother", [Jacobi(), GaussSeidel("symmetric"), Chebyshev(2)], ids=lambda s: type(s).__name__
)
def test_a_cycle_preconditions_conjugate_gradients(smoother):
    hierarchy = gallery.poisson((63, 63), smoother=smoother)
    A, f = hierarchy[0].matrix, np.random.default_rng(0).standard_normal(63 * 63)
    M = Solver(hierarchy).as_preconditioner()
    counts = []
    for preconditioner in (None, M):
        steps = []
        u, info = spla.cg(A, f, rtol=1e-10, M=preconditioner, callback=steps.append)
        assert info == 0
        assert np.linalg.norm(f - A @ u) <= 1e-9 * np.linalg.norm(f)
        counts.append(len(steps))
    assert counts[1] < counts[0] / 5
    x, y = np.random.default_rng(1).standard_normal((2, 63 * 63))
    assert x @ (M @ y) == pytest.approx(y @ (M @ x), rel=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128, np.int64, np.int16])
def test_a_preconditioner_has_the_precision_of_its_matrix(dtype):
    A = sp.csr_matrix(1000 * sp.eye(31) - sp.eye(31, k=1) - sp.eye(31, k=-1)).astype(dtype)
    shifted = A if dtype != np.complex128 else sp.csr_matrix(A + 300j * sp.eye(31))
    level = Level(shifted, Direct())
    M = Solver(Hierarchy([level]), "V(0,0,1)").as_preconditioner()
    f = np.arange(31.0) * (1 + 2j) if dtype == np.complex128 else np.arange(31.0)
    assert M.dtype == (np.float64 if dtype in (np.int64, np.int16) else dtype)
    exact = np.linalg.solve(shifted.toarray(), f)
    np.testing.assert_allclose(M @ f, exact, rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_a_real_preconditioner_takes_complex_vectors_part_by_part():
    for dtype in (np.float32, np.float64):
        level = Level(gallery.poisson(7)[0].matrix.astype(dtype), GaussSeidel())
        M = Solver(Hierarchy([level]), "V(0,0,3)").as_preconditioner()
        real, imaginary = np.arange(7.0), np.ones(7)
        for f in (real + 1j * imaginary, real):  # in any order
            expected = M.matvec(f.real) + (1j * M.matvec(f.imag) if f.dtype.kind == "c" else 0.0)
            np.testing.assert_allclose(M.matvec(f), expected, rtol=1e-6)


def test_a_preconditioner_needs_the_number_of_unknowns():
    solver = Solver(Hierarchy([Level(lambda u: 2.0 * u, Krylov())]), "V(0,0,1)")
    with pytest.raises(ValueError, match=r"without a number of unknowns; give Level\(size="):
        solver.as_preconditioner()


def test_a_nonlinear_problem_is_solved():
    hierarchy = gallery.reaction((31, 31), strength=50.0)
    f = np.full(31 * 31, 100.0 / 32**2)
    solution = Solver(hierarchy, "F(2,1)", rtol=1e-10).solve(f).require()
    A = hierarchy[0].operator.matrix
    residual = f - A @ solution.value - 50.0 / 32**2 * solution.value**3
    assert np.linalg.norm(residual) <= 1e-9 * np.linalg.norm(f)
    assert solution.factor < 0.3  # local Fourier analysis gives 0.295 for the linear problem


# Reasons and bookkeeping


def test_reasons():
    hierarchy = gallery.poisson(31)
    f = np.ones(31)
    assert Solver(hierarchy).solve(f).reason is Reason.RTOL
    assert Solver(hierarchy, rtol=0.0, atol=1e-3).solve(f).reason is Reason.ATOL
    assert Solver(hierarchy, max_cycles=2).solve(f).reason is Reason.MAX_CYCLES
    diverging = gallery.poisson(31, smoother=Jacobi(5.0))
    assert Solver(diverging, max_cycles=500).solve(f).reason is Reason.DIVERGED
    exact = Solver(hierarchy).solve(np.zeros(31))
    assert (exact.reason, exact.cycles) == (Reason.ATOL, 0)


def test_a_warm_start_at_the_solution_needs_no_cycle():
    hierarchy = gallery.poisson(31)
    solver = Solver(hierarchy)
    first = solver.solve(np.ones(31))
    second = solver.solve(np.ones(31), first.value)
    assert (second.cycles, second.reason) == (0, Reason.RTOL)


class Poison(Smoother):
    """Returns NaN at its third visit."""

    def start(self, level, u):
        return 0

    def smooth(self, level, u, f, sweeps, memory):
        return (u * np.nan if memory == 2 else u), memory + 1


def test_nan_stops_at_once_and_names_cycle_step_and_level():
    parts = list(gallery.poisson(31, levels=3))
    levels = [parts[0], Level(parts[1].operator, Poison(), parts[1].transfer), parts[2]]
    seen = []
    solver = Solver(Hierarchy(levels), monitor=lambda *told: seen.append(told))
    solution = solver.solve(np.ones(31))
    assert solution.reason is Reason.NOT_FINITE
    assert solution.message == "cycle 2, step 3, 'pre 1' on level 1: the state is not finite"
    assert np.isfinite(solution.value).all()
    assert len(seen) == len(solution.residual_norms) == 2
    with pytest.raises(RuntimeError, match="step 3, 'pre 1' on level 1"):
        solution.require()


def test_an_infinite_right_hand_side_is_refused_by_its_reason():
    f = np.ones(31)
    f[3] = np.inf
    assert Solver(gallery.poisson(31)).solve(f).reason is Reason.NOT_FINITE


def test_the_opening_of_a_nested_schedule_runs_once():
    hierarchy = gallery.poisson(63)
    f = np.ones(63)
    solution = Solver(hierarchy, "nested V(1,1)").solve(f)
    starts = [entry.cycle for entry in solution.record if entry.step.action == "start"]
    assert starts == [1]
    value, memory = run(parse("nested V(1,1)", 6), hierarchy, None, f)
    for _ in range(solution.cycles - 1):
        value, memory = run(cycle(6), hierarchy, value, f, memory)
    assert np.array_equal(value, solution.value)


def test_work_is_that_of_all_steps_and_checks():
    hierarchy = gallery.poisson(63)
    solution = Solver(hierarchy, "V(2,1)").solve(np.ones(63))
    per_cycle = cycle(6, pre=2).work(hierarchy).units
    assert solution.work == pytest.approx(solution.cycles * per_cycle + solution.cycles + 1)


@pytest.mark.parametrize("text", ["V(2,1)", "nested F(1,1)"])
def test_the_history_is_that_of_the_states(text):
    hierarchy, f, states = gallery.poisson((15, 15)), np.linspace(1.0, 2.0, 225), []
    solution = Solver(hierarchy, text, monitor=lambda entry, u: states.append(u)).solve(f)
    A = hierarchy[0].matrix.toarray()
    norms = [np.linalg.norm(f - A @ u) for u in states]
    assert solution.residual_norms == pytest.approx(norms, rel=1e-4)  # the last by cancellation
    told = [(entry.cycle, entry.value) for entry in solution.history]
    assert told == [(k, None) for k in range(len(norms))]
    first = parse(text, len(hierarchy)).work(hierarchy).units
    later = parse(text.replace("nested ", ""), len(hierarchy)).work(hierarchy).units
    works = [1.0, *(2.0 + first + k * (later + 1.0) for k in range(solution.cycles))]
    assert [entry.work for entry in solution.history] == pytest.approx(works)
    assert solution.work == pytest.approx(works[-1])
    seconds = [entry.seconds for entry in solution.history]
    assert 0.0 < seconds[0] and seconds == sorted(seconds) and seconds[-1] <= solution.seconds
    assert {entry.level for entry in solution.history} == {0}


class Plain(Smoother):
    """Another smoother without its `smooth_ahead`."""

    def __init__(self, other):
        self.other = other

    def start(self, level, u):
        return self.other.start(level, u)

    def smooth(self, level, u, f, sweeps, memory):
        return self.other.smooth(level, u, f, sweeps, memory)

    def work(self, level, sweeps):
        return self.other.work(level, sweeps)


@pytest.mark.parametrize("cycle", ["V(1,1)", "V(2,0)", "F(0,1)", "nested W(1,2)"])
@pytest.mark.parametrize("acceleration", [None, Anderson(2)], ids=["plain", "Anderson"])
@pytest.mark.parametrize("smoother", [Jacobi(), GaussSeidel("symmetric"), Chebyshev()], ids=str)
def test_a_residual_that_a_sweep_gives_changes_no_bit_and_no_work(smoother, acceleration, cycle):
    f = gallery.sine((31, 31))[1]
    f += np.random.default_rng(0).standard_normal(f.shape) * abs(f).max()
    ahead, plain = (
        Solver(gallery.poisson((31, 31), smoother=each), cycle, acceleration=acceleration).solve(f)
        for each in (smoother, Plain(smoother))
    )
    np.testing.assert_array_equal(ahead.value, plain.value)
    assert ahead.residual_norms == plain.residual_norms
    assert ahead.work == plain.work
    counted = [
        [(entry.work, entry.residual_norm) for entry in each.record] for each in (ahead, plain)
    ]
    assert counted[0] == counted[1]
    r = f - gallery.poisson((31, 31))[0].matrix @ ahead.value
    assert ahead.residual_norms[-1] == pytest.approx(np.linalg.norm(r), rel=1e-5)


def test_the_set_up_is_spared_when_memory_is_kept():
    starts = []

    class Counting(Smoother):
        def start(self, level, u):
            starts.append(level)
            return "set up"

        def smooth(self, level, u, f, sweeps, memory):
            return u + 0.25 * level.residual_at(u, f), memory

    solver = Solver(Hierarchy([Level(np.eye(2), Counting())]), max_cycles=3)
    memory = solver.solve(np.ones(2)).memory
    solver.solve(np.ones(2), memory=memory)
    assert len(starts) == 1
    M = solver.as_preconditioner()
    for _ in range(3):
        M.matvec(np.ones(2))
    assert len(starts) == 2


def test_batches_are_bound_one_per_cycle():
    seen = []

    def bind(batch):
        return [Level(lambda u: u - batch, Step_to_zero())]

    class Step_to_zero(Smoother):  # noqa: N801
        def smooth(self, level, u, f, sweeps, memory):
            return u + level.residual_at(u, f), memory

    hierarchy = Hierarchy(bind(0.0), bind=bind)
    solver = Solver(hierarchy, batches=[3.0, 5.0, 7.0], monitor=lambda *told: seen.append(told))
    solution = solver.solve(u=np.zeros(1))
    assert solution.reason is Reason.BATCHES
    assert [float(state[0]) for _, state in seen] == [0.0, 3.0, 5.0, 7.0]
    assert [entry.cycle for entry, _ in seen] == [0, 1, 2, 3]
    capped = Solver(hierarchy, batches=[3.0, 5.0, 7.0], max_cycles=2).solve(u=np.zeros(1))
    assert capped.reason is Reason.MAX_CYCLES
    assert float(capped.value[0]) == 5.0
    with pytest.raises(ValueError, match="no batches"):
        Solver(hierarchy, batches=[]).solve(u=np.zeros(1))


def test_integers_become_floats():
    solution = Solver(gallery.poisson(7)).solve(np.ones(7, dtype=int))
    assert solution.value.dtype == float


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda h: Solver(list(h)), TypeError, "takes a Hierarchy"),
        (lambda h: Solver(h, rtol=-1.0), ValueError, "must not be negative"),
        (lambda h: Solver(h, max_cycles=0), ValueError, "max_cycles 0; it must be at least 1"),
        (lambda h: Solver(h, "V(1,1"), ValueError, "character 6"),
        (lambda h: Solver(h, cycle(5)), ValueError, "levels 0 to 2"),
        (lambda h: Solver(h, "start, solve, interpolate, interpolate"), ValueError, "repeat"),
        (lambda h: Solver(h).solve(), ValueError, "neither f nor u"),
        (lambda h: Solver(h).solve(np.ones(8)), ValueError, "8 entries; level 0 has 7"),
        (lambda h: Solver(h).solve(np.ones(7), np.ones((7, 1))), ValueError, "must be equal"),
        (lambda h: Solver(h).solve(np.ones((1, 7))), ValueError, r"ravel\(\)"),
        (lambda h: Solver(h).solve("ones"), TypeError, "a state must be"),
        (lambda h: Solver(h, batches=[1]).solve(np.ones(7)), TypeError, "bind"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, kind, words):
    with pytest.raises(kind, match=words):
        call(gallery.poisson(7))


def test_a_schedule_by_hand_is_taken_as_it_is():
    hierarchy = gallery.poisson(7, levels=2)
    by_hand = Schedule(
        [Step("pre", 0), Step("down", 0), Step("solve", 1), Step("up", 0), Step("post", 0)]
    )
    f = np.ones(7)
    assert np.array_equal(
        Solver(hierarchy, by_hand).solve(f).value, Solver(hierarchy, "V(1,1)").solve(f).value
    )


def test_the_monitor_ends_a_solve_and_the_recorder_hears_every_step():
    hierarchy, told = gallery.poisson(7), []
    solver = Solver(
        hierarchy,
        monitor=lambda entry, u: entry.cycle == 3,
        record=lambda step, data: told.append((step, data.work)),
    )
    solution = solver.solve(np.ones(7))
    assert solution.reason is Reason.MONITOR and solution.cycles == 3
    assert told == [(entry.step, entry.work) for entry in solution.record]


def test_a_tolerance_comes_before_the_monitor():
    low = lambda entry, u: entry.residual_norm < 1.0  # noqa: E731
    solver = Solver(gallery.poisson(7), rtol=0.5, monitor=low)
    assert solver.solve(np.ones(7)).reason is Reason.RTOL


class Wandering(Smoother):
    """Goes to the given places, one per sweep."""

    monotone = False

    def smooth(self, level, u, f, sweeps, memory):
        place = 0 if memory is None else memory
        return np.array([(2.0, 0.5, 3.0, 1.0)[place]]), place + 1


def test_the_best_state_is_kept_where_a_smoother_wanders():
    level = Level(lambda u: u, Wandering(), objective=lambda u: 0.5 * float(u @ u))
    told = []

    def solve(level, **options):
        schedule = Schedule([Step("solve", 0)])
        return Solver(Hierarchy([level]), schedule, max_cycles=4, **options).solve(u=np.ones(1))

    solution = solve(level, monitor=lambda entry, u: told.append(float(u[0])))
    assert told == [1.0, 2.0, 0.5, 3.0, 1.0]  # it goes on from the last state
    assert solution.value == 0.5
    assert solution.values == tuple(0.5 * u * u for u in told)
    assert solution.work == 5.0 + 5.0  # norms and values
    assert [entry.work for entry in solution.history] == [2.0, 4.0, 6.0, 8.0, 10.0]
    text = "objective 0.5 from 0.5 (least 0.125), residual norm 1 from 1, 10 work units"
    assert text in str(solution)
    assert solve(level, merit=lambda u: -float(u[0])).value == 3.0
    batched = Hierarchy([level], bind=lambda batch: [level])
    schedule = Schedule([Step("solve", 0)])
    assert Solver(batched, schedule, batches=range(3)).solve(u=np.ones(1)).value == 3.0
    best = Solver(batched, schedule, batches=range(3), merit=level.objective)
    assert best.solve(u=np.ones(1)).value == 0.5


def test_a_state_that_is_best_to_rounding_is_not_replaced():
    level = Level(lambda u: u, Wandering(), objective=lambda u: 1.0 + 1e-15 * float(u[0]))
    solver = Solver(Hierarchy([level]), Schedule([Step("solve", 0)]), max_cycles=3)
    assert solver.solve(u=np.ones(1)).value == 3.0


# Tensors -------------------------------------------------------------------------------------


def states_of(values):
    """Complex numbers as an array, and as every kind of view that a torch tensor can be."""
    z = torch.tensor(values)
    yield z
    yield z.conj().resolve_conj().conj()
    yield torch.ops.aten._neg_view(-z)
    yield z.clone().requires_grad_()
    yield (1j * z.conj()).resolve_conj().conj().imag  # the negative bit, and real


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "smoother",
    [Jacobi(0.9), GaussSeidel(), Chebyshev(), Direct(), Direct("pinv"), Krylov("gmres")],
    ids=str,
)
def test_views_of_tensors_are_solved(smoother, seed):
    draw = np.random.default_rng(seed)
    matrix = np.diag(draw.uniform(2.0, 3.0, 4)) + 0.2 * draw.standard_normal((4, 4))
    matrix = matrix + matrix.T
    for f in states_of(draw.standard_normal(4) + 1j * draw.standard_normal(4)):
        own = torch.tensor(matrix).to(f.dtype)
        if f.is_complex():
            own = own + 0.1j * torch.eye(4)
        solver = Solver(Hierarchy([Level(own, smoother)]), "V(0,0,4)", rtol=1e-12, max_cycles=99)
        for start in (None, 0.5 * f):
            u = solver.solve(f, start).require().value
            expected = np.linalg.solve(own.numpy(), f.detach().resolve_conj().resolve_neg().numpy())
            np.testing.assert_allclose(u.detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["conjugate", "negative"])
def test_the_matrix_may_be_a_view(kind):
    z = torch.tensor([[4.0 + 1.0j, 1.0], [1.0, 3.0 - 0.5j]], dtype=torch.complex128)
    matrix = z.conj() if kind == "conjugate" else torch.ops.aten._neg_view(z)
    f = torch.tensor([1.0, 2.0 + 1.0j], dtype=torch.complex128)
    for smoother in (Jacobi(0.9), GaussSeidel(), Direct()):
        u = Solver(Hierarchy([Level(matrix, smoother)]), "V(0,0,9)").solve(f).require().value
        expected = np.linalg.solve(matrix.resolve_conj().resolve_neg().numpy(), f.numpy())
        np.testing.assert_allclose(u.numpy(), expected, rtol=1e-6)


def test_a_solve_copies_no_state_to_the_host(monkeypatch):
    """A CPU tensor stands for one on an accelerator: there, `cpu` waits and copies."""
    level = Level(2.0 * torch.eye(3, dtype=torch.float64), Jacobi())
    hierarchy, f = Hierarchy([level]), torch.ones(3, dtype=torch.float64)
    memory = Solver(hierarchy).solve(f).memory  # the set-up may read the matrix

    def refuse(self, *_):
        raise AssertionError("a state was copied to the host")

    monkeypatch.setattr(torch.Tensor, "cpu", refuse)
    monkeypatch.setattr(torch.Tensor, "numpy", refuse)
    solution = Solver(hierarchy).solve(f, torch.zeros_like(f), memory)
    assert torch.allclose(solution.require().value, 0.5 * f)
    assert "level" in solution.explain()
    hierarchy.check(f)


def test_seconds_end_a_solve_after_a_cycle(monkeypatch):
    clock = SimpleNamespace(now=5.0)
    monkeypatch.setattr(
        "mgnet.solver.time", SimpleNamespace(perf_counter=lambda: clock.now), raising=True
    )

    def monitor(entry, state):
        clock.now += 1.0

    solution = Solver(gallery.poisson(63), rtol=0.0, monitor=monitor, seconds=3.0).solve(
        np.ones(63)
    )
    assert solution.reason is Reason.SECONDS and solution.cycles == 3
    assert not solution.reason.converged


def test_tolerances_go_before_seconds():
    solution = Solver(gallery.poisson(15), rtol=10.0, seconds=1e-9).solve(np.ones(15))
    assert solution.reason is Reason.RTOL


def test_seconds_with_batches():
    x = torch.linspace(0.0, 1.0, 9, dtype=torch.float64).unsqueeze(1)
    problem = LeastSquares(torch.nn.Linear(1, 1).double(), (x, x))
    level = Level(problem, LevenbergMarquardt(), objective=problem.value)

    def bind(batch):
        bound = problem.with_data(batch)
        return [Level(bound, LevenbergMarquardt(), objective=bound.value)]

    hierarchy = Hierarchy([level], bind=bind)
    solver = Solver(hierarchy, "V(0,0,1)", batches=[(x, x)] * 9, seconds=1e-9)
    solution = solver.solve(u=problem.start())
    assert solution.reason is Reason.SECONDS and solution.cycles == 0


def test_seconds_are_refused_where_clocks_differ(monkeypatch):
    monkeypatch.setattr("mgnet.vector.is_vec", lambda u: True)
    for processes in (1, 2):
        u = SimpleNamespace(getComm=lambda n=processes: SimpleNamespace(getSize=lambda: n))
        _check_clocks(math.inf, u)
        if processes == 1:
            _check_clocks(1.0, u)
    with pytest.raises(ValueError, match="Vec over 2 processes, whose clocks differ; give max_cyc"):
        _check_clocks(1.0, u)
