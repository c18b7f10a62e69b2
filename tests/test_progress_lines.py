"""Lines of progress: when they come, what they say, of every function that takes a monitor."""

import io
import math

import numpy as np
import pytest
import torch

from mgnet import CycleRecord, ProgressLines, Solver, gallery
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import LeastSquares, LevenbergMarquardt, levenberg_marquardt, train

X = torch.linspace(-1.0, 1.0, 20, dtype=torch.float64).unsqueeze(1)


def entry(cycle, seconds, level=0, value=None):
    return CycleRecord(cycle, 2e-3, value, 1.0, seconds, level)


def lines(every, entries):
    file = io.StringIO()
    progress = ProgressLines(every, file)
    assert not any(progress(one, None) for one in entries)  # True would end the solve
    return file.getvalue().splitlines()


def test_a_line_every_few_seconds():
    times = [0.0, 1.0, 9.9, 10.0, 11.0, 19.9, 35.0, 36.0]
    told = lines(10.0, [entry(cycle, time) for cycle, time in enumerate(times)])
    assert [line.split(":")[0] for line in told] == ["cycle 0", "cycle 3", "cycle 6"]
    assert told[1] == "cycle 3: residual norm 2.00e-03, 10.0 s"


def test_every_cycle():
    assert len(lines(0.0, [entry(cycle, 0.0) for cycle in range(5)])) == 5


def test_new_levels_and_new_solves_begin_with_a_line():
    told = lines(10.0, [entry(0, 0.0, 1, 0.5), entry(1, 0.1, 1, 0.4), entry(1, 0.2, 0, 0.4)])
    assert told == [
        "cycle 0, level 1: objective 5.00e-01, residual norm 2.00e-03, 0.0 s",
        "cycle 1: objective 4.00e-01, residual norm 2.00e-03, 0.2 s",
    ]
    assert len(lines(10.0, [entry(0, 5.0), entry(1, 6.0), entry(0, 0.0), entry(1, 0.1)])) == 2


def by_solver(monitor):
    return Solver(gallery.poisson(15), max_cycles=3, monitor=monitor).solve(np.ones(15))


def by_train(monitor):
    kan = KAN([1, 1], 2)
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (X, X**2)), 2, LevenbergMarquardt())
    return train(hierarchy, hierarchy[0].operator.start(), max_cycles=3, monitor=monitor)


def by_levenberg_marquardt(monitor):
    torch.manual_seed(0)
    module = torch.nn.Linear(1, 1).double()
    return levenberg_marquardt(lambda m: m(X) - X**2, module, max_cycles=3, monitor=monitor)


@pytest.mark.parametrize("solve", [by_solver, by_train, by_levenberg_marquardt])
def test_monitors_of_all(solve):
    file = io.StringIO()
    solution = solve(ProgressLines(0.0, file))
    told = file.getvalue().splitlines()
    assert len(told) == len(solution.history) + (solve is by_train)  # the start of its finer level
    last = solution.history[-1]
    assert f"residual norm {last.residual_norm:.2e}" in told[-1]
    assert (f"objective {last.value:.2e}" in told[-1]) if last.value is not None else True


def test_standard_error_is_the_default(capsys):
    ProgressLines()(entry(0, 0.0))
    assert capsys.readouterr() == ("", "cycle 0: residual norm 2.00e-03, 0.0 s\n")


@pytest.mark.parametrize("every", [-1.0, math.nan, "1", None, True])
def test_seconds_that_are_none(every):
    with pytest.raises(ValueError, match="ProgressLines got every .*; it must not be negative"):
        ProgressLines(every)


def test_a_file_that_is_none():
    with pytest.raises(TypeError, match="ProgressLines got a file of type str; give a text stream"):
        ProgressLines(1.0, "progress.txt")
