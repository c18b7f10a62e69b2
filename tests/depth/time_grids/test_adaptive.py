"""Laws: estimates bound errors, by SciPy; grids are small; what is not reached is not claimed."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from mgnet.depth.mgrit.one_step import OneStep, heat
from mgnet.depth.time_grids.adaptive import adaptive
from mgnet.depth.time_grids.adaptive_solution import Ending
from mgnet.depth.time_grids.implicit_step import ImplicitStep
from mgnet.depth.time_grids.local_errors import local_errors
from mgnet.depth.time_grids.van_der_pol import van_der_pol

MU = 1000.0


def stiff(t, u):
    return [u[1], MU * (1.0 - u[0] ** 2) * u[1] - u[0]]


def stiff_jacobian(t, u):
    return [[0.0, 1.0], [-2.0 * MU * u[0] * u[1] - 1.0, MU * (1.0 - u[0] ** 2)]]


@pytest.fixture(scope="module")
def oscillator():
    """Van der Pol's trajectory at 65 times, far more exact than anything here."""
    times = np.linspace(0.0, 2.0 * MU, 65)
    options = {"method": "Radau", "rtol": 1e-12, "atol": 1e-12, "jac": stiff_jacobian}
    return solve_ivp(stiff, (0.0, 2.0 * MU), [2.0, 0.0], t_eval=times, **options).y.T


def at_first_points(solution, count):
    """The states at the points of the first grid, which are in every grid."""
    wanted = np.linspace(solution.times[0], solution.times[-1], count)
    found = np.array([np.argmin(abs(solution.times - t)) for t in wanted])
    assert abs(solution.times[found] - wanted).max() < 1e-9 * abs(wanted).max()
    return solution.states[found]


def test_a_third_of_the_steps_of_a_uniform_grid_at_equal_error(oscillator):
    solution = adaptive(van_der_pol(MU), rtol=1e-4, atol=1e-5, order=2).require()
    error = abs(at_first_points(solution, 65)[:, 0] - oscillator[:, 0]).max()
    assert error < 3e-3
    factor = -(-3 * len(solution.problem.steps) // 64)
    uniform = van_der_pol(MU, steps=64 * factor).serial()[::factor, 0]
    assert abs(uniform - oscillator[:, 0]).max() > 100.0 * error


@pytest.mark.parametrize(
    ("method", "order", "tolerances"),
    [("ros2", 2, (1e-3, 1e-4, 1e-5)), ("sdirk3", 3, (1e-3, 1e-4))],
)
def test_smaller_tolerances_give_smaller_errors(oscillator, method, order, tolerances):
    errors, steps = [], []
    for rtol in tolerances:
        problem = van_der_pol(MU, method=method)
        solution = adaptive(problem, rtol=rtol, atol=0.1 * rtol, order=order).require()
        errors.append(abs(at_first_points(solution, 65)[:, 0] - oscillator[:, 0]).max())
        steps.append(len(solution.problem.steps))
    assert all(after < 0.5 * before for before, after in pairwise(errors))
    # A tenth of the tolerance is 10^(1 / (p + 1)) times the steps.
    assert steps[-1] / steps[-2] < 1.6 * 10 ** (1.0 / (order + 1))


def test_errors_are_those_of_the_intervals():
    problem = van_der_pol(5.0, steps=16, final_time=15.0, method="sdirk2")
    solution = adaptive(problem, rtol=1e-5, atol=1e-6).require()
    assert solution.order == 2
    times, states = solution.times, solution.states
    exact = [
        solve_ivp(
            lambda t, u: [u[1], 5.0 * (1.0 - u[0] ** 2) * u[1] - u[0]],
            (times[k], times[k + 2]),
            states[k],
            "DOP853",
            rtol=1e-12,
            atol=1e-13,
        ).y[:, -1]
        for k in range(0, len(times) - 1, 2)
    ]
    found = states[2::2] - np.array(exact)
    scale = 1e-6 + 1e-5 * abs(states[2::2])
    sizes = np.sqrt(((found / scale) ** 2).mean(axis=1))
    assert sizes.max() < 1.5
    large = sizes > 0.3
    assert large.sum() > 10
    apart = abs(solution.errors - found)[large].max(axis=1) / abs(found)[large].max(axis=1)
    assert np.median(apart) < 0.4


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_mgrit_and_marches_agree(levels):
    problem = van_der_pol(10.0, steps=32, final_time=20.0)
    serial = adaptive(problem, order=2, levels=1).require()
    parallel = adaptive(problem, order=2, levels=levels).require()
    assert all(grid.levels == 1 and not grid.notes for grid in serial.grids)
    assert parallel.grids[-1].levels > 1
    again = parallel.problem.serial()
    assert abs(parallel.states - again).max() < 3e-3
    assert abs(len(serial.states) - len(parallel.states)) < 0.1 * len(serial.states)


def test_coarse_grids_leave_little_to_the_last_one():
    problem = heat(31, 32, final_time=0.2)
    solution = adaptive(problem, rtol=0.0, atol=3e-6, order=1).require()
    assert solution.grids[-1].cycles <= 3
    steps = np.asarray(solution.problem.steps)
    assert steps[0] < 0.1 * steps[-1]  # a hat decays fast at first
    assert solution.problem.times[-1] == pytest.approx(0.2, rel=1e-13)


def test_the_solution_is_carried_to_the_next_grid():
    """By a step of the method itself, so that one cycle is enough where the solution is smooth."""
    step = ImplicitStep(
        lambda t, u: u * (1.0 - u), lambda t, u: (1.0 - 2.0 * u)[:, :, None], "sdirk3"
    )
    problem = OneStep(step, np.array([0.2]), np.full(8, 0.375))
    solution = adaptive(problem, rtol=1e-8, atol=1e-8, order=3, levels=2).require()
    assert len(solution.grids) >= 2
    assert [grid.cycles for grid in solution.grids[1:]] == [1] * (len(solution.grids) - 1)


def test_converged_means_every_interval():
    for rtol in (1e-3, 1e-5):
        problem = van_der_pol(10.0, steps=32, final_time=20.0)
        solution = adaptive(problem, rtol=rtol, atol=rtol, order=2).require()
        scale = rtol + rtol * np.maximum(abs(solution.states[:-1:2]), abs(solution.states[2::2]))
        sizes = np.sqrt(((solution.errors / scale) ** 2).mean(axis=1))
        assert sizes.max() <= 1.0
        assert solution.grids[-1].largest == pytest.approx(sizes.max(), rel=1e-12)
        assert [grid.largest > 1.0 for grid in solution.grids[:-1]] == [True] * (
            len(solution.grids) - 1
        )


def test_a_start_that_fails_is_refined_where_it_fails():
    def step(t, dt, u):  # u' = -u; the step fails in (1, 1.2) where it is long
        fails = (t < 1.2) & (t + dt > 1.0) & (dt > 0.04)
        return np.where(fails[:, None], np.nan, u / (1.0 + dt[:, None]))

    problem = OneStep(step, np.array([1.0]), np.full(8, 0.5))
    solution = adaptive(problem, rtol=0.0, atol=1e-2, order=1).require()
    assert solution.grids[0].largest == np.inf
    assert abs(solution.states[:, 0] - np.exp(-solution.times)).max() < 0.05
    near = (solution.times[:-1] > 0.9) & (solution.times[:-1] < 1.2)
    assert np.diff(solution.times)[near].max() < 0.04 + 1e-12


def test_a_step_that_always_fails_is_not_solved():
    def step(t, dt, u):
        return np.where((t + dt > 1.0)[:, None], np.nan, u)

    problem = OneStep(step, np.array([1.0]), np.full(4, 0.5))
    solution = adaptive(problem, order=1)
    assert not solution.converged and solution.ending is Ending.TOO_SHORT
    with pytest.raises(RuntimeError, match="the step fails there"):
        solution.require()


@pytest.mark.parametrize(
    ("limits", "ending"),
    [({"max_grids": 2}, Ending.MAX_GRIDS), ({"max_steps": 100}, Ending.MAX_STEPS)],
)
def test_limits(limits, ending):
    solution = adaptive(van_der_pol(10.0, steps=32, final_time=20.0), order=2, **limits)
    assert solution.ending is ending and not solution.converged
    assert len(solution.problem.steps) <= limits.get("max_steps", 10**6)


def test_first_grid_may_be_unequal_and_begin_anywhere():
    step = ImplicitStep(
        lambda t, u: -50.0 * (u - np.cos(t)[:, None]),
        lambda t, u: np.full((len(u), 1, 1), -50.0),
        "sdirk2",
    )
    problem = OneStep(step, np.array([3.0]), np.array([0.5, 0.25, 1.0, 1.25]), start=2.0)
    solution = adaptive(problem, rtol=1e-5, atol=1e-5).require()
    exact = solve_ivp(
        lambda t, u: -50.0 * (u - np.cos(t)),
        (2.0, 5.0),
        [3.0],
        "Radau",
        t_eval=np.minimum(solution.times, 5.0),
        rtol=1e-10,
        atol=1e-11,
    )
    assert abs(solution.states[:, 0] - exact.y[0]).max() < 2e-4
    for point in problem.times:
        assert abs(solution.times - point).min() < 1e-12


def test_a_step_that_takes_one_dt_for_all_is_refused():
    def step(t, dt, u):
        return u / (1.0 + 10.0 * dt[0] * np.exp(-t[:, None]))

    with pytest.raises(ValueError, match="take each row on its own"):
        adaptive(OneStep(step, np.array([1.0]), np.full(8, 1.0)), rtol=1e-5, order=1)


def test_states_of_any_shape_and_complex():
    def step(t, dt, u):
        return u / (1.0 - 1j * dt[:, None, None] * np.array([[1.0, 2.0], [3.0, 10.0]]))

    problem = OneStep(step, np.ones((2, 2), complex), np.full(8, 0.25))
    solution = adaptive(problem, rtol=1e-3, atol=1e-3).require()
    assert solution.states.shape[1:] == (2, 2) and solution.order == 1
    estimate = local_errors(solution.problem, solution.states, 1)
    assert np.allclose(estimate, solution.errors)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rtol": 0.0, "atol": 0.0}, "one must be positive"),
        ({"rtol": -1.0}, "rtol -1.0; it must not be negative"),
        ({"order": 0}, "adaptive got order = 0"),
        ({"max_grids": 0}, "max_grids = 0"),
        ({"levels": 0}, "levels = 0"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        adaptive(van_der_pol(), **arguments)


def test_entries_that_stay_zero_have_no_error():
    def step(t, dt, u):  # u_1' = -u_1, u_2' = 0 with u_2 = 0
        return u / (1.0 + dt[:, None] * np.array([1.0, 5.0]))

    problem = OneStep(step, np.array([1.0, 0.0]), np.full(8, 0.5))
    solution = adaptive(problem, rtol=1e-3, atol=0.0, order=1, levels=2).require()
    assert solution.grids[-1].levels == 2
    assert (solution.errors[:, 1] == 0.0).all()


@pytest.mark.parametrize("initial", [1.0, np.array([1]), np.ones((2, 3), np.float32), [1.0 + 1j]])
@pytest.mark.parametrize("steps", [np.full(8, 0.5), np.ones(8, int), [0.5] * 8])
def test_kinds_of_numbers(initial, steps):
    def step(t, dt, u):
        return (u / (1.0 + dt.reshape(-1, *[1] * (u.ndim - 1)))).astype(u.dtype)

    problem = OneStep(step, initial, steps)
    solution = adaptive(problem, rtol=1e-3, atol=1e-3).require()
    assert solution.order == 1 and solution.states.dtype == problem.guess().dtype
    exact = np.exp(-solution.times).reshape(-1, *[1] * np.ndim(initial)) * np.asarray(initial)
    assert abs(solution.states - exact).max() < 0.05


def test_a_problem_is_needed():
    with pytest.raises(TypeError, match="got a problem of type int"):
        adaptive(3)  # type: ignore[arg-type]
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="initial state or steps are not finite"):
            adaptive(OneStep(lambda t, dt, u: u, np.array([bad]), np.ones(4)))


def test_one_word_of_relaxation_is_one_word():
    problem = van_der_pol(10.0, steps=32, final_time=20.0)
    word, words = (adaptive(problem, order=2, relaxation=r) for r in ("FCF", ("FCF",)))
    assert str(word) == str(words) and (word.states == words.states).all()


@pytest.mark.parametrize("seed", range(3))
def test_drawn_problems_end_with_their_tolerance(seed):
    """Forced stiff decay with rates, frequencies and grids drawn; the exact solution by SciPy."""
    rng = np.random.default_rng(seed)
    rates, speed = 10.0 ** rng.uniform(0, 4, 2), rng.uniform(1, 20)
    steps, start = rng.uniform(0.05, 0.5, int(rng.integers(4, 12))), rng.uniform(-2, 2)

    def slope(t, u):
        return -rates * (u - np.sin(speed * t)[:, None])

    step = ImplicitStep(slope, lambda t, u: np.tile(np.diag(-rates), (len(t), 1, 1)), "sdirk2")
    problem = OneStep(step, rng.standard_normal(2), steps, start)
    solution = adaptive(problem, rtol=1e-4, atol=1e-4, order=2).require()
    exact = solve_ivp(
        lambda t, u: slope(np.array([t]), u[None])[0],
        (start, solution.times[-1]),
        problem.initial,
        "Radau",
        t_eval=solution.times,
        rtol=1e-9,
        atol=1e-10,
    )
    assert abs(solution.states - exact.y.T).max() < 20 * 2e-4


def test_time_goes_forward():
    problem = OneStep(lambda t, dt, u: u, np.ones(1), np.array([0.1, -0.1]))
    with pytest.raises(ValueError, match="time must go forward"):
        adaptive(problem)


@pytest.mark.parametrize("steps", [8, 10, 20])
def test_a_solution_that_ends_in_finite_time_is_not_solved(steps):
    def slope(u):
        return u * u

    def rk4(t, dt, u):
        h = dt[:, None]
        a = slope(u)
        b = slope(u + h / 2 * a)
        c = slope(u + h / 2 * b)
        return u + h / 6 * (a + 2 * b + 2 * c + slope(u + h * c))

    with np.errstate(all="ignore"):
        found = adaptive(OneStep(rk4, np.ones(1), np.full(steps, 2.0 / steps)), max_steps=2000)
    assert not found.converged


def test_empty_states_are_refused():
    empty = OneStep(lambda t, dt, u: u, np.ones(0), np.ones(3))
    with pytest.raises(ValueError, match="whose states have no entries"):
        adaptive(empty)
