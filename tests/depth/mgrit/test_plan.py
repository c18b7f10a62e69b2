"""Laws: predicted evaluations are counted ones; critical paths and messages follow the formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgnet import run
from mgnet.depth import FixedCycles, LayerParallel, ODENet
from mgnet.depth.mgrit.c_layers import level_factors, level_sizes
from mgnet.depth.mgrit.coarse_kinds import COARSE
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy, mgrit
from mgnet.depth.mgrit.machine import Machine
from mgnet.depth.mgrit.plan import best_plan, plan


class Counter:
    """Layers `u + 0.1 tanh(u)`, of states of 2 entries; counts them, for each block of a level."""

    def __init__(self, blocks, weights):
        self.count, self.blocks, self.critical, self.weights = 0, blocks, 0, weights

    def advance(self, level, which, states):
        weights, layers = self.weights[level], range(len(self.weights[level]))[which]
        assert len(layers) == len(states)
        self.count += sum(weights[i] for i in layers)
        owners = [sum(weights[i] for i in layers if i in b) for b in self.blocks[level]]
        self.critical += max(owners)
        return states + 0.1 * np.tanh(states)


@st.composite
def cases(draw):
    layers = draw(st.integers(1, 90))
    levels, sizes, factors = 1, [layers], []
    for factor in draw(st.lists(st.integers(2, 7), max_size=3)):
        if sizes[-1] > 1:
            factors.append(factor)
            sizes.append(math.ceil(sizes[-1] / factor))
            levels += 1
    words = draw(st.lists(st.sampled_from(["F", "FCF", "FCFCF"]), min_size=1, max_size=2))
    text = draw(st.sampled_from(["V", "F", "W", "cascade + V", "cascade + F", "cascade + W"]))
    count, record = draw(st.integers(0, 3)), draw(st.booleans())
    coarse, ranks = draw(st.sampled_from(COARSE)), draw(st.integers(1, 9))
    return layers, levels, tuple(factors), words, text, count, record, ranks, coarse


def weights_of(sizes, factors, coarse):
    """How many fine layers each layer of each level evaluates."""
    weights, stride = [[1] * sizes[0]], 1
    for size, factor in zip(sizes[1:], factors, strict=True):
        stride *= factor
        stands_for = [min(stride, sizes[0] - n * stride) for n in range(size)]
        own = {"fused": stands_for, "identity": [0] * size}
        weights.append(own.get(coarse, [1] * size))
    return weights


def blocks_of(sizes, factors, ranks):
    """The layers that every rank owns, on every level: whole coarsest intervals."""
    ranks = min(ranks, sizes[-1])
    ends = [int(e) for e in np.linspace(0, sizes[-1], ranks + 1).round()]
    blocks, stride = [], 1
    for size, factor in zip(sizes[::-1], [*factors[::-1], 1], strict=True):
        at = [min(e * stride, size) for e in ends]
        blocks.append([range(a, b) for a, b in zip(at, at[1:], strict=False)])
        stride *= factor
    return blocks[::-1]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_predicted_evaluations_are_counted_ones(case):
    layers, levels, factors, words, text, count, record, ranks, coarse = case
    predicted = plan(
        layers,
        ranks,
        factors,
        text,
        levels=levels,
        relaxation=words,
        cycles=(count, count),
        record=record,
        coarse=coarse,
    )
    sizes = level_sizes(layers, level_factors(levels, factors))
    weights = weights_of(sizes, factors, coarse)
    for cost, reverse in ((predicted.forward, False), (predicted.backward, True)):
        counter = Counter(blocks_of(sizes, factors, ranks), weights)
        hierarchy = layer_hierarchy(
            counter,
            layers,
            np.ones(2),
            levels=levels,
            coarsening=factors,
            relaxation=words,
            reverse=reverse,
            c_points_only=True,
        )
        stored = sizes[1] if levels > 1 else layers
        opening, cycle = mgrit(levels, text)
        u = np.random.default_rng(0).standard_normal((stored + 1, 2))
        for schedule in [opening, *[cycle] * (count if levels > 1 else 1)]:
            if schedule is not None:
                u, _ = run(schedule, hierarchy, u, None)
        if levels > 1:
            closed = hierarchy[0].operator.trajectory(u)
            counter.count += sizes[1] if record else 0
            assert len(closed) == layers + 1
        # The adjoint records the coarse levels that it meets, once: counted in test_layer_parallel.
        recorded = cost.evaluations - counter.count
        assert recorded == 0 or (record and not reverse and recorded <= sum(map(sum, weights[1:])))
        if not record:
            assert cost.critical == counter.critical
        if ranks == 1:
            assert cost.critical == cost.evaluations and cost.messages == 0


@pytest.mark.parametrize(
    ("layers", "factor", "ranks", "speedups"),
    [
        (64, 4, 2, (0.80, 0.57, 0.45, 0.67)),
        (256, 4, 4, (1.33, 1.00, 0.79, 1.00)),
        (1024, 4, 8, (2.00, 1.60, 1.25, 1.33)),
        (1024, 4, 32, (3.20, 2.91, 2.22, 1.78)),
        (1024, 16, 8, (3.20, 2.29, 1.84, 1.60)),
        (1024, 16, 64, (10.7, 9.1, 7.1, 2.46)),
        (1024, 32, 32, (10.7, 8.0, 6.4, 2.40)),
    ],
)
def test_the_table_of_the_cost_model(layers, factor, ranks, speedups):
    """Two levels, no cascade, no communication, backward twice as dear: the known values."""
    ways = [("F", (1, 1)), ("FCF", (1, 1)), ("FCF", (2, 1)), ("FCF", (None, 1))]
    for (word, cycles), speedup in zip(ways, speedups, strict=True):
        found = plan(layers, ranks, factor, "V", relaxation=(word,), cycles=cycles)
        assert found.speedup == pytest.approx(speedup, abs=0.0051, rel=0.005)


@pytest.mark.parametrize("ranks", [1, 4, 16])
@pytest.mark.parametrize(("word", "nu"), [("F", 0), ("FCF", 1), ("FCFCF", 2)])
def test_two_levels_by_formulas(ranks, word, nu):
    n, c = 256, 8
    found = plan(n, ranks, c, "V", relaxation=(word,), cycles=(1,)).forward
    assert found.evaluations == (2 + nu) * n + n // c
    assert found.critical == (2 + nu) * n // ranks + n // c
    assert found.critical_messages == (ranks > 1) * (2 + nu) + ranks - 1
    assert found.messages == (3 + nu) * (ranks - 1)
    skipped = plan(n, ranks, c, relaxation=(word,), cycles=(0,)).forward
    assert skipped.critical == n // c + (c - 1) * n // c // ranks
    # The counts of the design: .25, then 1.25 while the coarse solution is remembered, then .75
    once = plan(n, 1, 4, relaxation=("F",), cycles=(1,)).forward.evaluations / n
    trained = plan(n, 1, 4, relaxation=("F",), cycles=(1,), record=True).forward.evaluations / n
    assert (once, trained) == (2.25, 2.5)


@pytest.mark.parametrize("ranks", [1, 3, 4, 16])
@pytest.mark.parametrize("text", ["V", "cascade + V"])
def test_a_gathered_coarsest_level_by_formulas(ranks, text):
    """Every rank marches over all of it; for each right-hand side `log2(ranks)` messages follow."""
    n, c = 192, 4
    ways = [
        plan(n, ranks, c, text, cycles=(2, 2), record=True, gathered=gathered)
        for gathered in (False, True)
    ]
    first, cascaded = [way.backward for way in ways], text != "V"
    assert first[0] is not None and first[1] is not None
    assert first[1].critical == first[0].critical
    marches = 2 + cascaded
    assert first[1].evaluations - first[0].evaluations == marches * (ranks - 1) * n // c
    saved = marches * (ranks - 1) - 2 * math.ceil(math.log2(ranks))
    assert first[0].critical_messages - first[1].critical_messages == saved
    # Forward, each rank also records the whole level for the adjoint.
    others = [way.forward for way in ways]
    more = (marches + 1) * (ranks - 1) * n // c
    assert others[1].evaluations - others[0].evaluations == more
    assert others[1].critical - others[0].critical == n // c - -(-n // c // ranks)


def test_seconds_and_memory():
    machine = Machine(
        layer_seconds=0.5,
        latency=0.1,
        bandwidth=1e3,
        backward_ratio=3.0,
        state_bytes=200.0,
        layer_bytes=1000.0,
    )
    found = plan(64, 4, machine=machine, cycles=(1, 1))
    f, b = found.forward, found.backward
    assert found.critical_path == f.critical + 3.0 * b.critical
    assert found.seconds == pytest.approx(
        0.5 * found.critical_path + 0.3 * (f.critical_messages + b.critical_messages)
    )
    assert found.serial_seconds == 0.5 * 64 * 4.0
    assert found.memory == 16 * (1000.0 + 2 * 200.0)
    text = str(found)
    assert f"speedup {found.speedup:.2f}" in text and text.count("\n") == 4
    assert "serial" in str(plan(64, cycles=(None, 2)))


def test_the_best_plan_is_the_best_of_all():
    best = best_plan(512, 16, machine=Machine(latency=0.5), coarsest=2)
    others = [
        plan(512, 16, factor, levels=levels, machine=Machine(latency=0.5))
        for factor in (2, 4, 8, 16, 32, 64)
        for levels in range(2, 10)
        if 512 // factor ** (levels - 1) >= 2
    ]
    assert len(others) == 18
    assert best.seconds == min(other.seconds for other in others)
    assert best_plan(512, 16, machine=Machine(latency=1e6)).levels == 1
    assert best_plan(512, 16, machine=Machine(latency=1e6)).speedup == 1.0
    assert best_plan(1, 4).levels == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"ranks": 0}, "ranks = 0"),
        ({"cycles": (1, 2, 3)}, "cycles"),
        ({"cycles": (-1,)}, "cycles"),
        ({"levels": 9}, "largest possible number of levels is 4"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan(64, **arguments)


@pytest.mark.parametrize("text", ["newton", "cascade + newton(diagonal)", "newton(identity)"])
@pytest.mark.parametrize("layers", [24, 26])
def test_newton_sweeps_cost_what_a_network_counts(text, layers):
    """Evaluations and products of `LayerParallel`, with states of 3 entries for each sample."""
    torch.manual_seed(0)
    net = ODENet(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), layers).double()
    parallel = LayerParallel(
        net, forward=text, backward=text, control=FixedCycles(2, backward=1), coarse="first"
    )
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    parallel(x).sum().backward()  # makes the traces, which evaluate layers, too
    kernel = net.kernel
    before = kernel.evaluations, kernel.vjps
    out = parallel(x).sum()
    evaluations, products = kernel.evaluations - before[0], kernel.vjps - before[1]
    out.backward()
    predicted = plan(layers, cycle=text, cycles=(2, 1), record=True, jacobian=3)
    recorded = -(-layers // 4) if "cascade" in text else 0  # the coarse level, for the adjoint
    assert predicted.forward.evaluations == evaluations + products + recorded
    assert predicted.backward.evaluations == kernel.vjps - before[1] - products


def test_newton_sweeps_gather_and_are_refused():
    one, two = (plan(64, ranks=4, cycle="newton", cycles=(k,), jacobian=8) for k in (1, 2))
    assert two.forward.critical - one.forward.critical == 4 * 4 * (1 + 8 + 1)
    assert two.forward.messages - one.forward.messages == 3 + 2 * 4 * 2
    picard = plan(64, ranks=4, cycle="newton(identity)", cycles=(1,))
    assert picard.forward.messages == 3 + 4 * 2
    with pytest.raises(ValueError, match="jacobian = -1"):
        plan(64, cycle="newton", jacobian=-1)
