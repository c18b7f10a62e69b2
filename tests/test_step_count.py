"""Law: the number of steps, counted before one is made, is that of the schedule that is made."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgnet import cycle, nested
from mgnet.limits import MOST_STEPS
from mgnet.step_count import check_steps, cycle_steps, nested_steps

KAPPAS = [*range(1, 9), 100, 10**30, math.inf]
sweeps = st.integers(0, 2)


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("levels", range(1, 10))
def test_all_small_cases(levels, kappa):
    for pre, post in ((0, 0), (1, 0), (0, 2), (1, 1)):
        assert cycle_steps(levels, kappa, pre, post) == len(cycle(levels, kappa, pre, post))
        for cycles in (1, 2):
            told = nested_steps(levels, kappa, pre, post, cycles)
            assert told == len(nested(levels, kappa, pre, post, cycles))


def recursive(depth, kappa, own):
    """Count by the definition: a call with k makes one with k and, above the last, one with k - 1.

    A table from the coarsest level upwards; it knows nothing of binomials.
    """
    counts = {k: 1 for k in range(1, kappa + 1)}
    for distance in range(1, depth + 1):
        second = distance > 1
        counts = {k: own + counts[k] + (counts[k - 1] if second and k > 1 else 0) for k in counts}
    return counts[kappa]


@given(st.integers(1, 300), st.integers(1, 12), sweeps, sweeps)
def test_large_ones_are_those_of_the_definition(levels, kappa, pre, post):
    own = 2 + (pre > 0) + (post > 0)
    exact = recursive(levels - 1, kappa, own)
    told = cycle_steps(levels, kappa, pre, post)
    assert told == exact if exact <= 10**18 else told > 10**18
    exact = 2 + sum(1 + recursive(depth, kappa, own) for depth in range(1, levels))
    told = nested_steps(levels, kappa, pre, post)
    assert told == exact if exact <= 10**18 else told > 10**18


@pytest.mark.parametrize("levels", [10**9, 10**30])
@pytest.mark.parametrize("kappa", [1, 2, 10**30, math.inf])
def test_absurd_ones_are_counted_at_once(levels, kappa):
    assert cycle_steps(levels, kappa) > MOST_STEPS
    assert nested_steps(levels, kappa, cycles=10**30) > 10**30


def test_the_refusal_has_the_count():
    check_steps(MOST_STEPS, "it", "stop")
    with pytest.raises(ValueError, match=f"^it has {MOST_STEPS + 1} steps; .*, so stop$"):
        check_steps(MOST_STEPS + 1, "it", "stop")
    with pytest.raises(ValueError, match="^it has more than 10.18 steps"):
        check_steps(10**5000, "it", "stop")
