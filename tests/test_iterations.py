"""What a solve repeats: work is counted, states and norms belong together, restarts are exact."""

import numpy as np
import pytest

from mgnet import CG, FGMRES, GMRES, GaussSeidel, Solver, cycle, gallery
from mgnet.iterations import Cycles, FixedPoint, KrylovMethod, iterate

METHODS = [CG(), GMRES(3), FGMRES(3), GMRES(), FGMRES()]


def symmetric(shape=(31, 7)):
    return gallery.poisson(
        shape, smoother=GaussSeidel("forward"), post_smoother=GaussSeidel("backward")
    )


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_recurred_norms_are_those_of_the_states(method):
    hierarchy, f = symmetric(), np.random.default_rng(0).standard_normal(217)
    iteration = KrylovMethod(Cycles(hierarchy, f, {}, None), cycle(len(hierarchy)), None, method)
    norms = []
    for number in range(1, 12):
        iteration.measure(norms)
        r = f - hierarchy[0].matrix @ iteration.state()
        assert norms[-1] == pytest.approx(np.linalg.norm(r), rel=1e-6)
        iteration.advance(iteration.repeated, number)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_norm_of_a_recurrence_that_is_wrong_is_replaced(method):
    hierarchy, f = symmetric(), np.ones(217)
    iteration = KrylovMethod(Cycles(hierarchy, f, {}, None), cycle(len(hierarchy)), None, method)
    norms = []
    iteration.measure(norms)
    iteration.advance(iteration.repeated, 1)
    iteration.measure(norms)
    right, norms[-1] = norms[-1], 1e-30
    iteration.confirm(norms)
    assert norms[-1] == pytest.approx(right)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_all_work_is_counted(method):
    """Evaluations by an operator that counts them itself are those that the solution tells."""
    hierarchy, f = symmetric((15, 15)), np.ones(225)
    before = [level.tally[0] * level.evaluation_cost for level in hierarchy]
    solution = Solver(hierarchy, acceleration=method).solve(f)
    after = [level.tally[0] * level.evaluation_cost for level in hierarchy]
    spent = (sum(after) - sum(before)) / hierarchy[0].evaluation_cost
    assert solution.work == pytest.approx(spent)
    assert max(entry.cycle for entry in solution.record) == solution.cycles


def test_which_iteration():
    hierarchy = gallery.poisson(7)
    cycles = Cycles(hierarchy, np.ones(7), {}, None)
    assert isinstance(iterate(cycles, cycle(3), None, None), FixedPoint)
    assert isinstance(iterate(cycles, cycle(3), None, FGMRES()), KrylovMethod)


@pytest.mark.parametrize("method", [None, *METHODS], ids=str)
def test_a_nested_schedule_opens_with_its_plain_cycle(method):
    hierarchy, f = symmetric((31, 31)), gallery.sine((31, 31))[1]
    solver = Solver(hierarchy, "nested V(1,1)", rtol=1e-9, acceleration=method)
    plain = Solver(hierarchy, "nested V(1,1)", rtol=1e-9)
    solution, first = solver.solve(f).require(), plain.solve(f).residual_norms[:2]
    assert solution.residual_norms[:2] == pytest.approx(first, rel=1e-12)
