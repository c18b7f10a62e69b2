"""Laws: the table shows the grids and the totals, and what is not converged says so."""

from dataclasses import replace

import numpy as np
import pytest

from mgnet.depth.mgrit.one_step import dahlquist
from mgnet.depth.time_grids.adaptive_solution import AdaptiveSolution, Ending, GridRecord


def solution(ending):
    problem = dahlquist(steps=4)
    first = GridRecord(2, 0.5, 0.5, 1, 0, 3, 3, np.inf, 1, ("marched serially: a reason",))
    grids = (first, replace(first, steps=4, cycles=2, levels=2, stepped=10, in_a_row=4, notes=()))
    return AdaptiveSolution(problem, problem.serial(), np.zeros((2, 1)), 1, grids, ending)


def test_table_and_totals():
    found = solution(Ending.TOLERANCE)
    assert found.stepped == 13 and found.in_a_row == 7 and found.converged
    assert (found.times == found.problem.times).all()
    lines = str(found).splitlines()
    assert lines[1].split() == "0 2 5.00e-01 5.00e-01 1 serial 3 3 inf 1".split()
    assert lines[2].split()[4:8] == ["2", "2", "10", "4"]
    assert "13 steps taken, 7 in a row" in lines[3]
    assert lines[-1] == "grid 0: marched serially: a reason"
    assert len({len(line) for line in lines[:3]}) == 1
    assert found.require() is found


@pytest.mark.parametrize("ending", [e for e in Ending if not e.converged])
def test_require_raises(ending):
    with pytest.raises(RuntimeError, match="adaptive ended with 4 steps"):
        solution(ending).require()
