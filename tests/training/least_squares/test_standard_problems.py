"""Law: on standard problems Levenberg-Marquardt solves what SciPy solves, and says so truly.

`standard/scipy.json` is what SciPy's three methods come to; the benchmark writes it by
`python benchmarks/standard_least_squares.py --record`, and runs mgnet also from the starts that are
left out here because they take long.
"""

import json
from pathlib import Path

import pytest

from tests.training.least_squares.standard.fit import fit
from tests.training.least_squares.standard.problems import problems
from tests.training.least_squares.standard.verdict import MISSED, SOLVED, parameter_digits

RECORDED = json.loads((Path(__file__).parent / "standard" / "scipy.json").read_text())
METHODS = ["lm", "trf", "dogbox"]
LONG = 200  # Jacobians of MINPACK


def quick(problem):
    """Starts, and whether some method of SciPy solves the problem from there."""
    for label, start in problem.starts.items():
        told = RECORDED[problem.name][label]
        jacobians = told["lm"][3]
        if jacobians <= LONG:
            yield label, start, any(told[method][0] in "GgLl" for method in METHODS)


@pytest.mark.parametrize("problem", problems(), ids=lambda problem: problem.name)
def test_solved_where_scipy_solves_and_converged_only_at_minima(problem):
    for label, start, solvable in quick(problem):
        ended = fit(problem, start, max_cycles=300)
        told = f"from {label} to 1/2 |r|^2 = {ended.value:.6g}, {ended.verdict}, {ended.reason}"
        assert not (ended.converged and ended.verdict == MISSED), told
        assert ended.verdict in SOLVED or not solvable, told
        if problem.certified is not None:
            assert parameter_digits(problem, ended.x) >= 4.0, told


def test_few_starts_are_left_out():
    quick_ones = {problem.name: len(list(quick(problem))) for problem in problems()}
    assert all(quick_ones.values())
    assert sum(quick_ones.values()) == 178  # of 191
