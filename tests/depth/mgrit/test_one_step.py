"""Laws: parallel in time gives what the discrete scheme gives, by SciPy or by a formula."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import mgnet
from mgnet.depth.mgrit.one_step import OneStep, dahlquist, heat


@pytest.mark.parametrize("theta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rate", [-3.0, -1.0 + 2.0j])
def test_dahlquist_is_a_power(rate, theta):
    problem = dahlquist(rate, steps=64, final_time=2.0, theta=theta)
    z = rate * 2.0 / 64
    exact = ((1 + (1 - theta) * z) / (1 - theta * z)) ** np.arange(65)
    assert abs(problem.serial()[:, 0] - exact).max() < 1e-13
    for arguments in ({}, {"levels": 3}, {"coarsening": 7, "relaxation": ("FCF",)}):
        solver = mgnet.Solver(problem.hierarchy(**arguments), rtol=1e-14)
        assert abs(solver.solve(u=problem.guess()).require().value[:, 0] - exact).max() < 1e-12


def dense_heat(points, dts, theta, u):
    """The scheme by dense matrices, step by step."""
    A = 2.0 * np.eye(points) - np.eye(points, k=1) - np.eye(points, k=-1)
    A *= (points + 1) ** 2
    trajectory, unit = [u], np.eye(points)
    for dt in dts:
        u = np.linalg.solve(unit + theta * dt * A, (unit - (1 - theta) * dt * A) @ u)
        trajectory.append(u)
    return np.array(trajectory)


@pytest.mark.parametrize("theta", [0.5, 1.0])
@pytest.mark.parametrize("levels", [2, 3])
def test_heat_is_the_dense_scheme(theta, levels):
    u0 = np.random.default_rng(0).standard_normal(15)
    problem = heat(15, 50, final_time=0.1, theta=theta, initial=u0)
    exact = dense_heat(15, problem.steps, theta, u0)
    assert abs(problem.serial() - exact).max() < 1e-12
    # Steps of Crank-Nicolson on rough data do not damp; coarser ones need more cycles.
    solver = mgnet.Solver(problem.hierarchy(levels, coarsening=3, relaxation=("FCF",)), rtol=1e-13)
    assert abs(solver.solve(u=problem.guess()).require().value - exact).max() < 1e-11


def test_unequal_steps_are_grouped():
    steps = np.repeat([0.01, 0.002, 0.03], 8)
    problem = heat(15, 24)
    problem = OneStep(problem.step, problem.initial, steps, start=1.0)
    exact = dense_heat(15, steps, 1.0, problem.initial)
    assert abs(problem.serial() - exact).max() < 1e-13
    assert problem.times[[0, -1]] == pytest.approx([1.0, 1.0 + steps.sum()])
    solution = mgnet.Solver(problem.hierarchy(coarsening=5), rtol=1e-12).solve(u=problem.guess())
    assert abs(solution.require().value - exact).max() < 1e-11


@pytest.mark.parametrize(("final_time", "steps"), [(12.0, 640), (1.0, 1000), (2.5, 7), (4.0, 3)])
def test_equal_steps_end_where_they_should(final_time, steps):
    """Within [0, T], as SciPy demands of the times that it is asked for."""
    problem = dahlquist(steps=steps, final_time=final_time)
    times = problem.times
    assert times[0] == 0.0 and times[-1] == final_time
    exact = np.array([float(Fraction(final_time) * n / steps) for n in range(steps + 1)])
    np.testing.assert_allclose(times, exact, rtol=2.3e-16)
    assert len(solve_ivp(lambda t, u: -u, (0.0, final_time), [1.0], t_eval=times).t) == steps + 1


def test_every_level_steps_from_its_own_times():
    told = []

    def step(t, dt, u):
        told.append((t, dt))
        return u + dt[:, None] * np.cos(t)[:, None]

    steps = np.linspace(0.1, 0.2, 10)
    problem = OneStep(step, np.zeros(1), steps, start=3.0)
    hierarchy = problem.hierarchy(3, coarsening=(4, 2))
    del told[:]  # of the check of the step
    hierarchy[2].operator.march(None)
    (t, dt), (s, ds) = told  # the coarsest level has two steps: of 8 and of 2
    assert (t, s) == (3.0, pytest.approx(3.0 + steps[:8].sum()))
    assert (dt, ds) == (pytest.approx(steps[:8].sum()), pytest.approx(steps[8:].sum()))


def test_equal_steps_are_factorised_once_per_level():
    problem = heat(15, 130)  # the last interval is short
    mgnet.Solver(problem.hierarchy(3), rtol=1e-8).solve(u=problem.guess())
    assert len(problem.step.factors) == 4  # 1, 4 and 16 steps, and the short intervals' 2


def test_the_scheme_converges_to_the_differential_equation():
    def pendulum(t, u):
        return np.stack([u[..., 1], -np.sin(u[..., 0]) + 0.1 * np.sin(t)], axis=-1)

    def heun(t, dt, u):
        dt, t = dt[:, None], t[:]
        slope = pendulum(t, u)
        return u + 0.5 * dt * (slope + pendulum(t + dt[:, 0], u + dt * slope))

    start = np.array([1.0, 0.0])
    exact = solve_ivp(pendulum, (0.5, 4.5), start, rtol=1e-11, atol=1e-12).y[:, -1]
    errors = []
    for steps in (100, 200):
        problem = OneStep(heun, start, np.full(steps, 4.0 / steps), start=0.5)
        solution = mgnet.Solver(problem.hierarchy(coarsening=10), rtol=1e-12)
        errors.append(abs(solution.solve(u=problem.guess()).require().value[-1] - exact).max())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("factor", [2, 4, 16])
@pytest.mark.parametrize("word", ["F", "FCF"])
def test_heat_reduces_errors_as_the_theory_says(factor, word):
    """The largest factor of all modes of the heat equation bounds the residual factor."""
    points, steps = 31, 256
    problem = heat(points, steps, final_time=2.0)
    k = np.arange(1, points + 1)
    rates = (2.0 - 2.0 * np.cos(np.pi * k / (points + 1))) * (points + 1) ** 2
    fine, coarse = (1.0 / (1.0 + rates * dt) for dt in (2.0 / steps, 2.0 * factor / steps))
    bound = abs(fine**factor - coarse) * (1 - coarse ** (steps / factor)) / (1 - coarse)
    bound = (bound * fine**factor if word == "FCF" else bound).max()
    generator = np.random.default_rng(0)
    guess = generator.standard_normal((steps + 1, points))
    guess[0] = problem.initial
    hierarchy = problem.hierarchy(coarsening=factor, relaxation=(word,))
    solution = mgnet.Solver(hierarchy, "V(1,1)", rtol=1e-10, max_cycles=60).solve(u=guess)
    norms = np.array(solution.residual_norms[2:])
    norms = norms[norms > 1e-9 * norms[0]]
    assert (norms[1:] / norms[:-1]).max() <= 1.05 * bound
    assert (norms[1:] / norms[:-1]).max() > 0.25 * bound


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: OneStep(abs, np.ones(1), np.ones((2, 2))), "steps of shape"),
        (lambda: OneStep(abs, np.ones(1), 0.1), "one dt per step"),
        (lambda: dahlquist(theta=2.0), "theta = 2.0"),
        (lambda: heat(theta=-1.0), "heat got theta"),
        (lambda: heat(3, initial=np.ones(4)), "initial of shape"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
