"""The records of a solve, step by step and cycle by cycle, count what was done once."""

import numpy as np
import pytest

from mgnet import CycleRecord, Solver, StepRecord, gallery
from mgnet.gallery import sine


@pytest.mark.parametrize("cycle", ["V(1,1)", "W(2,1)", "nested F(1,1)"])
def test_steps_and_cycles_add_up(cycle):
    solver = Solver(gallery.poisson((15, 15)), cycle, rtol=0.0, max_cycles=3)
    solution = solver.solve(sine((15, 15))[1])
    assert all(type(entry) is StepRecord for entry in solution.record)
    assert all(type(entry) is CycleRecord for entry in solution.history)
    assert [entry.cycle for entry in solution.history] == [0, 1, 2, 3]
    assert {entry.level for entry in solution.history} == {0}
    for entry in solution.history:
        steps = [step.work for step in solution.record if step.cycle <= entry.cycle]
        assert entry.work == pytest.approx(sum(steps) + entry.cycle + 1)  # a check for each
    assert np.all(np.diff([entry.seconds for entry in solution.history]) > 0.0)
