"""The search for a step: as the rule says, and never upward."""

import math

import numpy as np
import pytest
import torch

from mgnet.training import LeastSquares
from mgnet.training.least_squares.step_rules import Damping, Nielsen, StepRule, Trial
from mgnet.training.least_squares.sweep import Linearized, Sweep, searched

U = torch.zeros(1, dtype=torch.float64)
TOLD = Linearized(None, U, U, None, None, 0.5)
START = Sweep(U, Damping(1.0, 2.0), TOLD, Trial(-math.inf, 0.0, 0.0, 0.0), 1.0, None, True)


def search(attempt, rule=None, moves=True, unseen=1e-12):
    rule = rule or Nielsen()
    return searched(rule, START.memory, START, unseen, moves, attempt)


def test_the_first_step_that_is_good_enough_is_taken():
    tried = []

    def attempt(memory):
        tried.append(memory.mu)
        actual = 0.9 if len(tried) == 4 else -1.0
        return Trial(actual, 1.0, 1.0, 2.0), torch.full((1,), memory.mu), 0.5

    sweep = search(attempt)
    assert tried == [1.0, 2.0, 8.0, 64.0] and sweep.u.item() == 64.0
    assert sweep.trial.actual == 0.9 and sweep.memory.bend == 0.5 and sweep.seen


def test_the_state_itself_where_none_is():
    count = []
    trial = Trial(-math.inf, 1.0, 1.0, 2.0)
    sweep = search(lambda memory: count.append(1) or (trial, None, 1.0), Nielsen(trials=5))
    assert sweep.u is U and len(count) == 5 and sweep.memory.growth == 2.0


@pytest.mark.parametrize("moves, predicted", [(False, 1.0), (True, 1e-13)])
def test_what_cannot_be_seen_changes_no_damping(moves, predicted):
    sweep = search(lambda memory: (Trial(1.0, predicted, 1.0, 2.0), U + 1.0, 1.0), moves=moves)
    assert sweep.u is U and not sweep.seen and sweep.memory is START.memory


class Reaching(StepRule):
    """Goes twice as far while the gain is good."""

    trials = 9

    def begin(self, mu):
        return Damping(mu, 2.0)

    def propose(self, memory, system, size):
        return memory

    def judge(self, memory, trial):
        return memory

    def reaching(self, before, memory, trial):
        return memory._replace(mu=memory.mu / 2.0)


def test_longer_steps_are_kept_while_they_gain_more():
    rng = np.random.default_rng(0)
    gains = [0.8, 0.9, 0.95, *rng.uniform(0.0, 0.7, 6)]
    steps = iter(gains)

    def attempt(memory):
        gain = next(steps)
        length = 1.0 / memory.mu
        return Trial(gain * length, length, length, 2.0), torch.tensor([length]), 1.0

    assert search(attempt, Reaching()).u.item() == 4.0


def test_a_damping_is_tried_once():
    class Twice(Reaching):
        def look(self, memory, system, size, attempt):
            return memory if attempt(memory) and attempt(memory) else memory

        def reaching(self, before, memory, trial):
            return None

    count = []
    search(lambda m: count.append(1) or (Trial(1.0, 1.0, 1.0, 2.0), U + 1.0, 1.0), Twice())
    assert len(count) == 1


def test_what_a_linearization_knows():
    network = torch.nn.Linear(1, 1).double()
    x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    problem = LeastSquares.from_torch(network, lambda n: n(x) - 5.0 * x)
    u = torch.tensor([2.0, 1.0], dtype=torch.float64)
    r, J = problem.linearize(u)  # -2, -5
    told = Linearized(problem, u, r, J, torch.tensor([1.0, 1.0]).double(), 14.5)
    assert told.value == 14.5 - 3.0 and told.largest == 5.0
    assert told.gradient == pytest.approx(math.hypot(12.0, 7.0))
