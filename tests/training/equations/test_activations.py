"""Law: derivatives of activations by formulas are those of automatic differentiation."""

import pytest
import torch

from mgnet.training.equations.activations import FORMULAS, Activated
from mgnet.training.equations.sine import Sine

nn = torch.nn


class Waves(nn.Module):
    def __init__(self, frequency):
        super().__init__()
        self.frequency = nn.Parameter(torch.tensor(frequency))

    def forward(self, x):
        return torch.sin(self.frequency * x)


MODULES = [
    *(kind() for kind in FORMULAS),
    nn.Softplus(0.7, 2.0),
    nn.GELU("tanh"),
    nn.ELU(0.5),
    nn.ReLU(inplace=True),
    Waves(2.5),
    Sine(2.5, learn=True),
]


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_three_derivatives(module):
    x = torch.linspace(-6.0, 6.0, 240, dtype=torch.float64).unsqueeze(1)
    s, leaf = Activated(module, x), x.clone().requires_grad_()
    expected = module(leaf.clone())
    for order in range(4):
        assert not s[order].requires_grad
        torch.testing.assert_close(s[order], expected.detach(), rtol=1e-12, atol=1e-14)
        if expected.requires_grad:
            (expected,) = torch.autograd.grad(
                expected.sum(), leaf, create_graph=True, allow_unused=True, materialize_grads=True
            )
        else:
            expected = torch.zeros_like(x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Softmax(1), "Softmax is not a function of single entries"),
        (nn.GLU(), r"GLU maps \(3, 4\) to \(3, 2\)"),
        (nn.BatchNorm1d(4, affine=False), "not a function of single entries"),
    ],
)
def test_what_is_none(module, message):
    with pytest.raises(ValueError, match=message):
        Activated(module.double(), torch.rand(3, 4, dtype=torch.float64))[0]


@pytest.mark.parametrize("sine", [Waves(1.5), Sine(1.5, learn=True, dtype=torch.float32)])
def test_parameters_of_the_activation(sine):
    x = torch.rand(5, 2)
    assert not Activated(sine, x)[1].requires_grad
    attached = Activated(sine, x).attached(1)
    (slope,) = torch.autograd.grad(attached.sum(), sine.frequency)
    expected = torch.cos(1.5 * x) - 1.5 * x * torch.sin(1.5 * x)
    torch.testing.assert_close(slope, expected.sum())
