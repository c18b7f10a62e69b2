"""The course ends levels by stagnation, share and budget, and keeps the best state."""

import contextlib
import time

import pytest
import torch

from mgnet import cascade, run
from mgnet.app.course import Course, Timed
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import LeastSquares, LevenbergMarquardt, TorchOptimizer

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)


def trained(evaluations, by_share=True, smoother=None, told=None):
    kan = KAN([1, 2, 1], 2)
    problem = LeastSquares(kan, (X, torch.sin(6 * X)))
    course = Course(time.perf_counter(), 60.0, evaluations, 3, told)
    inner = smoother or LevenbergMarquardt()
    hierarchy = knot_hierarchy(kan, problem, 3, Timed(inner, 1, course))
    course.follow(hierarchy, by_share)
    with contextlib.suppress(StopIteration):
        run(cascade([500, 500, 500]), hierarchy, hierarchy[0].operator.start(), None)
    return course, hierarchy


def test_the_budget_ends_the_training_and_coarse_levels_have_shares():
    course, _ = trained(100.0)
    assert 100.0 <= course.work < 112.0  # one sweep more at most
    ends = {n: max(work for _, work, _, number in course.history if number == n) for n in range(3)}
    assert ends[2] <= 0.15 * 100.0 + 12.0
    assert ends[1] <= 0.30 * 100.0 + 12.0
    assert course.exhausted


def test_a_level_that_stagnates_is_left():
    course, _ = trained(1e9, smoother=TorchOptimizer(torch.optim.SGD, {"lr": 1e-12}), told=stop)
    assert [number for *_, number in course.history].count(2) == 7


def stop(seconds, fraction, mse, level):
    """End the run on the finest level, which only the budget ends."""
    if level == 0:
        raise StopIteration


def test_the_best_state_is_kept():
    course, hierarchy = trained(60.0, smoother=TorchOptimizer(torch.optim.Adam, {"lr": 0.3}))
    level, u = course.best()
    lowest = min(mse for *_, mse, _ in course.history)
    assert hierarchy[level].operator.mean_square(u) == pytest.approx(lowest)


def test_no_state_no_model():
    with pytest.raises(KeyboardInterrupt):
        Course(time.perf_counter(), 1.0, None, 1, None).best()
