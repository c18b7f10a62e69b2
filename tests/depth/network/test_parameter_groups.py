"""The groups of a stacked network are those of the same network as ordinary modules.

There the usual rule holds: what has two axes or more decays.
"""

import random

import pytest
import torch
from torch import nn

from mgnet.depth import DepthSpline, LayerParallel, ODENet, parameter_groups

BLOCKS = {
    "linear": lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh()),
    "norms": lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4)),
    "no bias": lambda: nn.Linear(4, 4, bias=False),
    "attention": lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
    "bilinear": lambda: Twice(nn.Bilinear(4, 4, 4)),
}
IMAGES = {
    "convolution": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)),
    "groups": lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1), nn.PReLU(4)),
}


class Twice(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, u):
        return self.part(u, u)


def drawn(seed):
    """A network of drawn options, and whether its weights belong to one layer each."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    image = rng.random() < 0.3
    blocks = IMAGES if image else BLOCKS
    make = blocks[rng.choice(sorted(blocks))]
    weights = rng.choice(["per layer", "per layer", "shared", DepthSpline(4, 2)])
    ends = (nn.Conv2d(2, 4, 1), nn.Conv2d(4, 1, 1)) if image else (nn.Linear(2, 4), nn.Linear(4, 1))
    net = ODENet(
        make(),
        4,
        weights=weights,
        learnable_steps=rng.random() < 0.5,
        boundary_layers=rng.choice([(0, 0), (1, 2)]),
        before=rng.choice([None, ends[0]]),
        after=rng.choice([None, ends[1]]),
    )
    if rng.random() < 0.3:
        next(net.block.parameters()).requires_grad_(False)
    shape = (3, 4, 5, 5) if image else (3, 6, 4)
    if net.before is not None:
        shape = (3, 2, 5, 5) if image else (3, 6, 2)
    return net, torch.randn(shape)


def by_rule(module):
    """Names of parameters that decay, and of those that do not."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    return {name for name, p in named if p.ndim >= 2}, {name for name, p in named if p.ndim < 2}


def stacked_name(net, name):
    """The name in an ODENet of a parameter of its `to_sequential()`."""
    number, rest = name.split(".", 1)
    n = int(number) - (net.before is not None)
    if n < 0:
        return f"before.{rest}"
    for part, count in (("opening", len(net.opening)), ("", net.depth)):
        if n < count:
            return f"{part}.{n}.{rest}" if part else {"step": "learnable_steps"}.get(rest, rest)
        n -= count
    return f"closing.{n}.{rest}" if n < len(net.closing) else f"after.{rest}"


@pytest.mark.parametrize("seed", range(40))
def test_groups_are_those_of_ordinary_modules(seed):
    net, _ = drawn(seed)
    names = {p: name for name, p in net.named_parameters()}
    for module in (net, LayerParallel(net, 2, 2)):
        groups = parameter_groups(module, 0.3)
        found = [{names[p] for p in group["params"]} for group in groups]
        right = [{stacked_name(net, n) for n in each} for each in by_rule(net.to_sequential())]
        assert found == right
        assert [group["weight_decay"] for group in groups] == [0.3, 0.0]


@pytest.mark.parametrize("seed", range(8))
def test_a_step_of_adamw_is_that_of_ordinary_modules(seed):
    """With weights of one layer each; others have other gradients as separate modules."""
    net, x = next((n, x) for n, x in map(drawn, range(100 * seed, 100 * seed + 99)) if usual(n))
    net, x = net.double(), x.double()
    sequential = net.to_sequential()
    outputs = []
    for module in (net, sequential):
        groups = parameter_groups(module, 0.5)
        optimizer = torch.optim.AdamW(groups, lr=0.1)
        module(x).square().sum().backward()
        optimizer.step()
        outputs.append(module(x).detach())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-6, atol=1e-8)


def usual(net):
    return net.weights == "per layer" and all(p.requires_grad for p in net.parameters())


def test_a_whole_model_and_nets_in_nets():
    inner = ODENet(nn.Linear(4, 4), 3)
    model = nn.Sequential(
        nn.Embedding(7, 4),
        nn.LayerNorm(4),
        LayerParallel(ODENet(nn.Linear(4, 4), 8, before=nn.Linear(4, 4)), 2, 2),
        inner,
        nn.Linear(4, 7),
    )
    decays, others = ([*g["params"]] for g in parameter_groups(model))
    assert [tuple(p.shape) for p in decays] == [(7, 4), (4, 4), (8, 4, 4), (3, 4, 4), (7, 4)]
    assert len(decays) + len(others) == len(list(model.parameters()))
    nested = ODENet(nn.Sequential(ODENet(nn.Linear(4, 4), 3), nn.Tanh()), 2)
    decays, others = ([tuple(p.shape) for p in g["params"]] for g in parameter_groups(nested))
    assert (decays, others) == ([(2, 3, 4, 4)], [(2, 3, 4)])


def test_tied_parameters_come_once():
    model = nn.Sequential(nn.Embedding(7, 4), ODENet(nn.Tanh(), 2), nn.Linear(4, 7, bias=False))
    model[2].weight = model[0].weight
    assert [len(group["params"]) for group in parameter_groups(model)] == [1, 0]
    torch.optim.AdamW(parameter_groups(model))


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="got a list; give the module"):
        parameter_groups([nn.Parameter(torch.ones(2))])


@pytest.mark.parametrize("weight_decay", [-0.1, float("nan"), "0.1", None])
def test_a_weight_decay_that_is_none_is_refused(weight_decay):
    with pytest.raises((TypeError, ValueError), match="parameter_groups got weight_decay .* must"):
        parameter_groups(torch.nn.Linear(2, 2), weight_decay)
