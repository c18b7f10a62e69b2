"""The course ends levels by stagnation, share and budget, and keeps the best state."""

import contextlib
import types
from dataclasses import replace

import pytest
import torch

from mgnet import Hierarchy, cascade, parse, run
from mgnet.estimators.training_budget import (
    BudgetedSmoother,
    SweepLines,
    TrainingBudget,
    budgeted,
    train_within,
)
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import LBFGS, LeastSquares, LevenbergMarquardt, TorchOptimizer

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)


def trained(evaluations, by_share=True, smoother=None, told=None):
    kan = KAN([1, 2, 1], 2)
    problem = LeastSquares(kan, (X, torch.sin(6 * X)))
    budget = TrainingBudget(evaluations=evaluations, progress=told)
    inner = smoother or LevenbergMarquardt()
    hierarchy = knot_hierarchy(kan, problem, 3, BudgetedSmoother(inner, 1, budget))
    budget.hierarchy, budget.by_share = hierarchy, by_share
    with contextlib.suppress(StopIteration):
        run(cascade([500, 500, 500]), hierarchy, hierarchy[0].operator.start(), None)
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
    level = types.SimpleNamespace(operator=types.SimpleNamespace(value=lambda u: u))
    budget = TrainingBudget(sweeps=1000, window=6, tol=0.02)
    budget.hierarchy = [level]
    for k in range(7):
        assert not budget.ends(level)
        budget.note(level, (1.0 - gain) ** (k / 6.0), 1.0)
    assert budget.ends(level) is ends


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
