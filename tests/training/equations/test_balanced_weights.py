"""Weights follow the losses as their formula says, until all are alike."""

import math

import pytest
import torch

from mgnet.training import (
    BalancedWeights,
    Collocation,
    LeastSquares,
    Term,
    levenberg_marquardt,
    quasi_random,
)


def problem_with(weights, scales, seed=0):
    torch.manual_seed(seed)
    x = quasi_random(16, [(-1.0, 1.0)], seed=seed)
    terms = [
        Term(lambda u, s=scale: s * (u.value - u.points**2), x, weight=weight)
        for weight, scale in zip(weights, scales, strict=True)
    ]
    return Collocation(torch.nn.Linear(1, 1).double(), terms)


@pytest.mark.parametrize("seed", range(4))
def test_weights_follow_the_formula(seed):
    generator = torch.Generator().manual_seed(seed)
    count = 2 + seed
    drawn = torch.rand(2, count, generator=generator, dtype=torch.float64) * 10.0 + 0.01
    weights, scales = drawn.tolist()
    problem = problem_with(weights, scales, seed)
    u = problem.start()
    power = 0.05 + 0.3 * seed
    new = [term.weight for term in BalancedWeights(power, most=math.inf)(1, problem, u).terms]
    x = problem.terms[0].points
    miss = (problem.network(x) - x**2).detach().square().mean()
    losses = [w * s * s * float(miss) for w, s in zip(weights, scales, strict=True)]
    raw = [w * (sum(losses) / count / own) ** power for w, own in zip(weights, losses, strict=True)]
    factor = sum(weights) / sum(raw)
    assert new == pytest.approx([factor * each for each in raw], rel=1e-12)


def test_a_term_that_is_met_keeps_its_weight_relative_to_the_sum():
    problem = problem_with([1.0, 1.0, 1.0], [1.0, 2.0, 0.0])
    new = [term.weight for term in BalancedWeights()(1, problem, problem.start()).terms]
    assert sum(new) == pytest.approx(3.0) and all(w > 0.0 for w in new)
    met = problem_with([1.0, 1.0], [0.0, 0.0])
    assert BalancedWeights()(1, met, met.start()) is met
    assert BalancedWeights(every=2)(1, problem, problem.start()) is problem
    alone = problem_with([1.0], [1.0])
    assert BalancedWeights()(1, alone, alone.start()) is alone


def test_weighted_losses_become_alike():
    problem = problem_with([1.0, 5.0, 1e-3], [3.0, 1e-2, 40.0])
    u = problem.start()
    refresh = BalancedWeights(0.2, most=math.inf)
    for cycle in range(1, 201):
        problem = refresh(cycle, problem, u)
    both = zip(problem.terms, problem.unscaled(u), strict=True)
    losses = [term.weight * float(r.square().mean()) for term, r in both]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-9)
    assert sum(term.weight for term in problem.terms) == pytest.approx(6.001)


def test_a_term_that_is_met_exactly_does_not_take_all_weight():
    problem = problem_with([1.0, 1.0], [1.0, 1e-12])
    for cycle in range(1, 301):
        problem = BalancedWeights(most=50.0)(cycle, problem, problem.start())
    weights = [term.weight for term in problem.terms]
    assert weights == pytest.approx([2.0 / 51.0, 100.0 / 51.0])


def test_a_term_that_is_switched_off_stays_so():
    problem = problem_with([1.0, 0.0, 1.0], [1.0, 5.0, 2.0])
    for cycle in range(1, 20):
        problem = BalancedWeights()(cycle, problem, problem.start())
    weights = [term.weight for term in problem.terms]
    assert weights[1] == 0.0 and sum(weights) == pytest.approx(2.0)


def test_a_training_takes_it():
    """Both terms can be met, so weights change the way and not the end."""
    problem = problem_with([1.0], [1.0])
    x = problem.terms[0].points
    line = [Term(lambda u: u.value - u.points, x), Term(lambda u: u.d(0) - 1.0, x, 1e-3)]
    for refresh in (None, BalancedWeights(0.5)):
        torch.nn.init.constant_(problem.network.weight, 5.0)
        solution = levenberg_marquardt(problem.with_data(line), refresh=refresh)
        assert solution.reason.converged
        assert problem.network.weight.item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: BalancedWeights(0.0), "power 0.0"),
        (lambda: BalancedWeights(1.5), "power 1.5"),
        (lambda: BalancedWeights(math.nan), "power nan"),
        (lambda: BalancedWeights(every=0), "every 0"),
        (lambda: BalancedWeights(most=0.5), "most 0.5"),
        (lambda: BalancedWeights(most=math.nan), "most nan"),
    ],
)
def test_what_is_no_setting_is_refused(make, told):
    with pytest.raises(ValueError) as caught:
        make()
    assert told in str(caught.value)


def test_other_problems_are_refused():
    x = torch.zeros(3, 1)
    with pytest.raises(TypeError, match="needs a Collocation"):
        BalancedWeights()(1, LeastSquares(torch.nn.Linear(1, 1), (x, x)), torch.zeros(2))
