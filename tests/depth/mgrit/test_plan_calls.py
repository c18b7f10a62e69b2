"""Law: the calls of a plan are counted before they are walked, never too few and not too many."""

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgnet.depth import best_plan, plan
from mgnet.depth.mgrit.c_layers import level_factors, level_sizes

module = import_module("mgnet.depth.mgrit.plan_calls")
CYCLES = ["V", "F", "W", "cascade + V", "cascade + F"]
WORDS = [("F",), ("F", "FCF"), "FCF", ("FCFCF", "F")]
counts = st.none() | st.integers(0, 3)


def told(*arguments):
    """Return the count in the refusal when no call is allowed."""
    most, module.MOST_CALLS = module.MOST_CALLS, -1
    try:
        with pytest.raises(ValueError, match="about") as refusal:
            module.check_calls(*arguments)
    finally:
        module.MOST_CALLS = most
    return int(str(refusal.value).split("about ")[1].split()[0])


@given(
    st.integers(1, 300),
    st.integers(1, 4),
    st.integers(2, 9),
    st.sampled_from(CYCLES),
    st.sampled_from(WORDS),
    st.lists(counts, min_size=1, max_size=2),
)
def test_the_count(layers, levels, factor, cycle, words, cycles):
    factors = level_factors(levels, factor)
    try:
        sizes = level_sizes(layers, factors)
    except ValueError:
        return
    made = 0
    for count, reverse in zip(cycles, (False, True), strict=False):
        given = ((), 0) if count is None else (factors, count)
        made += len(module.plan_calls(layers, given[0], words, cycle, given[1], True, reverse))
    assert made <= told(sizes, factors, words, cycle, cycles, 1) <= 20 * made


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": 10**9},
        {"layers": 10**18},
        {"layers": 10**6},
        {"layers": 10**6, "coarsening": 500_000},
        {"layers": 64, "cycles": (10**12, 1)},
        {"layers": 10**5, "ranks": 10**12},
        {"layers": 10**6, "levels": 1},
    ],
)
def test_what_is_refused(settings):
    with pytest.raises(
        ValueError, match=r"^plan got [\w ]+ layers and [\w ]+ calls on \d+ ranks; "
    ):
        plan(**settings)


def test_what_has_few_calls_is_planned():
    assert plan(10**6, 10**9, 1000).layers == 10**6
    with pytest.raises(ValueError, match="^layer hierarchy got levels = 1000000000; "):
        plan(64, levels=10**9)
    with pytest.raises(ValueError, match=r"^best_plan got coarsenings \(1, 2\); "):
        best_plan(64, coarsenings=(1, 2))  # a factor of 1 would not end
