"""Laws: costs are sums over what is called, by brute force; equal costs change nothing."""

import numpy as np
import pytest

from mgnet.depth.mgrit.plan import plan
from mgnet.depth.mgrit.plan_calls import plan_calls
from mgnet.depth.mgrit.step_costs import checked_costs, even_blocks, level_costs


@pytest.mark.parametrize("coarse", ["mean", "fused", "identity", "first"])
@pytest.mark.parametrize(("layers", "ranks"), [(64, 4), (61, 3), (17, 16), (64, 1)])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_equal_costs_are_the_plan_without(coarse, layers, ranks, levels):
    options = {"levels": levels, "coarse": coarse, "record": True, "gathered": True}
    plain = plan(layers, ranks, 4, **options)
    equal = plan(layers, ranks, 4, costs=np.ones(layers), **options)
    assert equal.serial_seconds == pytest.approx(plain.serial_seconds)
    for a, b in ((plain.forward, equal.forward), (plain.backward, equal.backward)):
        assert b.evaluations == pytest.approx(a.evaluations)
        if layers % 4**levels == 0 and (layers // 4 ** (levels - 1)) % ranks == 0:
            assert b == pytest.approx(a)  # the same blocks
    doubled = plan(layers, ranks, 4, costs=np.full(layers, 2.0), **options)
    assert doubled.critical_path == pytest.approx(2.0 * equal.critical_path)


@pytest.mark.parametrize("seed", range(4))
def test_costs_are_sums_over_the_calls(seed):
    rng = np.random.default_rng(seed)
    layers = int(rng.integers(20, 60))
    costs = rng.random(layers) + 0.1
    told = plan(layers, 1, (4, 2), levels=3, cycles=(2,), costs=costs)
    means = [
        np.array([costs[k : k + width].mean() for k in range(0, layers, width)])
        for width in (1, 4, 8)
    ]
    calls = plan_calls(layers, (4, 2), ("F", "FCF"), "cascade + V", 2, False, False)
    total = sum(means[call.level][call.which].sum() for call in calls)
    assert told.forward.evaluations == pytest.approx(total)
    assert told.forward.critical == pytest.approx(total)
    assert told.serial_seconds == pytest.approx(costs.sum())


def test_blocks_are_even_in_cost():
    costs = np.r_[np.full(8, 10.0), np.full(56, 1.0)]
    options = {"levels": 2, "cycles": (1,)}
    told = plan(64, 4, 4, costs=costs, **options)
    begins = even_blocks(costs, 4, 4)
    assert begins.tolist()[1:3] == [1, 2]  # two of the dear intervals alone
    equal_blocks = sum(costs[:16])
    assert max(costs[4 * a : 4 * b].sum() for a, b in zip(begins, begins[1:], strict=False)) < (
        equal_blocks
    )
    assert told.forward.critical < told.forward.evaluations


@pytest.mark.parametrize("seed", range(5))
def test_every_rank_has_a_block(seed):
    rng = np.random.default_rng(seed)
    costs = rng.random(40) ** 8
    for ranks in (1, 2, 5, 10):
        begins = even_blocks(costs, 4, ranks)
        assert len(begins) == ranks + 1 and begins[0] == 0 and begins[-1] == 10
        assert (np.diff(begins) > 0).all()


def test_coarse_kinds():
    costs = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert level_costs(costs, (2, 2), "fused")[2].tolist() == [10.0, 5.0]
    assert level_costs(costs, (2, 2), "mean")[2].tolist() == [2.5, 5.0]
    assert level_costs(costs, (2,), "identity")[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "costs",
    [[1.0], [1.0, -1.0, 1.0], [0.0] * 3, [1.0, np.nan, 1.0], "abc", [[1.0] * 3], [1e308] * 3],
)
def test_refusals(costs):
    with pytest.raises(ValueError, match="give one for each of the 3 layers"):
        plan(3, costs=costs)
    assert checked_costs("plan", None, 3) is None
