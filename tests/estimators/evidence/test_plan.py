"""Work is bounded for every table, and what is asked for stays."""

import numpy as np
import pytest

from mgnet.estimators.evidence import plan as module
from mgnet.estimators.evidence.plan import FEWEST_ROWS, MOST_INTERVALS, Sizes, plan_of


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("inputs", [1, 20, 120])
@pytest.mark.parametrize("rows", [100, 5000, 300_000])
def test_work_is_bounded(rows, inputs, outputs):
    values = np.full(inputs, min(rows, 10_000))
    plan = plan_of(values, rows, outputs)
    work = module._work(plan, plan.sizes, module.STEPS, values, rows, outputs)
    assert plan.work == outputs * (module.WORK + module.WORK_PER_ROW * rows)
    smallest = plan.folds == 2 and plan.rows <= FEWEST_ROWS and plan.sizes.units == 2
    assert work <= plan.work or smallest
    assert 2 <= plan.folds <= 5 and plan.sizes.modes // 2 >= 1  # an input has a column


@pytest.mark.parametrize(("rows", "folds"), [(2, 2), (5, 2), (9, 3), (15, 5), (1000, 5)])
def test_folds_of_few_rows(rows, folds):
    assert plan_of(np.array([rows]), rows, 1).folds == folds


def test_what_is_asked_for():
    plan = plan_of(np.array([50, 50]), 50, 1, 3, 2, units=7, intervals=3, levels=2)
    assert plan.sizes == Sizes(6, 3, 3, 7, 8)
    assert (plan.folds, plan.degree, plan.levels) == (3, 2, 2)
    huge = plan_of(np.full(1000, 10_000), 10**6, 3, units=7)
    assert huge.sizes.units == 7 and huge.folds == 2
    beyond = plan_of(np.array([50, 50]), 50, 1, units=10**500, intervals=10**500)
    assert min(beyond.parameters(np.array([50, 50]), 1), beyond.sizes.units) > 10**20


def test_finer_models_end_somewhere():
    plan = plan_of(np.array([1000]), 1000, 1)
    values = np.array([1000])
    assert plan.allows(plan.sizes, values, 1000, 1)
    assert not plan.allows(plan.sizes._replace(first=2 * MOST_INTERVALS), values, 1000, 1)
    assert not plan.allows(plan.sizes._replace(units=64), values, 1000, 1)
    assert not plan.allows(plan.sizes, np.full(5000, 1000), 10**6, 9)


def test_steps():
    plan = plan_of(np.array([100]), 100, 1)
    assert plan.steps(True, True) < plan.steps(True, False) < plan.steps(False, False)
    assert plan.steps(False, True) == plan.steps(False, False)


def test_many_classes_are_solved_by_blocks():
    values = np.full(60, 17)
    few, many = plan_of(values, 150, 1), plan_of(values, 1500, 10)
    assert many.blocks and not few.blocks
    assert many.folds == 5 and many.sizes.units == module.UNITS_OF_BLOCKS
    assert not plan_of(np.full(4, 30), 150, 3).blocks  # small tables have a matrix
    assert many.numbers(values, 1500, 10) < few.numbers(values, 1500, 10)
