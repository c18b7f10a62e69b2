"""Laws: segments cover all layers and hold few states; recomputed adjoints have the same bits."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

pytest.importorskip("numba")

from mgnet.depth import LayerParallel, ODENet  # noqa: E402
from mgnet.depth.compiled import checkpoints  # noqa: E402
from mgnet.depth.compiled.checkpoints import segment_ends  # noqa: E402
from mgnet.depth.compiled.march import CompiledMarch  # noqa: E402


@pytest.fixture(autouse=True)
def small_states_count(monkeypatch, request):
    """As if they were large: a MiB of them is free."""
    if "free" not in request.node.name:
        monkeypatch.setattr(checkpoints, "FREE", 1)


def most_held(ends, kept):
    """States at one time in the backward pass."""
    return max(k + 1 + kept * (b - a) for k, (a, b) in enumerate(pairwise(ends)))


def test_segments_hold_few_states():
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        layers = int(10 ** (6 * torch.rand((), generator=generator)))
        kept = float(1.0 + 30.0 * torch.rand((), generator=generator) ** 3)
        ends = segment_ends(layers, kept)
        assert ends[0] == 0 and ends[-1] == layers
        assert all(a < b for a, b in pairwise(ends))
        few = max(3.0 * math.sqrt(layers), math.sqrt(2.0 * kept * layers))
        assert most_held(ends, kept) <= 1.1 * few + 2 * kept + 2
        if kept <= 4.0 and layers > 1000:
            assert most_held(ends, kept) <= 3.0 * math.sqrt(layers)
    assert segment_ends(0, 3.0) == [0]


def test_a_mebibyte_is_free():
    assert segment_ends(1000, 2.0, 2**11) == [0, 255, 510, 764, 1000]  # 512 states
    assert segment_ends(400, 2.0, 2**10) == [0, 400]


@pytest.mark.parametrize("weights", ["per layer", "shared"])
@pytest.mark.parametrize("scheme", ["euler", "rk4"])
def test_the_bits_are_those_of_all_states(scheme, weights, monkeypatch):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(4, 7), nn.SiLU(), nn.LayerNorm(7), nn.Linear(7, 4))
    net = ODENet(block, 150, 2.0, scheme=scheme, weights=weights, learnable_steps=True)
    x = torch.randn(9, 4, requires_grad=True)
    inputs, found = [x, *net.parameters()], []
    recorded, through = [], CompiledMarch.through

    def counted(self, layers, first, last, u, record, memory=None):
        if record:
            recorded.append(last - first)
        return through(self, layers, first, last, u, record, memory)

    for memory in ("states", "checkpoints"):
        y = LayerParallel(net, levels=1, memory=memory)(x)
        monkeypatch.setattr(CompiledMarch, "through", counted)
        found.append([y, *torch.autograd.grad(y.square().sum(), inputs, retain_graph=True)])
        found.append([y, *torch.autograd.grad(y.square().sum(), inputs)])  # used up: once more
    assert max(recorded) < 75 and sum(recorded) == 2 * 150
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


class Forced(nn.Linear):
    """Takes an input for each layer and sample, and one that all layers share."""

    def forward(self, u, force=None, shift=None):
        return torch.tanh(super().forward(u) * shift) + force


def test_inputs_of_layers_have_their_gradients():
    torch.manual_seed(0)
    net = ODENet(Forced(4, 4), 60, 2.0, layer_inputs=["force"]).double()
    x, shift = torch.randn(2, 9, 4, dtype=torch.float64)
    force, found = torch.randn(60, 9, 4, dtype=torch.float64), []
    inputs = [x, force, shift, *net.parameters()]
    for tensor in inputs[:3]:
        tensor.requires_grad_()
    for memory in ("states", "checkpoints"):
        module = LayerParallel(net, levels=1, memory=memory)
        how = " from checkpoints" * (memory == "checkpoints")
        told = f"Serial propagation{how}, in a compiled loop."
        assert module.explain(x, force=force, shift=shift) == told
        y = module(x, force=force, shift=shift)
        found.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
