"""A net that keeps buffers once is the one that keeps them for each layer; no layer edits them."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mgnet.depth import CyclesToTolerance, DepthSpline, LayerParallel, ODENet
from mgnet.depth.network.dropout import use_keys
from mgnet.depth.network.layer_stack import stack
from mgnet.depth.network.sequential import Increment
from mgnet.depth.network.shared_buffers import own_buffers
from mgnet.depth.parallel.local_layers import keep_layers, layered_names

NAMES = ["mask", "inner.cache"]


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("cache", torch.linspace(0.5, 1.5, 4), persistent=False)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return self.drop(x * self.cache)


class Block(nn.Module):
    """A fixed mask, a cache, statistics that change, a buffer of its own for each layer."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.linear, self.norm, self.inner = nn.Linear(4, 4), nn.BatchNorm1d(4), Inner()
        self.register_buffer("mask", torch.tensor([True, False, True, True]))
        self.register_buffer("shift", torch.full((4,), shift))

    def forward(self, x):
        y = self.inner(self.norm(torch.tanh(self.linear(x))))
        return x + 0.3 * torch.where(self.mask, y, self.shift)


def layers(count=8, seed=0):
    torch.manual_seed(seed)
    return nn.ModuleList([Block(0.1 * n) for n in range(count)]).double()


def pair(**options):
    each = ODENet.from_sequential(layers(), **options)
    once = ODENet.from_sequential(layers(), shared_buffers=NAMES, **options)
    return each, once


def tight(net, **options):
    control = CyclesToTolerance(1e-13)
    return LayerParallel(net, levels=2, coarsening=2, control=control, **options)


def inputs():
    return torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_memory_is_that_of_one_layer():
    each, once = pair()
    assert once.block.block.mask.shape == (1, 4) and once.block.block.inner.cache.shape == (1, 4)
    assert once.block.block.shift.shape == once.block.block.norm.running_mean.shape == (8, 4)
    for net in (once, copy.deepcopy(once), pickle.loads(pickle.dumps(once)), once.float()):
        shared = [net.block.block.mask, *net.layers().buffers]
        sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in shared}
        assert sum(sizes.values()) < sum(x.untyped_storage().nbytes() for x in each.buffers())
        assert net.own_layers().buffers[1].shape[0] == 8


@pytest.mark.parametrize("way", ["serial net", "mgrit", "serial", "untraced", "fused", "first"])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_gradients_and_statistics_are_the_same(way, training):
    found = []
    for net in pair():
        net.train(training)
        module = net
        if way != "serial net":
            coarse = way if way in ("fused", "first") else "mean"
            mode = "serial" if way == "serial" else "mgrit"
            module = tight(net, coarse=coarse, mode=mode)
            net.kernel.traced = way != "untraced"
        x = inputs().requires_grad_()
        for _ in range(2):
            out = module(x)
            gradients = torch.autograd.grad(out.square().sum(), [x, *net.parameters()])
        found.append([out, *gradients, net.block.block.norm.running_mean])
    for a, b in zip(*found, strict=True):
        close(a, b)


@pytest.mark.parametrize("weights", ["shared", DepthSpline(4, 2)])
def test_with_weights_of_all_layers(weights):
    torch.manual_seed(0)
    net = ODENet(Block(), 8, weights=weights, shared_buffers=NAMES).double().eval()
    close(tight(net)(inputs()), net(inputs()))
    close(net.to_sequential()(inputs()), net(inputs()))


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_states_are_loaded_both_ways():
    each, once = (net.eval() for net in pair())
    with torch.no_grad():
        for net in (each, once):
            net.block.block.mask.logical_not_()
            net.block.block.linear.weight.mul_(0.5)
    expected = once(inputs())
    states = [through_a_file(net.state_dict()) for net in (each, once)]
    assert states[0]["block.block.mask"].shape == (8, 4)
    assert states[1]["block.block.mask"].shape == (1, 4)
    for state in states:
        kept = dict(state)
        for net in pair():
            assert net.load_state_dict(state).missing_keys == []
            close(net.eval()(inputs()), expected)
            wrapped = nn.Sequential(copy.deepcopy(net))
            wrapped.load_state_dict({f"0.{name}": x for name, x in state.items()}, assign=True)
            close(wrapped(inputs()), expected)
        assert all(state[name] is x for name, x in kept.items())
    states[0]["block.block.mask"][3, 0] = True
    with pytest.raises(RuntimeError, match="block.mask has a value for each layer, and keeps one"):
        pair()[1].load_state_dict(states[0])


def test_refinement_and_plain_layers():
    each, once = (net.eval() for net in pair())
    fine = once.refine()
    assert fine.block.block.mask.shape == (1, 4) and fine.block.block.shift.shape == (16, 4)
    close(fine(inputs()), each.refine()(inputs()))
    close(fine.coarsen()(inputs()), once(inputs()))
    for a, b in zip(once.to_layers(), layers(), strict=True):
        expected = dict(b.named_buffers())
        assert all(torch.equal(x, expected[name]) for name, x in a.named_buffers())
    other = layers(seed=3)
    assert once.to_layers(into=other) is other
    assert torch.equal(other[2].shift, layers()[2].shift)
    other[3].mask.logical_not_()
    before = copy.deepcopy(once.state_dict())
    with pytest.raises(ValueError, match="layer 3 whose mask differs from that of the first"):
        once.load_layers(other)
    assert all(torch.equal(x, before[n]) for n, x in once.state_dict().items())
    for layer in other:
        layer.mask.copy_(torch.tensor([False, True, False, False]))
    once.load_layers(other)
    x = inputs()
    for layer in other.eval():
        x = layer(x)
    close(once(inputs()), x)


def test_checkpoints_inside_a_block():
    class Checkpointed(Block):
        def forward(self, x):
            return x + checkpoint(self.inside, x, use_reentrant=False)

        def inside(self, x):
            return Block.forward(self, x) - x

    found = []
    for names in ([], NAMES):
        torch.manual_seed(0)
        net = ODENet(Checkpointed(), 8, shared_buffers=names).double()
        for module in (net, tight(net)):
            net.calls = 0
            out = module(inputs())
            found.append([out, *torch.autograd.grad(out.square().sum(), [*net.parameters()])])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            close(a, b)


def test_edits_are_those_of_all_layers():
    each, once = (net.eval() for net in pair())
    parallel = tight(once)
    parallel(inputs())
    once.block.block.mask[0, 2] = False
    each.block.block.mask[:, 2] = False
    for module in (once, parallel):
        close(module(inputs()), each(inputs()))


def test_a_part_of_the_layers():
    net = pair()[1]
    assert layered_names(net) == layered_names(pair()[0]) - {"block.block.mask"}
    keep_layers(net, range(2, 4))
    assert net.block.block.mask.shape == (1, 4) and net.block.block.shift.shape == (2, 4)
    assert [len(x) for x in net.own_layers().buffers] == [2] * len(net.own_layers().buffers)


class Changes(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.linear = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        if self.how == "in place":
            self.count.add_(1.0)
        else:
            self.count = self.count + 1.0
        return self.linear(x)


@pytest.mark.parametrize("how", ["in place", "another"])
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("wrap", [lambda net: net, tight, lambda net: tight(net, mode="serial")])
def test_a_layer_that_changes_one_is_refused(how, traced, wrap):
    net = ODENet(Changes(how), 8, shared_buffers=["count"]).double()
    net.kernel.traced = traced
    with pytest.raises(ValueError, match="Changes changes its buffer count, of which all layers"):
        wrap(net)(inputs())
    ODENet(Changes(how), 8).double()(inputs())


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("wrap", [lambda net: net, tight, lambda net: tight(net, mode="serial")])
def test_batch_norm_is_refused_as_soon_as_it_learns(traced, wrap):
    net = ODENet(Block(), 4, shared_buffers=["norm.running_mean"]).double()
    net.kernel.traced = traced
    module = wrap(net)
    module.eval()(inputs())
    with pytest.raises(ValueError, match="Block changes its buffer norm.running_mean"):
        module.train()(inputs())


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("mask", TypeError, "shared_buffers='mask'; give a list of names"),
        (3, TypeError, "shared_buffers=3; give a list"),
        (
            ["msk"],
            ValueError,
            "'msk'; the buffers of its block are mask, shift, norm.running_mean, .*, inner.cache$",
        ),
        ([0], ValueError, "with 0; the buffers"),
        (["inner.drop.key"], ValueError, "'inner.drop.key'; the buffers"),
        (["shift"], ValueError, "shift, which has other values in layer 1 than in layer 0"),
    ],
)
def test_other_names_are_refused(names, error, message):
    with pytest.raises(error, match=message):
        ODENet.from_sequential(layers(), shared_buffers=names)


def test_buffers_that_were_added_are_not_those_of_the_layers():
    block = use_keys(stack([Increment(layer) for layer in layers(2)]), 2)
    assert {name for name, _ in block.named_buffers()} - {*own_buffers(block)} == {
        "dropout_key",
        "block.inner.drop.key",
    }


def test_states_are_taken_over_without_views():
    """By `assign`, which keeps the tensors: rows of all layers stay apart."""

    def made(**options):
        torch.manual_seed(0)
        return ODENet(lambda n: nn.BatchNorm1d(4), 3, **options)

    once = made(shared_buffers=["running_mean", "running_var", "num_batches_tracked"])
    state, rows = once.state_dict(), made()
    rows.load_state_dict(state, assign=True)
    rows.block.running_mean[0] += 1.0
    assert not rows.block.running_mean[1:].any() and not once.block.running_mean.any()
