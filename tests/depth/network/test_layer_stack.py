"""Stacking modules: names, ties, buffers, frozen parameters; what differs is named.

A state that the block cannot take is refused in words, before any layer.
"""

import pytest
import torch

from mgnet.depth import LayerParallel, ODENet
from mgnet.depth.network.layer_stack import LayerSlots, draw_layers, layer_of, stack


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 3, bias=False)
        self.second = torch.nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.first.weight.requires_grad_(False)
        self.norm = torch.nn.BatchNorm1d(3)

    def forward(self, u):
        return self.norm(self.second(self.first(u)))


def test_a_stack_holds_every_layer():
    modules = [Tied() for _ in range(4)]
    stacked = stack(modules)
    assert stacked.first.weight is stacked.second.weight
    assert not stacked.first.weight.requires_grad
    shapes = {name: tuple(t.shape) for name, t in stacked.state_dict().items()}
    assert shapes["first.weight"] == (4, 3, 3)
    assert shapes["norm.running_mean"] == (4, 3)
    assert shapes["norm.num_batches_tracked"] == (4,)
    parameters, buffers = LayerSlots(stacked).tensors()
    assert len(parameters) == 3 and len(buffers) == 3
    x = torch.randn(5, 3)
    for n, module in enumerate(modules):
        own = layer_of(stacked, [p[n] for p in parameters], [b[n] for b in buffers])
        assert own.first.weight is own.second.weight and not own.first.weight.requires_grad
        assert torch.equal(own.eval()(x), module.eval()(x))
        slots = LayerSlots(stacked.eval())
        with slots.lent():
            slots.put([p[n] for p in parameters], [b[n] for b in buffers])
            assert torch.equal(stacked(x), module(x))
        assert stacked.first.weight is parameters[0]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (lambda: torch.nn.Linear(2, 3), "in_features=2, out_features=3, bias=True"),
        (lambda: torch.nn.Linear(3, 3).double(), "weight is torch.float64"),
        (lambda: torch.nn.ReLU(), "ReLU\\(\\) instead of Linear"),
    ],
)
def test_the_first_that_differs_is_named(other, sentence):
    with pytest.raises(ValueError, match=f"layer 1 differs from layer 0: .*{sentence}"):
        stack([torch.nn.Linear(3, 3), other(), other()])


def test_templates_keep_what_cannot_be_redrawn():
    template = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.PReLU(init=0.3))
    a, b = draw_layers(template, 2)
    assert not torch.equal(a[0].weight, b[0].weight)
    assert not torch.equal(a[0].weight, template[0].weight)
    plain = torch.nn.Module()
    plain.scale = torch.nn.Parameter(torch.full((2,), 7.0))
    assert all(torch.equal(each.scale, plain.scale) for each in draw_layers(plain, 2))


def net(parallel):
    made = ODENet(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()), 8)
    return LayerParallel(made) if parallel else made


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    ("x", "kind", "words"),
    [
        (torch.zeros(5, 3), ValueError, "4 numbers on the last axis"),
        (torch.tensor(1.0), ValueError, "4 numbers on the last axis"),
        (torch.zeros(5, 4, dtype=torch.float64), TypeError, "torch.float64.*x.to.torch.float32"),
        (torch.zeros(5, 4, dtype=torch.int64), TypeError, "torch.int64.*x.to.torch.float32"),
        (torch.zeros(5, 4, device="meta"), ValueError, "state on meta.*x.to..cpu"),
        ([[0.0] * 4], TypeError, "state of type list; give a tensor"),
    ],
)
def test_a_wrong_state_is_refused(parallel, x, kind, words):
    with pytest.raises(kind, match=words):
        net(parallel)(x)


def test_autocast_converts():
    with torch.autocast("cpu", torch.bfloat16):
        assert net(False)(torch.zeros(5, 4)).isfinite().all()


def test_other_blocks_are_left_alone():
    assert ODENet(torch.nn.Tanh(), 4)(torch.zeros(2, 3, 5)).shape == (2, 3, 5)
