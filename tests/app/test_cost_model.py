"""Law: a cost_model hierarchy gives the work of a cycle as a geometric sum."""

import pytest

from mgnet import cycle, parse
from mgnet.app.cost_model import cost_model


@pytest.mark.parametrize("ratio", [1.0, 2.0, 8.0])
def test_v_cycle_is_a_geometric_sum(ratio):
    work = cycle(4).work(
        cost_model(4, ratio)
    )  # two sweeps and a residual per level, then one solve
    expected = sum(3.0 * ratio**-l for l in range(3)) + ratio**-3
    assert work.exact
    assert work.units == pytest.approx(expected)


def test_cascade_counts_its_sweeps_only():
    assert parse("cascade 4,2,1", 3).work(cost_model(3)).units == pytest.approx(1 + 2 / 2 + 4 / 4)


def test_one_level():
    assert cycle(1).work(cost_model(1)).units == 1.0
