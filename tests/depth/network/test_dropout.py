"""Keyed dropout drops the right share, independently, and the same in every evaluation."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from mgnet.depth import LayerParallel
from mgnet.depth.network.dropout import KeyedDropout, draw_keys
from mgnet.depth.network.ode_net import ODENet


def masks(p=0.3, layers=50, shape=(40, 30), seed=0, call=1, channels=False):
    dropout = KeyedDropout(p, channels, layers)
    draw_keys(dropout, seed, call)
    keys, kept = dropout.key, []
    for key in keys:
        dropout.key = key
        kept.append(dropout(torch.ones(shape)))
    return torch.stack(kept)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(p):
    kept = masks(p)
    share = (kept == 0).double().mean()
    assert abs(share - p) < 4 * (p * (1 - p) / kept.numel()) ** 0.5
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    per_layer = (kept == 0).double().mean((1, 2))  # its variance is that of independent entries
    assert per_layer.var() == pytest.approx(p * (1 - p) / 1200, rel=0.6)


def test_entries_layers_calls_and_seeds_are_independent():
    one = masks() == 0
    others = [masks(call=2), masks(seed=1), masks().roll(1, 0), masks().roll(1, 1)]
    others += [masks().roll(1, 2), masks().flip(0)]
    for other in others:
        both = (one & (other == 0)).double().mean()
        assert abs(both - 0.09) < 0.003
    assert torch.equal(masks(), masks())


def test_the_dropouts_of_a_block_are_independent():
    parts = [KeyedDropout(0.3, False, 50) for _ in range(3)]
    draw_keys(torch.nn.Sequential(*parts), seed=0, call=1)
    keys = torch.cat([part.key for part in parts])
    assert len(keys.unique()) == 150
    dropped = []
    for part in parts:
        keys = part.key
        kept = []
        for part.key in keys:
            kept.append(part(torch.ones(40, 30)) == 0)
        dropped.append(torch.stack(kept))
    for n in range(3):
        both = (dropped[n] & dropped[n - 1]).double().mean()
        assert abs(both - 0.09) < 0.003


def test_channels_share_a_fate():
    kept = masks(shape=(4, 6, 5, 5), channels=True)
    assert torch.equal(kept, kept[..., :1, :1].expand_as(kept))
    assert masks(1.0).abs().max() == 0.0


def net_of(p=0.4, **options):
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Dropout(p))
    return ODENet(block, 6, **options).double()


def test_serial_and_batched_layers_have_the_same_masks():
    net, x = net_of(), torch.randn(5, 4, dtype=torch.float64)
    states = net.trajectory(x)
    layers = net.layers()
    with torch.no_grad():
        slopes = net.kernel.slope(layers, states[:-1].detach())
        recorded = net.kernel.record(layers, states[:-1].detach()).value
    for each in (slopes, recorded):
        steps = layers.steps.view(-1, 1, 1)
        torch.testing.assert_close(states[1:], states[:-1] + steps * each, rtol=1e-13, atol=1e-14)
    zeros = (slopes == 0).double().mean()
    assert 0.2 < zeros < 0.6 and not torch.equal(slopes[0] == 0, slopes[1] == 0)


def test_seed_and_call_repeat_a_pass():
    net, x = net_of(), torch.randn(5, 4, dtype=torch.float64)
    first, second = net(x), net(x)
    assert net.calls == 2 and not torch.equal(first, second)
    net.calls = 0
    assert torch.equal(net(x), first)
    net.calls, net.seed = 0, 1
    assert not torch.equal(net(x), first)
    assert torch.equal(net.eval()(x), net(x)) and net.calls == 1
    assert not [name for name in net.state_dict() if "key" in name]


def through_a_file(net):
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = net_of()
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize(
    "carried", [through_a_file, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))]
)
def test_a_resumed_run_has_the_masks_of_one_never_stopped(carried):
    net, x = net_of(), torch.randn(5, 4, dtype=torch.float64)
    net.seed = 3
    net(x)
    net.eval()(x)
    other = carried(net.train())
    expected = [net(x) for _ in range(2)]
    assert not torch.equal(*expected)
    assert all(torch.equal(other(x), output) for output in expected)


def test_passes_without_masks_are_not_counted():
    net = ODENet(torch.nn.Linear(4, 4), 3)
    net(torch.ones(1, 4))
    assert net.calls == 0


def test_two_passes_one_backward():
    """The masks of the first pass are kept for its gradient."""
    net, x = net_of(), torch.randn(5, 4, dtype=torch.float64)
    parameters = list(net.parameters())
    expected = 0.0
    for call in (0, 1):
        net.calls = call
        expected = expected + torch.autograd.grad(net(x).square().sum(), parameters)[0]
    net.calls = 0
    both = net(x).square().sum() + net(x).square().sum()
    torch.testing.assert_close(torch.autograd.grad(both, parameters)[0], expected)


def test_ordinary_modules_get_ordinary_dropout_and_refinement_keeps_it():
    net, x = net_of(learnable_steps=True), torch.randn(5, 4, dtype=torch.float64)
    sequential: Any = net.to_sequential()
    assert isinstance(sequential[0].block[2], torch.nn.Dropout)
    back = ODENet.from_sequential(sequential)
    assert isinstance(back.block[2], KeyedDropout) and back.block[2].key.shape == (6,)
    torch.testing.assert_close(back.eval()(x), net.eval()(x))
    fine = net.train().refine()
    assert fine.block[2].key.shape == (12,)
    assert torch.isfinite(fine(x)).all()


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d])
def test_the_kind_of_dropout_comes_back(kind):
    block = nn.Sequential(nn.Tanh(), kind(0.25))
    net: Any = ODENet(block, 2)
    assert net.block[1].channels == (kind is not nn.Dropout)
    layer: Any = net.layer(0)
    assert type(layer.block[1]) is kind and layer.block[1].p == 0.25
    assert type(copy.deepcopy(net).layer(1).block[1]) is kind


class Scaled(nn.Dropout):
    """Not what its parent does, and without random numbers."""

    def forward(self, input):
        return self.p * input


class Named(nn.Dropout):
    """Another constructor, the same function."""

    def __init__(self):
        super().__init__(0.5)


def test_classes_with_a_forward_of_their_own_are_left_alone():
    net: Any = ODENet(nn.Sequential(Scaled(0.25), Named()), 2, 2.0)
    assert type(net.block[0]) is Scaled and isinstance(net.block[1], KeyedDropout)
    assert net.eval()(torch.ones(3)).tolist() == [1.25**2] * 3


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: LayerParallel(net, 2, 2)])
def test_dropout_modules_alone_in_training_have_new_masks_in_each_pass(wrap):
    """As for the spread of predictions."""
    net, x = net_of(), torch.randn(5, 4, dtype=torch.float64)
    module = wrap(net).eval()
    net.block[2].train()
    outputs = [module(x) for _ in range(3)]
    assert not torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[1], outputs[2])
    assert net.calls == 3
