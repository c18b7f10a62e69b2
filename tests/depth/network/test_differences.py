"""What differs between two modules is named, whether printing shows it or not."""

import pytest
import torch
from torch import nn

from mgnet.depth import ODENet
from mgnet.depth.network.differences import difference, named_tensors, plain_tensors


class Attention(nn.Module):
    """What printing shows of it is the same for all options, as of many layers."""

    def __init__(self, layer_idx=0, **options):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.layer_idx = layer_idx
        self.kind = "full"
        self.scale = 0.5
        self.causal = True
        self.window = None
        for name, value in options.items():
            setattr(self, name, value)

    def forward(self, u):
        return self.linear(u)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("kind", "sliding", "kind is 'sliding' instead of 'full'"),
        ("scale", 0.25, "scale is 0.25 instead of 0.5"),
        ("causal", False, "causal is False instead of True"),
        ("window", 8, "window is 8 instead of None"),
    ],
)
@pytest.mark.parametrize("depth", [0, 1])
def test_options_that_printing_does_not_show(name, value, words, depth):
    """A stack has one value for all layers, that of the first."""
    modules = [Attention(n) for n in range(2)] + [Attention(2, **{name: value})]
    if depth:
        modules, words = [nn.Sequential(each) for each in modules], f"0.{words}"
    assert difference(*modules[:2]) == ""
    assert difference(modules[0], modules[2]) == words
    with pytest.raises(ValueError, match=f"module 2 differs from module 0: {words}"):
        ODENet.from_sequential(nn.ModuleList(modules))
    with pytest.raises(ValueError, match=f"layer 2 differs from layer 0: {words}"):
        ODENet(lambda n: modules[n], 3)


@pytest.mark.parametrize("options", [{"nhead": 1}, {"norm_first": True}, {"activation": "gelu"}])
def test_layers_of_transformers_that_print_alike(options):
    options = {"d_model": 4, "nhead": 2, "dim_feedforward": 4} | options
    other = nn.TransformerEncoderLayer(**options)
    first = nn.TransformerEncoderLayer(4, 2, 4)
    assert str(first) == str(other)
    assert difference(first, first) == "" and difference(first, other)


def test_values_that_are_not_compared():
    """Mode, tensors' values, and numbers that do not equal themselves."""
    first, other = Attention(scale=float("nan")), Attention(scale=float("nan"), layer_idx=7)
    assert difference(first, other.eval()) == ""


def test_tensors():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Tanh())
    module[1].mask = torch.ones(2)
    names = [name for name, _ in named_tensors(module)]
    expected = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert names == [f"0.{name}" for name in expected]
    assert [name for name, _ in plain_tensors(module)] == ["1.mask"]
