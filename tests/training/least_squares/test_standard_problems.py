"""Law: Levenberg-Marquardt solves as many standard problems as SciPy, and says truly which.

`standard/scipy.json` is what SciPy's three methods come to; the benchmark writes it by
`python benchmarks/standard_least_squares.py --record`, and runs mgnet also from the starts that are
left out here because they take long.
"""

import json
import statistics
from pathlib import Path

import pytest

from tests.training.least_squares.standard.fit import fit
from tests.training.least_squares.standard.problems import problems
from tests.training.least_squares.standard.verdict import MISSED, SOLVED, parameter_digits

RECORDED = json.loads((Path(__file__).parent / "standard" / "scipy.json").read_text())
METHODS = ["lm", "trf", "dogbox"]
LONG = 200  # Jacobians of MINPACK with its own scaling


def quick(collection):
    """Problems, starts and SciPy's outcomes: letter, value, evaluations, Jacobians, digits."""
    for problem in problems():
        if problem.collection == collection:
            for label, start in problem.starts.items():
                told = RECORDED[problem.name][label]
                if told["minpack"][3] <= LONG:
                    yield problem, label, start, told


@pytest.mark.parametrize("collection", ["MGH", "NIST"])
def test_as_many_are_solved_as_by_scipy_and_none_is_wrong(collection):
    wrong, solved, digits, ratios = [], [], [], []
    counts = dict.fromkeys(METHODS, 0)
    for problem, label, start, told in quick(collection):
        ended = fit(problem, start, max_cycles=300)
        if ended.converged and ended.verdict == MISSED:
            wrong.append(f"{problem.name}, {label}: {ended.reason} at {ended.value:.6g}")
        for method in METHODS:
            counts[method] += told[method][0] in "GgLl"
        if problem.certified is not None:
            digits.append(parameter_digits(problem, ended.x))
        if ended.verdict in SOLVED:
            solved.append(problem.name)
            letter, value, evaluations, *_ = told["minpack"]
            if letter in "GgLl" and value == pytest.approx(ended.value, rel=1e-5, abs=1e-15):
                ratios.append(ended.evaluations / evaluations)
    assert not wrong, f"{len(wrong)} wrongly converged"
    assert len(solved) >= max(counts.values())
    assert statistics.median(ratios) <= 1.5
    assert not digits or statistics.median(digits) >= 6.0


def test_few_starts_are_left_out():
    cases = [*quick("MGH"), *quick("NIST")]
    assert {problem.name for problem, *_ in cases} == {problem.name for problem in problems()}
    assert len(cases) == 175  # of 191
