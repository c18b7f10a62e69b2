"""Laws: no interval adds more than the tolerance; grids end; refusals name a place and a remedy."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from mgnet.depth import odeint
from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.ode.integration import Integration
from mgnet.depth.ode.right_hand_side import RightHandSide
from mgnet.depth.ode.state_tree import StateTree
from mgnet.depth.ode.step_doubling import ORDERS, Tolerances, _behind, fitted_grid
from mgnet.depth.time_grids.dyadic_grid import DyadicGrid

DOUBLE = torch.float64


def integration(func, y0, scheme="rk4_38", factors=()):
    return Integration(StackedBlock(RightHandSide(func, StateTree.of(y0)), scheme), factors)


def van_der_pol(t, y):
    return torch.stack([y[1], 3.0 * (1.0 - y[0] ** 2) * y[1] - y[0]])


@pytest.mark.parametrize(("scheme", "tolerance"), [("midpoint", 1e-3), ("rk4_38", 1e-5)])
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_the_error_of_every_interval(scheme, tolerance, direction):
    """By SciPy, from the state at the left of each; it is small where there are few steps."""
    y0 = torch.tensor([2.0, 0.5], dtype=DOUBLE)
    t = direction * torch.tensor([0.0, 0.3, 2.0], dtype=DOUBLE)
    solver = integration(van_der_pol, y0, scheme)
    grid = fitted_grid(solver, y0, t, Tolerances(tolerance, tolerance), 10**4)
    states = solver.states(y0, grid.points).numpy()
    assert torch.equal(grid.points[grid.right], t)

    def slope(t, y):
        return y[1], 3.0 * (1.0 - y[0] ** 2) * y[1] - y[0]

    sizes = []
    for n in range(0, len(grid.points) - 1, 2):
        span = float(grid.points[n]), float(grid.points[n + 2])
        exact = solve_ivp(slope, span, states[n], rtol=1e-11, atol=1e-13).y[:, -1]
        scale = tolerance * (1.0 + np.maximum(abs(states[n]), abs(states[n + 2])))
        sizes.append(np.sqrt((((states[n + 2] - exact) / scale) ** 2).mean()))
    assert max(sizes) < 1.5
    assert max(sizes) > 0.01  # and not by needless steps


@pytest.mark.parametrize("scheme", ORDERS)
def test_estimates_are_right_to_first_order(scheme):
    """Ten times the tolerance takes as many steps as the order says."""
    y0, t = torch.ones(1, dtype=DOUBLE), torch.tensor([0.0, 1.0], dtype=DOUBLE)
    solver, p = integration(lambda t, y: torch.cos(t) * y, y0, scheme), ORDERS[scheme]
    counts = []
    for tolerance in (1e-4, 1e-4 / 16.0 ** (p + 1)):
        tolerance = max(tolerance, 1e-12) if p < 3 else tolerance
        grid = fitted_grid(solver, y0, t, Tolerances(0.0, tolerance), 10**5)
        counts.append(len(grid.points) - 1)
        if p > 2:
            break
    if p < 3:
        assert 4.0 < counts[1] / counts[0] < 64.0
    else:
        assert counts[0] <= 16


def test_errors_in_units_of_the_tolerance():
    error = torch.tensor([[3e-3, 4e-3], [torch.nan, 0.0], [0.0, 0.0]], dtype=DOUBLE)
    ends = torch.tensor([[1.0, -3.0], [1.0, 1.0], [0.0, 0.0]], dtype=DOUBLE)
    sizes = Tolerances(1e-3, 0.0).sizes(error, ends, 0.5 * ends).tolist()
    assert sizes[0] == pytest.approx(np.sqrt((9.0 + (4.0 / 3.0) ** 2) / 2.0))
    assert sizes[1:] == [np.inf, 0.0]


def test_a_blow_up_is_located():
    """Y' = y^2 from 1 is infinite at t = 1; nothing is said of stiff problems."""
    y0, t = torch.ones(1, dtype=DOUBLE), torch.tensor([0.0, 2.0], dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"more than max_steps = 500 .* from t = (0.9|1)") as told:
        odeint(lambda t, y: y**2, y0, t, rtol=1e-5, max_steps=500)
    assert "stiff" not in str(told.value)


def test_a_stiff_problem_is_named():
    y0, t = torch.ones(2, dtype=DOUBLE), torch.tensor([0.0, 10.0], dtype=DOUBLE)
    rates = torch.tensor([1.0, 1e5], dtype=DOUBLE)

    class Decay(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("rates", rates)

        def forward(self, t, y):
            return -self.rates * y

    with pytest.raises(ValueError, match=r"rates of about 1e\+05 .* is stiff, so take an implicit"):
        odeint(Decay(), y0, t, rtol=1e-4, atol=1e-6, max_steps=1000)


def test_steps_behind_a_failure_become_as_short_as_the_one_before_it():
    cells = DyadicGrid.first(np.array([1.0, 1.0, 4.0, 0.125]))
    more, finite = np.array([2, 0, 0, 0]), np.array([True, False, False, False])
    assert _behind(cells, more, finite).tolist() == [2, 2, 3, 0]
    assert _behind(cells, more, np.ones(4, dtype=bool)).tolist() == [2, 0, 0, 0]


def test_tolerances_below_rounding_are_refused():
    y0, t = torch.ones(1), torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match="does not meet the tolerance.* or y0 and func in float64"):
        odeint(lambda t, y: -y, y0, t, atol=1e-11, method="rk4", max_steps=10**4)


def test_a_jump_is_resolved():
    """At a time that is no point of any grid, steps become short until it does not matter."""
    t = torch.tensor([0.0, 1.0], dtype=DOUBLE)
    y = odeint(lambda t, y: torch.sign(t - 1.0 / 3.0) * y, torch.ones(1).double(), t, rtol=1e-7)
    assert abs(float(y[-1]) - np.exp(1.0 / 3.0)) < 1e-6


def test_cycles_choose_the_same_grid():
    y0, t = torch.tensor([2.0, 0.5], dtype=DOUBLE), torch.tensor([0.0, 4.0], dtype=DOUBLE)
    tolerances = Tolerances(1e-5, 1e-5)
    serial, cycles = (
        fitted_grid(integration(van_der_pol, y0, factors=factors), y0, t, tolerances, 10**4)
        for factors in ((), (2,))
    )
    assert torch.equal(serial.points, cycles.points)
