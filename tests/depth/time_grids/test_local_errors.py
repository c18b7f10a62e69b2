"""Laws: estimates are the errors of the scheme, by exact solutions; orders are those of theory."""

import numpy as np
import pytest

from mgnet.depth.mgrit.one_step import OneStep, dahlquist, heat
from mgnet.depth.time_grids.implicit_step import ImplicitStep
from mgnet.depth.time_grids.local_errors import found_order, local_errors, observed_order


def logistic(method, steps, final_time=2.0):
    step = ImplicitStep(
        lambda t, u: u * (1.0 - u), lambda t, u: (1.0 - 2.0 * u)[:, :, None], method
    )
    return OneStep(step, np.array([0.2]), np.full(steps, final_time / steps))


def after(u, dt):
    """The exact solution of u' = u (1 - u)."""
    return u * np.exp(dt) / (1.0 - u + u * np.exp(dt))


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("sdirk2", 2), ("sdirk3", 3)])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_estimate_is_the_local_error(method, order, factor):
    problem = logistic(method, 96)
    u = problem.serial()
    estimate = local_errors(problem, u, order, factor)[:, 0]
    begins = u[:-1:factor, 0]
    exact = u[factor::factor, 0] - after(begins, factor * problem.steps[0])
    large = abs(exact) > 0.05 * abs(exact).max()
    assert abs(estimate / exact - 1.0)[large].max() < 0.35
    median = np.median(abs(estimate / exact - 1.0))
    finer = logistic(method, 384)
    v = finer.serial()
    exact = v[factor::factor, 0] - after(v[:-1:factor, 0], factor * finer.steps[0])
    if order < 3:  # above rounding
        assert np.median(abs(local_errors(finer, v, order, factor)[:, 0] / exact - 1.0)) < median


def test_unequal_steps():
    steps = np.tile([0.01, 0.03], 20)
    problem = OneStep(logistic("euler", 4).step, np.array([0.2]), steps)
    u = problem.serial()
    exact = u[2::2, 0] - after(u[:-1:2, 0], 0.04)
    assert abs(local_errors(problem, u, 1)[:, 0] / exact - 1.0).max() < 0.1
    assert abs(2.0 * local_errors(problem, u, 1)[:, 0] / exact - 1.0).max() > 0.5


@pytest.mark.parametrize(
    ("problem", "order"),
    [
        (dahlquist(-1.0 + 2.0j, steps=64), 1),
        (dahlquist(-1.0, steps=64, theta=0.5), 2),
        (heat(15, 512, final_time=0.2, initial=np.sin(np.pi * np.arange(1, 16) / 16)), 1),
        (logistic("sdirk2", 64), 2),
        (logistic("sdirk3", 64), 3),
        (logistic("ros2", 64), 2),
    ],
)
def test_observed_order(problem, order):
    u = problem.serial()
    assert observed_order(problem, u) == pytest.approx(order, abs=0.1)
    assert found_order("somebody", problem, u) == order


def test_refusals():
    problem = dahlquist(steps=9)
    u = problem.serial()
    with pytest.raises(ValueError, match="factor = 2 for 9 steps"):
        local_errors(problem, u, 1)
    with pytest.raises(ValueError, match="has shape \\(10, 1\\)"):
        local_errors(problem, u[:-1], 1, 3)
    with pytest.raises(ValueError, match="order = 0"):
        local_errors(problem, u, 0, 3)
    with pytest.raises(ValueError, match="no four equal ones"):
        observed_order(OneStep(problem.step, np.ones(1), np.arange(1.0, 9.0)), np.ones((9, 1)))
    with pytest.raises(ValueError, match="a state for each of the 10 times"):
        observed_order(problem, u[:-1])
    with pytest.raises(TypeError, match="problem of type int"):
        local_errors(3, u, 1)  # type: ignore[arg-type]
    still = OneStep(lambda t, dt, u: 1.0 * u, np.ones(1), np.ones(8))
    with pytest.raises(ValueError, match="above rounding"):
        found_order("somebody", still, still.serial())
