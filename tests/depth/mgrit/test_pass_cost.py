"""Counts are those of a loop over calls, layers and ranks."""

import numpy as np
import pytest

from mgnet.depth.mgrit.pass_cost import Cost, cost_of, with_gatherings
from mgnet.depth.mgrit.plan_calls import Call


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    layers, ranks = int(rng.integers(4, 40)), int(rng.integers(1, 5))
    begins = np.sort(rng.integers(0, layers + 1, ranks - 1))
    begins = np.array([0, *begins, layers])
    weights = rng.random(layers)
    starts = rng.integers(0, layers, 3)
    calls = [Call(0, slice(int(a), layers, int(rng.integers(1, 4)))) for a in starts]
    evaluations, critical = 0.0, 0.0
    for call in calls:
        own = np.zeros(ranks)
        for n in range(layers)[call.which]:
            own[np.searchsorted(begins, n, "right") - 1] += weights[n]
        evaluations, critical = evaluations + own.sum(), critical + own.max()
    found = cost_of(calls, [begins], [1], False, None, False, [weights])
    assert found.evaluations == pytest.approx(evaluations)
    assert found.critical == pytest.approx(critical)
    equal = cost_of(calls, [begins], [1], False, None, False, None)
    assert equal.evaluations == sum(len(range(layers)[call.which]) for call in calls)


def test_gatherings_grow_like_the_logarithm_of_the_ranks():
    for ranks, rounds in ((1, 0), (2, 1), (5, 3), (8, 3)):
        cost = with_gatherings(Cost(0, 0, 0, 0), 2, ranks)
        assert (cost.messages, cost.critical_messages) == (2 * rounds * ranks, 2 * rounds)
