"""Laws: the solution closes, and is that of a dense system or of SciPy."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import fsolve

import mgnet
from mgnet.depth.mgrit.one_step import OneStep, heat
from mgnet.depth.time_grids.implicit_step import ImplicitStep
from mgnet.depth.time_grids.periodic import PeriodicEquation, periodic_hierarchy


def forced_heat(points, n):
    """The heat equation with a force of period 1: backward Euler."""
    inner = heat(points, n, final_time=1.0)
    x = np.arange(1, points + 1) / (points + 1)

    def step(t, dt, u):
        force = np.sin(2.0 * np.pi * (t + dt))[:, None] * (10.0 * x * (1.0 - x))
        return inner.step(t, dt, u + dt[:, None] * force)

    return OneStep(step, np.zeros(points), inner.steps), x


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("n", [64, 61])
def test_linear_problem_is_a_dense_system(levels, n):
    problem, x = forced_heat(7, n)
    A = 64.0 * (2 * np.eye(7) - np.eye(7, k=1) - np.eye(7, k=-1))
    inverse, h = np.linalg.inv(np.eye(7) + A / n), 1.0 / n
    system, right = np.eye(7 * n), np.zeros(7 * n)
    for k in range(n):
        rows, before = slice(7 * k, 7 * k + 7), (k - 1) % n
        system[rows, 7 * before : 7 * before + 7] -= inverse
        force = np.sin(2.0 * np.pi * (before + 1) / n) * 10.0 * x * (1.0 - x)
        right[rows] = inverse @ (h * force)
    exact = np.linalg.solve(system, right).reshape(n, 7)
    hierarchy = periodic_hierarchy(problem, levels, coarsening=4, relaxation=("FCF",))
    solution = mgnet.Solver(hierarchy, rtol=1e-12).solve(u=problem.guess()[:-1])
    assert solution.reason.converged
    assert abs(solution.value - exact).max() < 1e-10 * max(1.0, abs(exact).max())
    assert solution.cycles <= (2 if levels == 1 else 12)


def test_slow_modes_are_solved_too():
    """Marching takes hundreds of periods: u' = -0.01 (u - 1) + cos t."""

    def euler(t, dt, u):
        return (u + dt[:, None] * (0.01 + np.cos(t + dt))[:, None]) / (1.0 + 0.01 * dt[:, None])

    problem = OneStep(euler, np.array([0.0]), np.full(128, 2.0 * np.pi / 128))
    hierarchy = periodic_hierarchy(problem, 2, 4, ("FCF",))
    solution = mgnet.Solver(hierarchy, rtol=1e-10).solve(u=problem.guess()[:-1]).require()
    assert solution.value.mean() == pytest.approx(1.0, abs=1e-6)
    march = euler(problem.times[127:128], problem.steps[:1], solution.value[-1:])
    assert abs(march[0] - solution.value[0]).max() < 1e-8


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_duffing_is_the_orbit_of_scipy(levels):
    def slope(t, u):
        x, v = u[:, 0], u[:, 1]
        return np.stack([v, -0.5 * v - x - x**3 + 2.0 * np.cos(2.0 * t)], axis=1)

    def jacobian(t, u):
        one = np.ones(len(u))
        rows = [[0.0 * one, one], [-1.0 - 3.0 * u[:, 0] ** 2, -0.5 * one]]
        return np.stack([np.stack(row, axis=1) for row in rows], axis=1)

    n = 256
    problem = OneStep(
        ImplicitStep(slope, jacobian, "sdirk3"), np.array([0.5, 0.0]), np.full(n, np.pi / n)
    )

    def orbit(start, times=None):
        options = {"method": "DOP853", "rtol": 1e-11, "atol": 1e-11, "t_eval": times}
        return solve_ivp(
            lambda t, u: slope(np.array([t]), u[None])[0], (0.0, np.pi), start, **options
        ).y

    start = fsolve(lambda u: orbit(u)[:, -1] - u, [0.0, 0.0], xtol=1e-11)
    exact = orbit(start, problem.times[:-1]).T
    hierarchy = periodic_hierarchy(problem, levels, 4, ("FCF",))
    solver = mgnet.Solver(hierarchy, rtol=1e-9, max_cycles=30)
    u = solver.solve(u=problem.guess()[:-1]).require().value
    assert abs(u - exact).max() < 1e-5


def test_residual_and_relaxation_are_those_of_the_equation():
    rng = np.random.default_rng(0)
    n, c = 11, 4
    equation = PeriodicEquation(
        lambda t, dt, u: np.sin(u) * dt[:, None] + t[:, None], rng.random(n), rng.random(n), c
    )
    u, f = rng.random((n, 2)), rng.random((n, 2))
    relaxed = equation.relax(u, f)
    true = f - equation(relaxed)
    c_points = np.arange(n) % c == 0
    assert abs(true[~c_points]).max() < 1e-14
    assert abs(equation.residual(relaxed, f) - true)[c_points].max() < 1e-14
    assert (equation.residual(relaxed, f)[~c_points] == 0.0).all()
    assert (relaxed[c_points] == u[c_points]).all()
    after = equation.relax_c(u, f, 1.0)
    assert abs((f - equation(relaxed) + relaxed)[c_points] - after[c_points]).max() < 1e-14
    # Another right-hand side is not taken for the same one.
    assert abs(equation.relax(u, None) - relaxed).max() > 0.1


def test_coarsest_level_is_solved():
    rng = np.random.default_rng(1)
    equation = PeriodicEquation(
        lambda t, dt, u: 0.8 * np.tanh(u) + dt[:, None], np.zeros(5), rng.random(5), 2
    )
    f = rng.random((5, 3))
    u = equation.solve(rng.random((5, 3)), f)
    assert abs(equation(u) - f).max() < 1e-12


def test_a_free_oscillator_is_not_claimed():
    def rotate(t, dt, u):  # every point is periodic, with period 1
        a = 2.0 * np.pi * dt
        return np.stack(
            [
                np.cos(a) * u[:, 0] - np.sin(a) * u[:, 1] + dt,
                np.sin(a) * u[:, 0] + np.cos(a) * u[:, 1],
            ],
            axis=1,
        )

    problem = OneStep(rotate, np.array([1.0, 0.0]), np.array([0.5, 0.2, 0.1, 0.2]))
    solution = mgnet.Solver(periodic_hierarchy(problem, 2, 2), rtol=1e-10).solve(
        u=problem.guess()[:-1]
    )
    closes = abs(hierarchy_defect(problem, solution.value)).max() < 1e-6
    assert solution.reason.converged == closes


def hierarchy_defect(problem, u):
    return periodic_hierarchy(problem, 1)[0].operator(u)
