"""What is added to the forward of a class is found, wherever it hides."""

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize

from mgnet.training.loss.own_forward import alteration, knows


class Linear(torch.nn.Linear):
    """Nothing of its own."""


class Positive(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x).exp()


class Called(torch.nn.Linear):
    def __call__(self, x):
        return super().__call__(x).exp()


def replaced(layer):
    layer.forward = lambda x: x
    return layer


def hooked(layer, register):
    getattr(layer, register)(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (torch.nn.Linear(1, 1), ""),
        (Linear(1, 1), ""),
        (Positive(1, 1), "Positive has a forward of its own"),
        (Called(1, 1), "Called has a __call__ of its own"),
        (replaced(Linear(1, 1)), "the forward of this Linear was replaced"),
        (hooked(Linear(1, 1), "register_forward_hook"), "Linear has hooks"),
        (hooked(Linear(1, 1), "register_forward_pre_hook"), "Linear has hooks"),
        (hooked(Linear(1, 1), "register_full_backward_hook"), "Linear has hooks"),
        (hooked(Linear(1, 1), "register_full_backward_pre_hook"), "Linear has hooks"),
        (parametrizations.weight_norm(Linear(1, 1)), "ParametrizedLinear has parametrizations"),
    ],
)
def test_each_kind_is_named(module, words):
    assert alteration(module, torch.nn.Linear) == words


def test_of_a_part():
    layer = torch.nn.Sequential(torch.nn.Linear(1, 1))
    parametrize.register_parametrization(layer[0], "bias", torch.nn.Tanh())
    assert alteration(layer, torch.nn.Sequential) == "Sequential.0 has parametrizations"


def test_a_network_that_cannot_tell_is_trusted():
    class Own(torch.nn.Linear):
        def linearize(self, x):
            raise NotImplementedError

    assert knows(Own(1, 1), "linearize")
    assert not knows(Own(1, 1), "derivatives")
