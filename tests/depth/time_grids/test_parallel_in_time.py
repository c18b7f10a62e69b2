"""Laws: what is returned is the serial solution, whatever the coarse steps do."""

import numpy as np
import pytest

from mgnet.depth.mgrit.one_step import OneStep, dahlquist, heat
from mgnet.depth.time_grids.parallel_in_time import CountedStep, fitting_levels, parallel_in_time


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_stable_problems_are_solved_by_mgrit(levels):
    problem = heat(15, 128, final_time=0.5)
    found = parallel_in_time(problem, levels=levels)
    assert found.levels == levels and not found.notes
    assert abs(found.value - problem.serial()).max() < 1e-9


def test_unstable_coarse_steps_end_in_the_serial_march():
    # Forward Euler: |1 - 1.5| < 1, |1 - 6| > 1.
    problem = dahlquist(-15.0, steps=1000, final_time=100.0, theta=0.0)
    found = parallel_in_time(problem)
    assert found.levels == 1
    assert (found.value == problem.serial()).all()
    assert "the steps of level 1, 4 times as long, are not stable" in found.notes[0]


def test_only_the_unstable_levels_are_left_out():
    # Stable up to 4 times the step: |1 - 4 * 0.4| < 1 < |1 - 16 * 0.4|.
    problem = dahlquist(-4.0, steps=2000, final_time=200.0, theta=0.0)
    found = parallel_in_time(problem, levels=3, relaxation=("FCF",))
    assert found.levels == 2
    assert "levels from 2 on left out: the steps of level 2, 16 times as long" in found.notes[0]
    assert abs(found.value - problem.serial()).max() < 1e-9


def test_coarse_steps_that_fail():
    def euler(t, dt, u):  # u' = -u^3, which this form solves for short steps only
        return np.where(dt[:, None] > 0.05, np.nan, u - dt[:, None] * u**3)

    problem = OneStep(euler, np.array([1.0]), np.full(100, 0.02))
    found = parallel_in_time(problem)
    assert found.levels == 1 and "are not stable or fail" in found.notes[0]
    assert (found.value == problem.serial()).all()


def test_too_few_cycles_are_not_called_unstable():
    problem = heat(15, 128, final_time=0.5)
    found = parallel_in_time(problem, max_cycles=1)
    assert found.levels == 1 and "MAX_CYCLES after cycle 1" in found.notes[0]
    assert (found.value == problem.serial()).all()


def test_a_growing_solution_is_not_unstable():
    problem = dahlquist(3.0, steps=640, final_time=2.0)
    found = parallel_in_time(problem)
    assert found.levels == 2 and not found.notes
    assert abs(found.value / problem.serial() - 1.0).max() < 1e-6


def test_a_step_that_fails_on_the_fine_grid_is_an_error():
    problem = OneStep(
        lambda t, dt, u: np.where(t[:, None] > 0.45, np.nan, u), np.ones(1), np.full(10, 0.1)
    )
    with pytest.raises(ValueError, match=r"not finite from t = 0.5 by dt = 0.1"):
        parallel_in_time(problem)


def test_words_of_relaxation_are_as_many_as_the_levels_that_are_left():
    problem = dahlquist(-4.0, steps=2000, final_time=200.0, theta=0.0)
    found = parallel_in_time(problem, levels=4, relaxation=("F", "FCF", "FCF"))
    assert found.levels <= 2
    assert abs(found.value - problem.serial()).max() < 1e-9


def test_a_problem_is_needed():
    with pytest.raises(TypeError, match="got a problem of type ndarray"):
        parallel_in_time(np.ones(3))  # type: ignore[arg-type]


def test_counts():
    problem = dahlquist(steps=64)
    counter = CountedStep(problem.checked_step)
    parallel_in_time(OneStep(counter, problem.initial, problem.steps), levels=1)
    assert counter.steps == counter.calls == 64
    assert fitting_levels(4096, 9, 4, 8) == 5


@pytest.mark.parametrize("size", [0.0, 1.0, 1e8, 1e14])
def test_the_tolerance_is_not_of_the_start(size):
    problem = dahlquist(steps=64)
    wanted = problem.serial()
    value = parallel_in_time(problem, size * np.ones((65, 1)), rtol=1e-9).value
    assert abs(value - wanted).max() < 1e-8
    near = parallel_in_time(problem, wanted + 1e-6, rtol=1e-3)
    assert near.cycles == 0  # it meets the tolerance
