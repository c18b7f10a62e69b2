"""Laws: one order is gained and the estimate is the error, by exact solutions."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from mgnet.depth.mgrit.one_step import OneStep, dahlquist, heat
from mgnet.depth.time_grids.adaptive import adaptive
from mgnet.depth.time_grids.implicit_step import ImplicitStep
from mgnet.depth.time_grids.richardson import ExtrapolatedStep, richardson
from mgnet.depth.time_grids.van_der_pol import van_der_pol


def logistic(method, steps):
    step = ImplicitStep(
        lambda t, u: u * (1.0 - u) * (1.0 + np.sin(t))[:, None],
        lambda t, u: ((1.0 - 2.0 * u) * (1.0 + np.sin(t))[:, None])[:, :, None],
        method,
    )
    return OneStep(step, np.array([0.2]), np.full(steps, 3.0 / steps))


def exact(times):
    grown = 0.25 * np.exp(times + 1.0 - np.cos(times))
    return (grown / (1.0 + grown))[:, None]


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("sdirk2", 2), ("sdirk3", 3)])
@pytest.mark.parametrize("factor", [2, 3])
def test_one_order_is_gained(method, order, factor):
    errors = []
    for steps in (72, 144):
        problem = logistic(method, steps)
        found = richardson(problem, factor=factor)
        assert found.order == order and not found.notes
        errors.append(abs(found.states - exact(found.times)).max())
        plain = problem.serial()[::factor] - exact(found.times)
        assert abs(found.errors - plain).max() < 0.2 * abs(plain).max()
        assert errors[-1] < 0.2 * abs(plain).max()
    assert np.log2(errors[0] / errors[1]) > order + 1 - 0.25


@pytest.mark.parametrize("rate", [-1.0, -0.5 + 2.0j])
@pytest.mark.parametrize(("theta", "order"), [(1.0, 1), (0.5, 2)])
def test_dahlquist(rate, theta, order):
    errors = []
    for steps in (64, 128):
        found = richardson(dahlquist(rate, steps, theta=theta))
        assert found.order == order
        errors.append(abs(found.states[:, 0] - np.exp(rate * found.times)).max())
    # The extrapolated method of the symmetric one gains two orders.
    assert np.log2(errors[0] / errors[1]) == pytest.approx(
        order + (2 if theta == 0.5 else 1), abs=0.15
    )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_it_is_where_fas_with_the_scaled_tau_ends(order):
    """The coarse equation of FAS with tau times 2^p / (2^p - 1), iterated as it stands."""
    problem = logistic("sdirk2", 32)
    found = richardson(problem, order=order, rtol=1e-13)
    step, h = problem.step, problem.steps[0]
    t, scale = problem.times[:-1:2], 2.0**order / (2.0**order - 1.0)
    v = problem.serial()[::2]
    for _ in range(60):
        coarse = step(t, np.full(16, 2 * h), v[:-1])
        middle = step(t, np.full(16, h), v[:-1])
        tau = step(t + h, np.full(16, h), middle) - coarse
        new = [v[:1]]
        for k in range(16):  # the coarse march with a frozen right-hand side
            new.append(step(t[k : k + 1], np.full(1, 2 * h), new[-1]) + scale * tau[k : k + 1])
        v = np.concatenate(new)
    assert abs(v - found.states).max() < 1e-12


def test_on_an_adapted_grid_the_global_error_is_estimated():
    problem = logistic("sdirk2", 4)
    solution = adaptive(problem, rtol=1e-6, atol=1e-6, levels=2, order=2).require()
    assert len({*solution.problem.steps}) > 1
    found = richardson(solution.problem, solution.states, order=2)
    true = solution.states[::2] - exact(found.times)
    assert abs(found.errors - true).max() < 0.2 * abs(true).max()


@pytest.mark.parametrize("method", ["ros2", "sdirk3"])
def test_global_error_of_an_oscillator(method):
    mu, order = 10.0, 2 if method == "ros2" else 3
    problem = van_der_pol(mu, 64, 2.0 * mu, method)
    solution = adaptive(problem, rtol=1e-5, atol=1e-6, order=order, levels=1).require()
    found = richardson(solution.problem, solution.states, order=order, levels=1)
    true = solution.states[::2] - oscillator(mu, found.times)
    assert abs(found.errors - true).max() < 0.3 * abs(true).max()
    assert abs(found.states - oscillator(mu, found.times)).max() < 0.3 * abs(true).max()


def oscillator(mu, times):
    return solve_ivp(
        lambda t, u: [u[1], mu * (1.0 - u[0] ** 2) * u[1] - u[0]],
        (0.0, 2.0 * mu),
        [2.0, 0.0],
        "Radau",
        t_eval=np.minimum(times, 2.0 * mu),
        rtol=1e-11,
        atol=1e-11,
    ).y.T


@pytest.mark.parametrize("method", ["ros2", "sdirk3"])
def test_a_grid_that_does_not_resolve_the_other_solution_is_refused(method):
    """With mu = 1000 the jump moves by more than the refined intervals are wide."""
    order = 2 if method == "ros2" else 3
    problem = van_der_pol(1000.0, method=method)
    solution = adaptive(problem, rtol=1e-3, atol=1e-4, order=order, levels=1).require()
    with pytest.raises(ValueError, match="does not resolve the extrapolated solution"):
        richardson(solution.problem, solution.states, order=order, levels=1)


def test_serial_and_parallel_agree():
    problem = heat(15, 64, final_time=0.1)
    serial, parallel = (richardson(problem, levels=k, order=1) for k in (1, 3))
    assert abs(serial.states - parallel.states).max() < 1e-8


def test_extrapolated_step_takes_rows_on_their_own():
    step = ExtrapolatedStep(logistic("euler", 4).step, 1, 3)
    rng = np.random.default_rng(0)
    t, dt, u = rng.random(5), rng.random(5), rng.random((5, 1))
    alone = [step(t[k : k + 1], dt[k : k + 1], u[k : k + 1]) for k in range(5)]
    assert (step(t, dt, u) == np.concatenate(alone)).all()


def test_refusals():
    problem = dahlquist(steps=8)
    with pytest.raises(ValueError, match="order = 0"):
        richardson(problem, order=0)
    with pytest.raises(ValueError, match="factor = 3 for 8 steps"):
        richardson(problem, factor=3)
    with pytest.raises(ValueError, match="has shape \\(9, 1\\)"):
        richardson(problem, np.ones((4, 1)))
    unequal = OneStep(problem.step, problem.initial, np.arange(1.0, 9.0))
    with pytest.raises(ValueError, match="unequal steps within its intervals of 2"):
        richardson(unequal, order=1)
