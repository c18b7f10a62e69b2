"""The course ends levels by stagnation, share and budget, and keeps the best state."""

import contextlib
import types
from dataclasses import replace

import pytest
import torch

from mgnet import Hierarchy, parse, run
from mgnet.estimators.budgeted_training import train_within
from mgnet.estimators.training_budget import (
    BudgetedSmoother,
    SweepLines,
    TrainingBudget,
    budgeted,
)
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import LBFGS, LeastSquares, LevenbergMarquardt, TorchOptimizer

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)


def trained(evaluations, smoother=None, told=None):
    kan = KAN([1, 2, 1], 2)
    problem = LeastSquares(kan, (X, torch.sin(6 * X)))
    budget = TrainingBudget(evaluations=evaluations, progress=told)
    hierarchy = knot_hierarchy(kan, problem, 3, smoother or LevenbergMarquardt())
    with contextlib.suppress(StopIteration):
        train_within(budget, hierarchy, "", {})
    return budget, hierarchy


def test_the_budget_ends_the_training_and_coarse_levels_have_shares():
    budget, _ = trained(100.0)
    assert 100.0 <= budget.work < 112.0  # one sweep more at most
    ends = {n: max(work for _, work, _, number in budget.history if number == n) for n in range(3)}
    assert ends[2] <= 0.15 * 100.0 + 12.0
    assert ends[1] <= 0.30 * 100.0 + 12.0
    assert budget.exhausted


def test_a_level_that_stagnates_is_left():
    budget, _ = trained(1e9, smoother=TorchOptimizer(torch.optim.SGD, {"lr": 1e-12}), told=stop)
    assert [number for *_, number in budget.history].count(2) == 7


def stop(seconds, fraction, mse, level):
    """End the run on the finest level, which only the budget ends."""
    if level == 0:
        raise StopIteration


def test_the_best_state_is_kept():
    budget, hierarchy = trained(60.0, smoother=TorchOptimizer(torch.optim.Adam, {"lr": 0.3}))
    level, u = budget.best()
    lowest = min(mse for *_, mse, _ in budget.history)
    assert hierarchy[level].operator.mean_square(u) == pytest.approx(lowest)


def test_no_state_no_model():
    with pytest.raises(KeyboardInterrupt):
        TrainingBudget().best()


def test_every_smoother_of_a_hierarchy_is_timed():
    kan = KAN([1, 2, 1], 2)
    own = knot_hierarchy(kan, LeastSquares(kan, (X, torch.sin(6 * X))), 3, LevenbergMarquardt())
    own = own.with_levels(lambda levels: [replace(levels[0], post_smoother=LBFGS()), *levels[1:]])
    budget = TrainingBudget(evaluations=20.0)
    levels = budgeted(own, {str(LBFGS()): 10}, budget)
    bound = levels.with_data((X, torch.cos(X)))
    assert all(isinstance(level.smoother, BudgetedSmoother) for level in bound)
    below = levels[0].recenter(levels[0].operator.start())  # type: ignore[misc]
    found = [part for level in (*levels, below) for part in (level.smoother, level.post_smoother)]
    told = [
        (type(part.inner).__name__, part.step)
        for part in found
        if isinstance(part, BudgetedSmoother)
    ]
    lm = ("LevenbergMarquardt", 1)
    assert told == [lm, ("LBFGS", 10), lm, lm, lm]


def test_a_smoother_starts_afresh_after_another_kind():
    budget = TrainingBudget()
    kan = KAN([1, 2, 1], 2)
    own = knot_hierarchy(kan, LeastSquares(kan, (X, torch.sin(6 * X))), 2, LevenbergMarquardt())
    levels = budgeted(Hierarchy([replace(own[0], smoother=LBFGS()), own[1]]), {}, budget)
    u, memory = run(parse("cascade 3,3", 2), levels, levels[0].operator.start(), None)
    assert memory[0, "pre"][0] is LBFGS and memory[1, "pre"][0] is LevenbergMarquardt
    assert levels[0].operator.value(u) < levels[0].operator.value(levels[0].operator.start())


def test_however_short_the_budget_there_is_a_model():
    budget, _ = trained(1e-9)
    assert [number for *_, number in budget.history] == [2]
    assert budget.best()[0] == 2


def test_the_memory_of_a_smoother_reaches_the_finer_level():
    kan = KAN([1, 2, 1], 2)
    own = knot_hierarchy(kan, LeastSquares(kan, (X, torch.sin(6 * X))), 2, LevenbergMarquardt())
    levels = budgeted(own, {}, TrainingBudget())
    start = levels[0].operator.start()
    _, memory = run(parse("cascade 4,0", 2), levels, start, None)
    assert memory[0, "pre"] == memory[1, "pre"]  # a damping means the same on every level
    assert memory[0, "pre"][1].mu != LevenbergMarquardt().mu
    none = BudgetedSmoother(LBFGS(), 1, TrainingBudget())
    assert none.carry((LBFGS, None), own[0].transfer) is None


@pytest.mark.parametrize(("gain", "ends"), [(0.021, False), (0.019, True)])
def test_the_gain_is_that_of_a_whole_window(gain, ends):
    """Losses that fall by the same factor each time: a window of six has six of these."""
    operator = types.SimpleNamespace(value=lambda u: u)
    level = types.SimpleNamespace(operator=operator, evaluation_cost=1.0)
    budget = TrainingBudget(sweeps=1000, window=6, tol=0.02)
    budget.hierarchy = [level]
    for k in range(7):
        assert not budget.ends(level)
        budget.note(level, (1.0 - gain) ** (k / 6.0), 1.0)
    assert budget.ends(level) is ends


def test_lines_of_sweeps(capsys):
    lines = SweepLines(every=2.0)
    for seconds, level in [(0.1, 2), (1.0, 2), (2.1, 2), (2.2, 1), (4.1, 1), (4.2, 1)]:
        lines(seconds, 0.1 * seconds, 1e-3, level)
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in told] == [
        "sweep 1, level 2",
        "sweep 3, level 2",
        "sweep 4, level 1",
        "sweep 6, level 1",
    ]
    assert told[1].endswith("loss 1.00e-03, 2.1 s (21 %)")
