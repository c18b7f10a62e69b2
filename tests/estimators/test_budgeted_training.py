"""Training within a budget: cycles and cascades, rows held out, starts, coarse rows."""

import contextlib

import numpy as np
import pytest
import torch

from mgnet import cascade, run
from mgnet.estimators.budgeted_training import train_within
from mgnet.estimators.training_budget import TrainingBudget
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import LeastSquares, LevenbergMarquardt, TorchOptimizer, coarse_rows
from mgnet.training.tournament import first_members

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)


def noisy(**limits):
    """A network with far too many knots for its rows, and rows of the function without noise."""
    kan = KAN([1, 3, 1], 2)
    noise = 0.3 * torch.randn(X.shape, generator=torch.Generator().manual_seed(0)).double()
    problem = LeastSquares(kan, (X, torch.sin(4 * X) + noise))
    held_out = LeastSquares(kan, (X + 0.02, torch.sin(4 * X + 0.08)))
    hierarchy = knot_hierarchy(kan, problem, 4, LevenbergMarquardt())
    return TrainingBudget(**limits), hierarchy, held_out


def test_held_out_rows_decide_what_is_best_and_when_a_level_ends():
    budget, hierarchy, held_out = noisy(sweeps=80, patience=6)
    level, u = train_within(budget, hierarchy, "", {}, held_out)
    kept = held_out.with_network(hierarchy.network(level, u)).value(u)
    assert len(budget.history) < 60  # not the budget ended it
    again, levels, _ = noisy(sweeps=80)
    last = train_within(again, levels, "", {})
    assert len(again.history) == 80
    assert kept < 0.5 * held_out.with_network(levels.network(*last)).value(last[1])
    assert hierarchy[level].operator.value(u) > levels[last[0]].operator.value(last[1])


def test_in_a_cycle_that_comes_down_the_best_is_kept_too():
    budget, hierarchy, held_out = noisy(sweeps=10)
    values = []
    budget.progress = lambda *told: values.append(
        held_out.with_network(hierarchy.network(*budget.best()))
    )
    level, u = train_within(budget, hierarchy, "V(1,1)", {}, held_out)
    assert len(budget.history) == 10
    lowest = min(problem.value(problem.start()) for problem in values)
    assert held_out.with_network(hierarchy.network(level, u)).value(u) == pytest.approx(lowest)


def test_the_tolerance_ends_the_finest_level():
    budget, hierarchy, _ = noisy(sweeps=200, tol=0.5, window=4)
    train_within(budget, hierarchy, "", {})
    assert 5 <= [level for *_, level in budget.history].count(0) < 50


def test_coarse_levels_get_their_shares_by_count():
    """Of 100 sweeps three tenths are for the coarse levels, the coarsest has half of these."""
    still = TorchOptimizer(torch.optim.SGD, {"lr": 1e-12})
    for levels, counts in ((3, [70, 15, 15]), (2, [70, 30]), (1, [100])):
        kan = KAN([1, 2, 1], 2)
        own = knot_hierarchy(kan, LeastSquares(kan, (X, torch.sin(6 * X))), levels, still)
        budget = TrainingBudget(sweeps=100, window=1000)
        train_within(budget, own, "", {})
        assert [[k for *_, k in budget.history].count(n) for n in range(levels)] == counts


@pytest.mark.parametrize("after", [0, 3])
def test_an_interrupt_comes_in_where_it_may_and_keeps_the_best(after):
    """The context is that of the training alone; without a sweep there is nothing to keep."""
    where = []

    @contextlib.contextmanager
    def interruptible():
        where.append("in")
        if not after:
            raise KeyboardInterrupt
        try:
            yield
        finally:
            where.append("out")

    def progress(*_):
        if len(budget.history) == after:
            raise KeyboardInterrupt

    kan = KAN([1, 2, 1], 2)
    problem = LeastSquares(kan, (X, torch.sin(6 * X)))
    budget = TrainingBudget(sweeps=50, progress=progress, interruptible=interruptible)
    hierarchy = knot_hierarchy(kan, problem, 2, LevenbergMarquardt())
    if not after:
        with pytest.raises(KeyboardInterrupt):
            train_within(budget, hierarchy, "", {})
        return
    level, u = train_within(budget, hierarchy, "", {})
    assert where == ["in", "out"] and budget.interrupted
    value = hierarchy[level].operator.value(u)
    assert 2.0 * value == pytest.approx(min(loss for _, _, loss, _ in budget.history))


def rows(count, seed=0):
    """So many rows of a function of two inputs, and a network for them."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.uniform(-1.0, 1.0, (count, 2)))
    y = torch.sin(3.0 * x[:, :1] + x[:, 1:] ** 2)
    kan = KAN([2, 2, 1], 2, generator=torch.Generator().manual_seed(seed))
    return kan, LeastSquares(kan, (x, y))


@pytest.mark.parametrize("seed", range(3))
def test_one_start_is_a_plain_cascade(seed):
    """The same levels, counts and memories as `run` with these counts of sweeps."""
    kan, problem = rows(100, seed)
    hierarchy = knot_hierarchy(kan, problem, 3, LevenbergMarquardt())
    budget = TrainingBudget(sweeps=20, window=1000)
    level, u = train_within(budget, hierarchy, "", {})
    counts = [[n for *_, n in budget.history].count(k) for k in (2, 1, 0)]
    assert counts == [3, 3, 14]
    expected, _ = run(cascade(counts), hierarchy, hierarchy[0].operator.start(), None)
    assert level == 0 and torch.equal(u, expected)


@pytest.mark.parametrize("held", [False, True])
def test_levels_that_see_few_rows_are_judged_by_the_same_rows(held):
    kan, problem = rows(6000)
    smoother = TorchOptimizer(torch.optim.Adam, {"lr": 0.05})  # it goes up and down
    hierarchy = knot_hierarchy(kan, problem, 3, smoother)
    assert [level.operator.samples for level in coarse_rows(hierarchy)] == [6000, 2000, 2000]
    judge = rows(500, seed=7)[1] if held else problem
    budget, values = TrainingBudget(sweeps=60, window=1000), []

    def progress(seconds, fraction, loss, number):
        best, state = budget.best()
        values.append(judge.with_network(hierarchy.network(best, state)).value(state))

    budget.progress = progress
    level, u = train_within(budget, hierarchy, "", {}, judge if held else None)
    assert values == sorted(values, reverse=True) and values[-1] < 0.5 * values[0]
    assert judge.with_network(hierarchy.network(level, u)).value(u) == values[-1]
    seen = [number for *_, number in budget.history]
    assert 0 < seen.count(2) < len(seen)
    assert budget.work < 0.75 * len(seen) * budget.history[-1][1] / len(seen) + 60.0


def test_the_best_of_several_starts_alone():
    """On one level: as if each had been trained by itself."""
    kan, problem = rows(60)
    hierarchy = knot_hierarchy(kan, problem, 1, LevenbergMarquardt())
    budget = TrainingBudget(sweeps=12, window=1000)
    _, u = train_within(budget, hierarchy, "", {}, starts=4, seed=5)
    assert len(budget.history) == 4 * 12  # all of them count as one
    alone = []
    for member in first_members(hierarchy, problem.start(), 4, seed=5):
        own, _ = run(cascade([12]), hierarchy, member.u, None)
        alone.append(problem.value(own))
    assert problem.value(u) == pytest.approx(min(alone))
    assert min(alone) < 0.5 * max(alone)


@pytest.mark.parametrize(("count", "members"), [(500, 1), (15_900, 1), (16_100, 8)])
def test_eight_starts_where_they_cost_no_more_than_one(count, members):
    kan, problem = rows(count)
    still = TorchOptimizer(torch.optim.SGD, {"lr": 1e-12})
    budget = TrainingBudget(sweeps=20, window=1000)
    train_within(budget, knot_hierarchy(kan, problem, 2, still), "", {}, starts=None)
    seen = [number for *_, number in budget.history]
    if members == 1:
        assert [seen.count(1), seen.count(0)] == [6, 14]
    else:
        assert [seen.count(1), seen.count(0)] == [8 * 10, 10]


def test_half_of_the_starts_go_on_to_each_finer_level():
    kan, problem = rows(60)
    budget = TrainingBudget(sweeps=30, window=1000)
    still = TorchOptimizer(torch.optim.SGD, {"lr": 1e-12})
    train_within(budget, knot_hierarchy(kan, problem, 4, still), "", {}, starts=4)
    seen = [number for *_, number in budget.history]
    ends = [len(seen[: len(seen) - seen[::-1].index(k)]) for k in (3, 2, 1, 0)]
    sweeps = np.diff([0, *ends]) / [4, 2, 1, 1]
    assert abs(sweeps.sum() - 30.0) <= 1.0 and abs(sweeps[:3].sum() - 15.0) <= 1.0
