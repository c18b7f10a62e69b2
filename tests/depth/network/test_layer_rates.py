"""Layers whose rates of dropout differ: each has its own masks, and its own rate back."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mgnet.depth import CyclesToTolerance, LayerParallel, ODENet
from mgnet.depth.network.layer_rates import but_for_rates, first_difference
from mgnet.depth.parallel.local_layers import keep_layers

RATES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def drop_path(x, drop_prob=0.0, training=False, scale_by_keep=True):
    """As timm writes it."""
    if drop_prob == 0.0 or not training:
        return x
    keep_prob = 1 - drop_prob
    shape = (x.shape[0], *(1,) * (x.ndim - 1))
    random_tensor = x.new_empty(shape).bernoulli_(keep_prob)
    if keep_prob > 0.0 and scale_by_keep:
        random_tensor.div_(keep_prob)
    return x * random_tensor


class DropPath(nn.Module):
    def __init__(self, drop_prob=0.0):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        return drop_path(x, self.drop_prob, self.training)

    def extra_repr(self):
        return f"drop_prob={round(self.drop_prob, 3):0.3f}"


def stochastic_depth(x, p, mode, training=True):
    """As torchvision writes it."""
    if p < 0.0 or p > 1.0:
        raise ValueError(f"drop probability has to be between 0 and 1, but got {p}")
    if not training or p == 0.0:
        return x
    survival_rate = 1.0 - p
    size = [x.shape[0]] + [1] * (x.ndim - 1) if mode == "row" else [1] * x.ndim
    noise = torch.empty(size, dtype=x.dtype, device=x.device)
    noise = noise.bernoulli_(survival_rate)
    if survival_rate > 0.0:
        noise.div_(survival_rate)
    return x * noise


class StochasticDepth(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p, self.mode = p, "row"

    def forward(self, x):
        return stochastic_depth(x, self.p, self.mode, self.training)

    def __repr__(self):
        return f"StochasticDepth(p={self.p}, mode={self.mode})"


class FunctionalDropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return F.dropout(x, self.p, self.training)


def perhaps(p):
    """What timm's blocks do where nothing is dropped."""
    return DropPath(p) if p > 0.0 else nn.Identity()


KINDS = [DropPath, perhaps, StochasticDepth, nn.Dropout, FunctionalDropout]


class Constant(nn.Module):
    """x + dropped ones: what is dropped can be read off."""

    def __init__(self, drop):
        super().__init__()
        self.drop = drop
        self.one = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x + self.drop(self.one.expand_as(x))


class Block(nn.Module):
    def __init__(self, drop, checkpoints=False):
        super().__init__()
        self.linear, self.drop, self.checkpoints = nn.Linear(4, 4), drop, checkpoints

    def inside(self, x):
        return self.drop(torch.tanh(self.linear(x)))

    def forward(self, x):
        run = (
            checkpoint(self.inside, x, use_reentrant=False) if self.checkpoints else self.inside(x)
        )
        return x + run


def stacked(kind, make=Block, rates=RATES):
    torch.manual_seed(0)
    return nn.ModuleList([make(kind(p)) for p in rates]).double()


def rate(drop):
    if isinstance(drop, nn.Identity):
        return 0.0
    return drop.drop_prob if isinstance(drop, DropPath) else drop.p


def tight(net):
    return LayerParallel(net, levels=2, coarsening=2, control=CyclesToTolerance(1e-13))


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_drops_its_share(kind):
    """The layers of one net, serial and solved for all at once, have the same masks."""
    net = ODENet.from_sequential(stacked(kind, Constant))
    x = torch.zeros(20_000, 2, dtype=torch.float64)
    with torch.no_grad():
        added = net.trajectory(x).diff(dim=0)
        net.calls -= 1
        torch.testing.assert_close(tight(net)(x), added.sum(0))
    for p, values in zip(RATES, added[:, :, 0], strict=True):
        share = (values == 0).double().mean()
        assert abs(share - p) <= 5 * (p * (1 - p) / len(x)) ** 0.5
        torch.testing.assert_close(values.max(), torch.tensor(1 / (1 - p)).double())
    assert (net.eval()(x) == 8.0).all() and (tight(net)(x) == 8.0).all()


@pytest.mark.parametrize("make", [Block, lambda drop: Block(drop, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_masks(kind, make):
    """Of the net itself, and of the plain layers with factors that are read off."""
    layers = stacked(kind, make)
    net, x = ODENet.from_sequential(layers), torch.randn(6, 4, dtype=torch.float64)
    parallel, leaves = tight(net), [*net.parameters()]
    out = net(x)
    expected = torch.autograd.grad(out.square().sum(), leaves)
    for mode in ("mgrit", "serial"):
        net.calls -= 1
        parallel.settings["mode"] = mode
        again = parallel(x)
        torch.testing.assert_close(again, out, rtol=1e-11, atol=1e-12)
        found = torch.autograd.grad(again.square().sum(), leaves)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    u, masked = x, []  # by the masks themselves
    net.calls -= 1
    with torch.no_grad():
        states = net.trajectory(x)
    for layer, before, after in zip(layers, states[:-1], states[1:], strict=True):
        slope = torch.tanh(layer.linear(before))
        masked.append(((after - before) / slope).detach().round(decimals=9))
        u = u + masked[-1] * torch.tanh(layer.linear(u))
    torch.testing.assert_close(u, out)
    weights = [layer.linear.weight for layer in layers]
    right = torch.autograd.grad(u.square().sum(), weights)
    names = [name for name, _ in net.named_parameters()]
    got = expected[names.index("block.block.linear.weight")]
    torch.testing.assert_close(got, torch.stack(right), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_gets_its_rate_back(kind):
    net = ODENet.from_sequential(stacked(kind))
    for made in (net, copy.deepcopy(net).half(), ODENet.from_sequential(net.to_layers())):
        layers = made.to_layers()
        assert [rate(layer.drop) for layer in layers] == RATES
        assert not any("of_layers" in name for name, _ in layers.named_buffers())
        assert str(layers[3]) == str(stacked(kind)[3])
        assert [rate(layer.block.block.drop) for layer in made.to_sequential()] == RATES
    assert not any("of_layers" in name for name in net.state_dict())
    fine = net.refine()
    assert [rate(fine.layer(n).block.block.drop) for n in range(16)] == sorted(2 * RATES)
    assert [rate(fine.coarsen().layer(n).block.block.drop) for n in range(8)] == RATES
    layers = stacked(kind)
    net.load_layers(layers)
    assert net.to_layers(into=layers) is layers
    keep_layers(net, range(4, 6))
    assert net.own_layers().buffers[-1].shape == (2,)


def test_from_a_function_the_layers_are_left_as_they_were():
    layers = stacked(perhaps, lambda drop: Block(drop))
    net = ODENet(lambda n: layers[n], 8).double()
    assert type(layers[0].drop) is nn.Identity and [rate(x.drop) for x in layers] == RATES
    assert [rate(net.layer(n).block.drop) for n in range(8)] == RATES


def test_one_rate_for_all_is_a_plain_number():
    net = ODENet.from_sequential(stacked(DropPath, rates=[0.2] * 4))
    assert net.block.block.drop.drop_prob == 0.2
    modules = [*stacked(DropPath, rates=[0.2] * 4)]
    assert but_for_rates(modules) == (modules, {})


@pytest.mark.parametrize(
    ("modules", "number", "words"),
    [
        ([DropPath(0.1), DropPath(0.2), nn.Tanh()], 2, r"Tanh\(\) instead of DropPath"),
        ([nn.Tanh(), DropPath(0.1), DropPath(0.2)], 1, r"DropPath\(.*\) instead of Tanh"),
        ([DropPath(0.1), DropPath(1.0)], 1, "drop_prob=1.000"),
        ([DropPath(0.1), StochasticDepth(0.1)], 1, "instead of DropPath"),
        ([DropPath(0.1), DropPath(2)], 1, "drop_prob=2.000"),
        ([nn.Dropout(0.1), nn.Dropout2d(0.2)], 1, "Dropout2d"),
        ([nn.AlphaDropout(0.1), nn.AlphaDropout(0.2)], 1, "p=0.2"),
        ([nn.Identity(), nn.Linear(4, 4)], 1, "Linear"),
    ],
)
def test_all_else_that_differs_is_named(modules, number, words):
    found = first_difference(modules)
    assert found is not None and found[0] == number
    with pytest.raises(ValueError, match=f"module {number} differs from module 0: .*{words}"):
        ODENet.from_sequential(nn.Sequential(*modules))
    with pytest.raises(ValueError, match=f"layer {number} differs from layer 0: .*{words}"):
        ODENet(lambda n: modules[n], len(modules))


def test_a_block_that_needs_the_number_is_refused():
    class ReadsDrop(nn.Module):
        def __init__(self, p):
            super().__init__()
            self.p = p

        def forward(self, x):
            return x * 2.0 if self.p > 0.3 else x

    net = ODENet.from_sequential(stacked(ReadsDrop))
    for module in (net, tight(net)):
        with pytest.raises(TypeError, match="uses p of its ReadsDrop, which differs"):
            module(torch.ones(2, 4, dtype=torch.float64))


class Scale(nn.Module):
    """Its `p` is no rate: with 0 it does something, and nothing in its place does not."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return x * self.p


class DropWithWeights(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p, self.linear = p, nn.Linear(4, 4)

    def forward(self, x):
        return F.dropout(self.linear(x), self.p, self.training)


@pytest.mark.parametrize("kind", [Scale, DropWithWeights])
def test_identity_is_no_rate_of_what_does_something_without_dropping(kind):
    with pytest.raises(ValueError, match=f"differs from layer 0: .*{kind.__name__}"):
        ODENet(lambda n: Block(kind(RATES[n]) if RATES[n] else nn.Identity()), 8)


def test_rates_of_all_layers_are_not_computed_with():
    net = ODENet.from_sequential(stacked(DropPath))
    drop = next(part for part in net.modules() if isinstance(part, DropPath))
    with pytest.raises(TypeError, match="inside a call only; assign one number"):
        drop.drop_prob *= 0.5
    drop.drop_prob = 0.5
    net(torch.ones(2, 4, dtype=torch.float64))


def test_rates_are_not_made_on_the_meta_device():
    with torch.device("meta"), pytest.raises(ValueError, match="meta device that differ in drop.p"):
        ODENet(lambda n: Block(nn.Dropout(RATES[n])), 8)


def test_compiled():
    net = ODENet.from_sequential(stacked(DropPath)).eval()
    x = torch.randn(6, 4, dtype=torch.float64)
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(compiled(x), net(x))
