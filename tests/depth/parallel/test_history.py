"""Law: estimates come from the norms of all points, and need no number before they are asked."""

import math

import pytest
import torch

from mgnet.depth.mgrit.communicator import ALONE, Alone
from mgnet.depth.parallel.control import judged
from mgnet.depth.parallel.history import History


def states(seed):
    return torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("reverse", [False, True])
def test_estimates_are_those_of_ordinary_norms(reverse):
    history, changes, norms = History(ALONE, reverse, torch.float64), [], []
    own, end = (slice(0, 4), 0) if reverse else (slice(1, 5), -1)
    for cycle in range(3):
        residual, before, after = (states(10 * cycle + k) * 0.1**cycle for k in range(3))
        history.met(residual)
        history.changed(before, after)
        norms.append(float(residual[own].norm()))
        changes.append(float((after[end] - before[end]).norm() / after[end].norm()))
    expected = judged(changes, norms, history.rounding)
    assert history.judged()[:3] == pytest.approx(expected[:3], rel=1e-12)
    assert history.judged().estimates == pytest.approx(expected.estimates, rel=1e-12)


class Counting(Alone):
    calls = 0

    def gather(self, values):
        self.calls += 1
        return values


def test_numbers_are_gathered_once_and_when_asked():
    neighbours = Counting()
    history = History(neighbours, False, torch.float64)
    for cycle in range(4):
        history.met(states(cycle))
        history.changed(states(cycle), states(cycle + 1))
    assert neighbours.calls == 0
    assert history.judged() == history.judged()
    assert neighbours.calls == 1


def test_without_cycles_there_is_nothing_to_gather():
    neighbours = Counting()
    assert math.isnan(History(neighbours, False, torch.float64).judged().estimate)
    assert neighbours.calls == 0


def test_a_state_of_zeros_has_no_relative_change():
    history = History(ALONE, False, torch.float64)
    history.changed(states(0), torch.zeros(5, 3, 2))
    assert math.isinf(history.judged().estimate)
