"""Laws: the pairs are BDF2's solutions, by the plain recurrence; the order is two."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import mgnet
from mgnet.depth.mgrit.one_step import OneStep
from mgnet.depth.time_grids.adaptive import adaptive
from mgnet.depth.time_grids.bdf2 import BDF2Step, bdf2
from mgnet.depth.time_grids.implicit_step import ImplicitStep
from mgnet.depth.time_grids.parallel_in_time import CountedStep
from mgnet.depth.time_grids.richardson import richardson


def decay(t, weight, known, start):
    return known / (1.0 + weight[:, None])


# Printed in the header of XBraid's example ex-01-expanded-bdf2: u' = -u, h = 1 / 2.
XBRAID = [1.0, 6.06530659712633e-01, 3.56530659712633e-01, 2.04897994784475e-01]
XBRAID += [1.15765329856317e-01, 6.45408311601979e-02, 3.55994986961188e-02, 1.94642909060693e-02]
XBRAID += [1.05644162320396e-02, 5.69834350552227e-03, 3.05723944751237e-03, 1.63265357113180e-03]


def test_xbraids_example():
    problem = bdf2(decay, np.ones(1), pairs=5, spacing=0.5, second=np.array([np.exp(-0.5)]))
    assert abs(problem.serial().ravel() - XBRAID).max() < 1e-14
    solver = mgnet.Solver(problem.hierarchy(2, 2, ("FCF",)), rtol=1e-14)
    assert abs(solver.solve(u=problem.guess()).value.ravel() - XBRAID).max() < 1e-13


def pendulum(t, u):
    return np.stack([u[:, 1], -np.sin(u[:, 0]) + 0.1 * t], axis=1)


def pendulum_jacobian(t, u):
    zero = 0.0 * t
    rows = [[zero, zero + 1.0], [-np.cos(u[:, 0]), zero]]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)


def test_order_two_and_parallel():
    solve = ImplicitStep(pendulum, pendulum_jacobian).solve
    start, errors = np.array([1.0, 0.0]), []
    for pairs in (64, 128):
        problem = bdf2(solve, start, pairs, 4.0 / (2 * pairs))
        hierarchy = problem.hierarchy(2, 4, ("FCF",))
        u = mgnet.Solver(hierarchy, rtol=1e-12).solve(u=problem.guess()).require().value
        assert abs(u - problem.serial()).max() < 1e-9
        times = np.arange(2 * pairs + 2) * 2.0 / pairs
        options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-12, "t_eval": times}
        exact = solve_ivp(
            lambda t, u: pendulum(np.array([t]), u[None])[0], (0.0, times[-1]), start, **options
        )
        errors.append(abs(u.reshape(-1, 2) - exact.y.T).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.15)


def test_unequal_gaps_are_exact_for_parabolas():
    """BDF2 with any steps solves u' = 2 t exactly, but for u = t^2 its weights must be right."""
    step = BDF2Step(lambda t, weight, known, start: known + (weight * 2.0 * t)[:, None], 0.25)
    t, dt = np.array([0.0, 1.0, 3.0]), np.array([0.5, 1.75, 8.0])
    pairs = np.stack([t**2, (t + 0.25) ** 2], axis=1)[:, :, None]
    new = step(t, dt, pairs)[:, :, 0]
    assert abs(new - np.stack([(t + dt) ** 2, (t + dt + 0.25) ** 2], axis=1)).max() < 1e-11


def test_a_solve_that_mixes_rows_is_refused():
    def solve(t, weight, known, start):
        return known / (1.0 + weight[0] * np.exp(-t[0]))

    with pytest.raises(ValueError, match="take each row on its own"):
        bdf2(solve, np.ones(1), 8, 1.0).serial()


@pytest.mark.parametrize("solve", [adaptive, richardson])
def test_errors_that_do_not_scale_are_not_estimated(solve):
    problem = bdf2(decay, np.ones(1), 8, 0.1)
    with pytest.raises(ValueError, match="got a problem of bdf2, whose pairs stay 0.1 apart"):
        solve(problem, order=2)
    wrapped = OneStep(CountedStep(problem.checked_step), problem.initial, problem.steps)
    with pytest.raises(ValueError, match="got a problem of bdf2"):
        solve(wrapped, order=2)


def test_pairs_that_overlap_are_refused():
    problem = bdf2(decay, np.ones(1), 8, 0.1)
    short = OneStep(problem.step, problem.initial, np.full(8, 0.15))
    with pytest.raises(ValueError, match="step of 0.15 .* at least 0.2"):
        short.serial()


def test_refusals():
    with pytest.raises(TypeError, match="got solve of type int"):
        bdf2(3, np.ones(1), 4, 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got 0 pairs"):
        bdf2(decay, np.ones(1), 0, 0.1)
    with pytest.raises(ValueError, match="spacing = -1"):
        bdf2(decay, np.ones(1), 4, -1.0)
    with pytest.raises(ValueError, match=r"second solution of shape \(2,\)"):
        bdf2(decay, np.ones(1), 4, 0.1, second=np.ones(2))
    assert isinstance(bdf2(decay, np.array([1]), 4, 0.1), OneStep)  # an integer becomes a float
