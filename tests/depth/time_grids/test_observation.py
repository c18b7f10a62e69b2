"""Laws: functionals are those of the whole trajectory, and few states are held at once."""

import numpy as np
import pytest

import mgnet
from mgnet.depth.mgrit.one_step import OneStep, heat
from mgnet.depth.time_grids.observation import observed


@pytest.mark.parametrize("steps", [64, 61, 5])
@pytest.mark.parametrize("factor", [2, 4, 7])
def test_functionals_of_every_state(steps, factor):
    problem = heat(15, steps, final_time=0.1)
    hierarchy = problem.hierarchy(2, factor, "FCF", c_points_only=True)
    whole = problem.serial()
    start = problem.guess()[: -(-steps // factor) + 1]
    c_points = mgnet.Solver(hierarchy, rtol=1e-12).solve(u=start).require().value
    assert len(c_points) == -(-steps // factor) + 1
    held = []

    def functional(t, u):
        held.append(len(u))
        return np.stack([t, u.sum(axis=1), u[:, 3]], axis=1)

    found = observed(problem, c_points, functional, factor)
    assert abs(found[:, 0] - problem.times).max() == 0.0
    assert abs(found[:, 1] - whole.sum(axis=1)).max() < 1e-9
    assert abs(found[:, 2] - whole[:, 3]).max() < 1e-9
    assert max(held) <= len(c_points)


def test_a_functional_may_edit_what_it_gets():
    problem = heat(3, 8)
    c_points = problem.serial()[::4].copy()

    def functional(t, u):
        u *= 0.0
        return t

    before = c_points.copy()
    assert (observed(problem, c_points, functional, 4) == problem.times).all()
    assert (c_points == before).all()


def test_refusals():
    problem = OneStep(lambda t, dt, u: 1.0 * u, np.ones(2), np.ones(8))
    with pytest.raises(ValueError, match=r"C-points of shape \(9, 2\); .* have shape \(3, 2\)"):
        observed(problem, np.ones((9, 2)), lambda t, u: t)
    with pytest.raises(ValueError, match="one entry or row for each"):
        observed(problem, np.ones((3, 2)), lambda t, u: u.sum())
    with pytest.raises(TypeError, match="functional of type str"):
        observed(problem, np.ones((3, 2)), "mean")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="problem of type int"):
        observed(3, np.ones((3, 2)), abs)  # type: ignore[arg-type]
