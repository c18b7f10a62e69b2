"""Stacking modules: names, ties, buffers, frozen parameters; what differs is named."""

import pytest
import torch

from mgnet.depth.layer_stack import LayerSlots, draw_layers, layer_of, stack, takes_time


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


def module(forward):
    return type("Block", (torch.nn.Module,), {"forward": forward})()


def test_functions_of_time():
    class Both(torch.nn.Module):
        def forward(self, t, u, gain=1.0):
            return gain * t * u

    assert takes_time(Both())
    assert not takes_time(torch.nn.Sequential(Both()))
    assert not takes_time(module(lambda self, u, *rest, **named: u))
    for forward, told in (
        (lambda self, a, b, c: a, r"\(a, b, c\)"),
        (lambda self, u, *, gain: u, r"\(u, \*, gain\)"),
        (lambda self, *states: states[0], r"\(\*states\)"),
    ):
        with pytest.raises(TypeError, match=f"Block.forward takes {told}; a block must take"):
            takes_time(module(forward))
