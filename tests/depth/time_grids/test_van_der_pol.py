"""Laws: the oscillator is SciPy's, with the derivative that it claims."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from mgnet.depth.time_grids.van_der_pol import van_der_pol


def test_trajectory_is_that_of_scipy():
    problem = van_der_pol(mu=3.0, steps=4000, final_time=10.0)
    exact = solve_ivp(
        lambda t, u: [u[1], 3.0 * (1 - u[0] ** 2) * u[1] - u[0]],
        (0, 10),
        [2.0, 0.0],
        "Radau",
        rtol=1e-10,
        atol=1e-10,
    )
    assert abs(problem.serial()[-1] - exact.y[:, -1]).max() < 1e-3


def test_jacobian_is_the_derivative():
    step = van_der_pol(mu=7.0).step
    u, t, e = np.random.default_rng(0).standard_normal((5, 2)), np.zeros(5), 1e-6
    for k, unit in enumerate(np.eye(2)):
        difference = (step.slope(t, u + e * unit) - step.slope(t, u - e * unit)) / (2 * e)
        assert abs(step.jacobian(t, u)[:, :, k] - difference).max() < 1e-7


def test_refusals():
    with pytest.raises(ValueError, match="mu = -1"):
        van_der_pol(mu=-1.0)
    with pytest.raises(ValueError, match="got 0 steps"):
        van_der_pol(steps=0)
