"""Laws: steps have their orders, by SciPy; rows fail alone; stiff decay is damped."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from mgnet.depth.mgrit.one_step import OneStep
from mgnet.depth.time_grids.implicit_step import ImplicitStep

METHODS = {"euler": 1, "sdirk2": 2, "sdirk3": 3, "ros2": 2}


def slope(t, u):  # depends on time, nonlinear, two unknowns
    return np.stack([u[:, 1] * np.cos(t), -np.sin(u[:, 0]) - 0.3 * u[:, 1] + t], axis=1)


def jacobian(t, u):
    zero = 0.0 * t
    rows = [[zero, np.cos(t)], [-np.cos(u[:, 0]), zero - 0.3]]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)


@pytest.mark.parametrize(("method", "order"), METHODS.items())
def test_order(method, order):
    step = ImplicitStep(slope, jacobian, method)
    start = np.array([1.0, 0.5])
    exact = solve_ivp(
        lambda t, u: slope(np.array([t]), u[None])[0],
        (0, 2),
        start,
        "DOP853",
        rtol=1e-13,
        atol=1e-13,
    ).y[:, -1]
    errors = [
        abs(OneStep(step, start, np.full(n, 2.0 / n)).serial()[-1] - exact).max()
        for n in (64, 128, 256)
    ]
    assert step.order == order
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_on_their_own_to_the_last_bit(method):
    step = ImplicitStep(slope, jacobian, method)
    rng = np.random.default_rng(0)
    t, dt, u = rng.random(7), rng.random(7), rng.standard_normal((7, 2))
    together = step(t, dt, u)
    alone = [step(t[k : k + 1], dt[k : k + 1], u[k : k + 1]) for k in range(7)]
    assert (together == np.concatenate(alone)).all()


@pytest.mark.parametrize("method", METHODS)
def test_stiff_decay_is_damped(method):
    step = ImplicitStep(lambda t, u: -1e9 * u, lambda t, u: np.full((len(u), 1, 1), -1e9), method)
    assert abs(step(np.zeros(1), np.ones(1), np.ones((1, 1)))).max() < 1e-7


def test_a_row_without_a_solution_is_nan_and_the_others_are_not():
    # u - dt (u^2 + 1) = u0 has no real solution for large dt.
    step = ImplicitStep(lambda t, u: u * u + 1.0, lambda t, u: 2.0 * u[:, :, None], "euler")
    new = step(np.zeros(3), np.array([0.1, 5.0, 0.2]), np.zeros((3, 1)))[:, 0]
    assert np.isnan(new[1])
    good, dt = new[[0, 2]], np.array([0.1, 0.2])
    assert abs(good - dt * (good**2 + 1.0)).max() < 1e-12


def test_a_singular_row_fails_alone():
    # 1 - dt J = 0 in the second row.
    step = ImplicitStep(lambda t, u: u, lambda t, u: np.ones((len(u), 1, 1)), "euler")
    new = step(np.zeros(2), np.array([0.5, 1.0]), np.ones((2, 1)))[:, 0]
    assert new[0] == pytest.approx(2.0) and np.isnan(new[1])


def test_refusals():
    with pytest.raises(ValueError, match="must be one of euler, sdirk2, sdirk3, ros2"):
        ImplicitStep(slope, jacobian, "radau")
    with pytest.raises(TypeError, match="got a jacobian of type NoneType"):
        ImplicitStep(slope, None)  # type: ignore[arg-type]
