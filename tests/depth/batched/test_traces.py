"""Traces with symbolic sizes against traces of one shape, bit for bit, and what is kept of them."""

import gc
import linecache
import weakref

import pytest
import torch
from torch import fx, nn
from torch.func import stack_module_state

from mgnet.depth.batched import traces
from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers


class Views(nn.Module):
    """Uses its sizes for views, positions and factors."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4, bias=False)

    def forward(self, u):
        batch, length, width = u.shape
        place = torch.arange(length, dtype=u.dtype)[:, None] / length
        v = self.inner(u + place).view(batch, length, 2, width // 2).transpose(1, 2)
        return v.reshape(batch, length, width) / batch * (u.shape[0] * 0.1 * 3.0)


class Normed(nn.Module):
    """Sees its batch, and edits a tensor."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(2)

    def forward(self, u):
        v = self.norm(u) * u.shape[0] ** -0.5
        return v.mul_(2.0) + u.mean(0) + u.new_zeros(u.shape)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(2))

    def forward(self, u):
        return self.scale * (u.sin() if u.shape[0] > 6 else u.cos())


class Edits(nn.Module):
    def forward(self, u):
        v = u.sin()
        v[:, 0] *= 2
        v[:, 1] += v[:, 0]
        return v * v


class Asks(nn.Module):
    """Has a graph for each length."""

    def forward(self, u):
        return sum(u[len(u) - 1 - n] for n in range(len(u))) * u.sin() / float(u.shape[0])


def stacked(make, count=2):
    torch.manual_seed(0)
    modules = [make().double() for _ in range(count)]
    parameters = stack_module_state(modules)[0] if list(modules[0].parameters()) else {}
    t = torch.arange(count, dtype=torch.float64)
    return modules, Layers(tuple(p.detach() for p in parameters.values()), (), t, t + 1.0)


def evaluated(block, layers, states, lam):
    tape = block.record(layers, states)
    own, parameters, _ = tape.vjp_all(lam)
    return tape.value, tape.vjp(lam), own, *parameters


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (Views, [(3, 5, 4), (4, 5, 4), (6, 5, 4), (9, 5, 4), (5, 7, 4), (8, 2, 4), (2, 9, 4)]),
        (Normed, [(3, 2), (4, 2), (7, 2), (2, 2)]),
        (Branch, [(3, 2), (4, 2), (5, 2), (7, 2), (6, 2), (30, 2), (1, 2), (2, 2)]),
        (Edits, [(3, 2), (4, 2), (6, 2), (9, 2)]),
        (Asks, [(3, 2), (4, 2), (5, 2)]),
    ],
)
def test_results_are_those_of_a_trace_of_the_shape(make, shapes, monkeypatch):
    modules, layers = stacked(make)
    block = StackedBlock(modules[0])
    found = []
    for shape in shapes:
        states, lam = torch.randn(2, len(layers), *shape, dtype=torch.float64).unbind()
        leaves = states.clone().requires_grad_()
        value = torch.stack([module(u) for module, u in zip(modules, leaves, strict=True)])
        (pulled,) = torch.autograd.grad(value, leaves, lam)
        found.append((states, lam, evaluated(block, layers, states, lam)))
        torch.testing.assert_close(found[-1][2][0], value, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(found[-1][2][1], pulled, rtol=1e-11, atol=1e-12)
    (family,) = block._traces._families.values()
    if make is Asks:
        assert not family.open and len(family.alone) == len(shapes)
    else:
        assert family.open and len(family.alone) < len(shapes) - 1
    monkeypatch.setattr(traces, "ALONE", 100)
    alone = StackedBlock(modules[0])
    fresh = Layers(layers.parameters, (), layers.times, layers.steps)
    for states, lam, got in found[3:]:
        for x, y in zip(got, evaluated(alone, fresh, states, lam), strict=True):
            assert torch.equal(x, y)


def test_many_shapes_leave_nothing_behind():
    modules, layers = stacked(lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    block = StackedBlock(modules[0])
    sources = fx.graph_module._loader.eval_cache
    before = len(sources), len(linecache.cache)
    for number in range(240):
        states = torch.ones(2, 2 + number % 60, 2, dtype=torch.float64)
        block.record(layers, states).vjp(states)
    assert len(block._traces) == 3 and len(layers._bound) <= 16
    assert (len(sources), len(linecache.cache)) == before
    trace = weakref.ref(next(iter(block._traces._families.values())).open[0])
    del block, layers
    gc.collect()
    assert trace() is None


def test_blocks_with_a_trace_for_each_shape_keep_some(monkeypatch):
    monkeypatch.setattr(traces, "OPERATIONS", 400)
    monkeypatch.setattr(traces, "DROPPED", 6)
    modules, layers = stacked(Asks)
    block = StackedBlock(modules[0])

    def check(size):
        states = torch.randn(2, size, 2, dtype=torch.float64)
        with torch.no_grad():
            found = block.slope(layers, states)
        expected = torch.stack([modules[0](u) for u in states])
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)

    for size in range(2, 11):
        check(size)
        assert len(block._traces) <= 6
    with pytest.warns(UserWarning, match="a trace of its own for each shape"):
        for size in range(11, 14):
            check(size)


def test_an_error_of_the_block_does_not_close_the_way_to_open_sizes():
    modules, layers = stacked(lambda: nn.Linear(3, 3))
    block = StackedBlock(modules[0])
    for size in (2, 3):
        block.record(layers, torch.ones(2, size, 3, dtype=torch.float64))
    with pytest.raises(RuntimeError):
        block.record(layers, torch.ones(2, 4, 5, dtype=torch.float64))
    for size in (4, 5, 6):
        block.record(layers, torch.ones(2, size, 3, dtype=torch.float64))
    assert len(block._traces) == 3


def test_traces_of_blocks_that_were_used_last_are_kept(monkeypatch):
    monkeypatch.setattr(traces, "FAMILIES", 2)
    kept = traces.Traces()
    first = kept.family("a")
    assert kept.family("b") is not first and kept.family("a") is first
    kept.family("c")
    assert kept.family("a") is first and len(kept) == 0
