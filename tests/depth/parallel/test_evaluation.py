"""Means are weighted by the sizes of batches; modes come back as they were."""

import math

import pytest
import torch
from torch import nn

from mgnet.depth.parallel import evaluation
from mgnet.depth.parallel.evaluation import (
    evaluating,
    fastest,
    least_seconds,
    means,
    preferred,
    unchanged,
)


def test_means_are_over_all_samples():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 11, generator=generator)
    batches = list(zip(x.split(4), y.split(4), strict=True))
    outputs, loss = (lambda x, side, ways: [x, -x]), lambda out, y: (out - y).square().mean()
    found = means(outputs, loss, batches, "ab")
    assert found["a"] == pytest.approx(float((x - y).square().mean()), rel=1e-6)
    assert found["b"] == pytest.approx(float((x + y).square().mean()), rel=1e-6)


def test_side_inputs_are_those_of_their_batch():
    batches = [(torch.ones(2), None, {"scale": 3.0}), [torch.ones(6), None]]
    found = means(
        lambda x, side, ways: [x * side.get("scale", 1.0)], lambda y, _: y.mean(), batches, "a"
    )
    assert found == {"a": 1.5}


@pytest.mark.parametrize("batch", [(1,), (1, 2, 3), (1, 2, None), (1, 2, {}, 4)])
def test_other_batches_are_refused(batch):
    with pytest.raises(TypeError, match=r"evaluate got a batch \(int.*; give \(x, target\), or"):
        means(lambda x, side, ways: [x], lambda y, _: y, [batch], "a")


@pytest.mark.parametrize("batches", [[], iter(()), [(torch.ones(0, 2), None)]])
def test_a_mean_of_nothing_is_refused(batches):
    with pytest.raises(ValueError, match="evaluate got batches without a sample"):
        means(lambda x, side, ways: [x], lambda y, _: y.sum(), batches, "a")


def test_parts_keep_their_own_modes_also_after_an_error():
    module = nn.Sequential(nn.Dropout(), nn.Dropout().eval(), nn.Sequential(nn.Tanh()))
    before = [part.training for part in module.modules()]
    with pytest.raises(KeyError), evaluating(module):
        assert not any(part.training for part in module.modules())
        raise KeyError
    assert [part.training for part in module.modules()] == before


class Counting(nn.Module):
    """Writes into a buffer in place, puts another one in the place of a second, keeps a third."""

    def __init__(self):
        super().__init__()
        for name in ("inside", "anew", "kept"):
            self.register_buffer(name, torch.zeros(2))

    def forward(self, u):
        self.inside += torch.rand(2)
        self.anew = self.anew + u.mean(0)
        return u * self.kept


def test_buffers_and_random_numbers_come_back_also_after_an_error():
    module = nn.Sequential(nn.BatchNorm1d(2), Counting(), nn.Dropout())
    before = [(b, b.clone()) for b in module.buffers()]
    version, state = module[1].kept._version, torch.get_rng_state()
    with pytest.raises(KeyError), unchanged(module):
        module(torch.randn(5, 2))
        raise KeyError
    for now, (then, value) in zip(module.buffers(), before, strict=True):
        assert now is then and torch.equal(now, value)
    assert module[1].kept._version == version  # graphs may still need it
    assert torch.equal(torch.get_rng_state(), state)


def test_a_way_that_ends_in_infinite_states_takes_forever():
    def fails(u, side):
        raise FloatingPointError

    found = least_seconds({"mgrit": fails, "serial": lambda u, side: u}, torch.ones(2), {}, [])
    assert found["mgrit"] == math.inf > found["serial"] and preferred(found) == "serial"


def test_trials_leave_the_graphs_of_what_they_are_given_alone():
    weight = torch.ones(2, requires_grad=True)
    u, memory = weight * weight, weight * weight
    seconds = fastest(lambda u, side: u * weight * side["memory"], u, {"memory": memory}, [weight])
    assert seconds > 0.0 and weight.grad is None
    (u * memory).sum().backward()
    assert torch.equal(weight.grad, torch.full((2,), 4.0))


def test_trials_of_what_records_nothing():
    assert fastest(lambda u, side: u.detach(), torch.ones(2, requires_grad=True), {}, []) > 0.0


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("each", [0.001, 1.0])
def test_ways_take_turns_and_ranks_know_how_many(alone, each, monkeypatch):
    times, calls = iter(range(1, 100)), []

    def timed(run, *given, trials):
        calls.append(run(*given))
        return each * next(times)

    monkeypatch.setattr(evaluation, "fastest", timed)
    runs = {name: (lambda *_, name=name: name) for name in ("mgrit", "serial")}
    seconds = least_seconds(runs, torch.ones(1), {}, [], alone)
    turns = 10 if alone and each < 1.0 else 3
    assert calls == ["mgrit", "serial"] * turns
    assert seconds == {"mgrit": each, "serial": 2 * each}


@pytest.mark.parametrize("cycles, mode", [(0.5, "mgrit"), (0.96, "serial"), (1.5, "serial")])
def test_cycles_must_save_something(cycles, mode):
    assert preferred({"mgrit": cycles, "serial": 1.0}) == mode
