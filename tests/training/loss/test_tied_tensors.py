"""Oracle: the module itself with the tensors copied into it; its own tensors stay its own."""

import copy

import pytest
import torch
from torch import nn

from mgnet.training import levenberg_marquardt
from mgnet.training.loss.tied_tensors import call_with, further_names


def twice():
    linear = nn.Linear(2, 2)
    return nn.Sequential(linear, nn.Tanh(), linear, nn.Tanh(), nn.Linear(2, 1))


def inside():
    linear = nn.Linear(2, 2)
    return nn.Sequential(nn.Sequential(linear, nn.Tanh()), linear, nn.Sequential(nn.Linear(2, 1)))


def tied():
    network = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2), nn.Linear(2, 1))
    network[2].weight = network[0].weight
    return network


def both():
    network = twice()
    return nn.Sequential(network[:4], nn.Linear(2, 2), network[0], nn.Linear(2, 1))


MODULES = [twice, inside, tied, both, lambda: nn.Linear(2, 1)]


def made(make):
    torch.manual_seed(0)
    return make().double(), torch.randn(9, 2).double()


@pytest.mark.parametrize("make", MODULES)
def test_the_value_is_that_of_the_tensors_and_none_is_lost(make):
    module, x = made(make)
    own, state = list(module.parameters()), copy.deepcopy(module.state_dict())
    tensors = {name: torch.randn_like(p) for name, p in module.named_parameters()}
    other = copy.deepcopy(module)
    for (name, p), (known, _) in zip(other.named_parameters(), tensors.items(), strict=True):
        assert name == known
        p.data.copy_(tensors[name])
    given = dict(tensors)
    assert torch.equal(call_with(module, given, (x,)), other(x)) and given == tensors
    assert all(a is b for a, b in zip(own, module.parameters(), strict=True))
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    assert set(further_names(module)) <= names - set(tensors)


@pytest.mark.parametrize("make", MODULES)
def test_training_leaves_a_module_its_parameters_with_the_solution(make):
    module, x = made(make)
    own, y = list(module.parameters()), x.sin().sum(1, keepdim=True)
    solution = levenberg_marquardt(lambda m: m(x) - y, module, max_cycles=20)
    assert all(a is b for a, b in zip(own, module.parameters(), strict=True))
    assert solution.values[-1] == pytest.approx((module(x) - y).square().sum().item() / 2)
    assert all(isinstance(p, nn.Parameter) for p in module.parameters())
