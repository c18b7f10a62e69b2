"""Masks of functions in a block, and checkpoints in it: in the loop, in parallel and by PyTorch."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mgnet.depth import CyclesToTolerance, LayerParallel, ODENet
from mgnet.depth.batched.draws import KEY


class Increment(nn.Module):
    """What a block of PyTorch adds to the state, perhaps with a checkpoint."""

    def __init__(self, block, saves=False):
        super().__init__()
        self.block, self.saves = block, saves

    def forward(self, u):
        if self.saves:
            return checkpoint(self.block, u, use_reentrant=False) - u
        return self.block(u) - u


class Timed(nn.Module):
    """A time, a tied weight, dropout of all kinds and stochastic depth."""

    def __init__(self, saves=False):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.b.weight = self.a.weight
        self.drop, self.saves = nn.Dropout(0.2), saves

    def part(self, t, u):
        u = F.dropout(torch.tanh(self.a(u)), 0.3, self.training)
        kept = u.new_ones(u.shape[0], 1, 1)
        if self.training:
            kept = kept.bernoulli_(0.7) / 0.7
        return torch.cos(t) * self.drop(self.b(u)) * kept

    def forward(self, t, u):
        return checkpoint(self.part, t, u, use_reentrant=False) if self.saves else self.part(t, u)


def transformer(saves=False):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)  # the default dropout, 0.1
    return Increment(layer, saves)


class Drops(nn.Linear):
    """All of its masks come from a function, so nothing says before that there are some."""

    def __init__(self):
        super().__init__(8, 8)

    def forward(self, u):
        return F.dropout(super().forward(u), 0.3, self.training)


class Stages(nn.Module):
    """Whether the stages of a layer have one mask shows where nothing else is in the block."""

    def forward(self, u):
        return F.dropout(u, 0.5, self.training)


def net_of(make=transformer, seed=0, **options: Any) -> ODENet:
    torch.manual_seed(seed)
    return ODENet(lambda n: make(), 8, 2.0, **options).double()


def inputs(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 5, 8, generator=generator, dtype=torch.float64)


def passed(net, module):
    """Output, gradients, and the number of the pass, which is the same for all modules."""
    x = inputs().requires_grad_()
    net.calls = 0
    out = module(x)
    return [out, *torch.autograd.grad(out.square().sum(), [x, *net.parameters()])]


def check_alike(ours, theirs, tolerance=1e-9):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


MODES = {
    "mgrit": {"levels": 2, "coarsening": 4, "control": CyclesToTolerance(1e-12)},
    "serial": {"mode": "serial"},
}


@pytest.mark.parametrize(
    ("make", "scheme", "traced", "saves"),
    [
        (transformer, "euler", True, False),
        (transformer, "euler", False, True),
        (Timed, "heun", True, True),
        (Timed, "euler", False, False),
    ],
)
def test_all_ways_through_the_layers_have_the_same_masks(make, scheme, traced, saves):
    net = net_of(make, scheme=scheme, learnable_steps=make is Timed)
    expected = passed(net, net)
    check_alike(expected, passed(net, net), 1e-15)
    for part in net.modules():
        if isinstance(part, Increment | Timed):
            part.saves = saves
    check_alike(passed(net, net), expected, 1e-12)
    net.kernel.traced = traced
    for settings in MODES.values():
        module = LayerParallel(net, **settings)
        check_alike(passed(net, module), expected)
        assert net.calls == 1
    assert not torch.equal(net(inputs()), expected[0])  # the next pass has other masks
    assert net.calls == 2


def test_the_first_pass_has_masks_whoever_makes_it():
    """Before anyone knows that the block draws."""
    found = []
    for wrap in (
        lambda net: net,
        *(lambda net, s=s: LayerParallel(net, **s) for s in MODES.values()),
    ):
        net = net_of(Drops)
        x = inputs()
        outputs = [wrap(net)(x) for _ in range(2)]
        assert net.calls == 2
        found.append(outputs)
    for outputs in found[1:]:
        check_alike(outputs, found[0])


@pytest.mark.parametrize("first", range(3))
def test_a_resumed_run_has_the_masks_of_one_never_stopped(first):
    net, x = net_of(Drops), inputs()
    net.seed = 3
    for _ in range(first):
        net(x)
    other = net_of(Drops, seed=5)
    other.load_state_dict(net.state_dict())
    expected = [net(x) for _ in range(2)]
    check_alike([LayerParallel(other, **MODES["serial"])(x), other(x)], expected)
    assert other.calls == net.calls == first + 2
    assert not [name for name in net.state_dict() if KEY in name]


def test_stages_of_a_layer_have_one_mask():
    net, x = ODENet(Stages(), 1, scheme="rk4").double(), torch.ones(4, 100, dtype=torch.float64)
    k = 2.0
    grown = 1.0 + k + k**2 / 2 + k**3 / 6 + k**4 / 24  # of a kept entry, which is doubled
    out = net(x)
    assert torch.isclose(out, torch.tensor(grown).double()).logical_or(out == 1.0).all()
    assert 0.3 < (out == 1.0).double().mean() < 0.7


@pytest.mark.parametrize("mode", MODES)
def test_the_default_transformer_layer_trains_three_steps(mode):
    parallel = LayerParallel(net_of(), **MODES[mode])
    optimizer = torch.optim.Adam(parallel.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = parallel(inputs()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0] and len({*losses}) == 3


def test_evaluation_is_pytorchs_own_layer_and_layers_are_given_back_plain():
    net, x = net_of(), inputs()
    net(x)
    sequential: Any = net.eval().to_sequential()
    u = x
    for layer in sequential:
        u = u + layer.step * (layer.block.block(u) - u)
        assert KEY not in dict(layer.named_buffers())
    for module in (net, LayerParallel(net, **MODES["mgrit"]).eval()):
        torch.testing.assert_close(module(x), u, rtol=1e-9, atol=1e-9)
    back = ODENet.from_sequential(sequential.train())
    assert back.block.get_buffer(KEY).shape == (8,)
    fine = back.refine()
    assert fine.block.get_buffer(KEY).shape == (16,) and torch.isfinite(fine(x)).all()


def test_two_passes_and_one_backward_pass():
    net, x = net_of(Timed), inputs()
    parameters = list(net.parameters())
    net(x)
    single = []
    for call in (0, 1):
        net.calls = call
        single.append(torch.autograd.grad(net(x).square().sum(), parameters))
    for module in (net, LayerParallel(net, **MODES["serial"])):
        net.calls = 0
        both = module(x).square().sum() + module(x).square().sum()
        check_alike(
            torch.autograd.grad(both, parameters), [a + b for a, b in zip(*single, strict=True)]
        )


def test_transforms_see_the_same_masks_and_leave_none_of_their_own():
    net, x = net_of(Timed), inputs()
    expected = passed(net, net)[1]
    net.calls = 0
    gradient = torch.func.grad(lambda x: net(x).square().sum())(x)
    torch.testing.assert_close(gradient, expected)
    copied = copy.deepcopy(net)
    assert torch.equal(copied(x), net(x))


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, u):
        return self.linear(u) + torch.randn_like(u)


def test_other_random_numbers_are_pytorchs_in_the_loop_and_refused_in_parallel():
    net = net_of(Noisy)
    torch.manual_seed(0)
    first = net(inputs())
    assert not torch.equal(net(inputs()), first) and net.calls == 0
    torch.manual_seed(0)
    assert torch.equal(net(inputs()), first)
    with pytest.raises(ValueError, match="the block draws random numbers by aten.randn_like"):
        LayerParallel(net, 2, 4)(inputs())


def test_blocks_of_pytorchs_own_modules_have_no_key_unless_they_draw():
    quiet = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.LayerNorm(8), nn.GELU())
    assert KEY not in dict(ODENet(quiet, 4).block.named_buffers())
    for drawing in (nn.AlphaDropout(0.1), transformer().block, nn.RReLU()):
        net = ODENet(lambda n, drawing=drawing: nn.Sequential(copy.deepcopy(drawing)), 4)
        assert KEY in dict(net.block.named_buffers())


def test_a_compiled_net_keeps_the_masks():
    net, x = net_of(Timed), inputs()
    expected = passed(net, net)[0]
    net.calls = 0
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(compiled(x), expected)
