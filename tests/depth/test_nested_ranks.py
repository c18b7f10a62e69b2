"""Law: a spread net is whole afterwards, with what was learned. More ranks: tests/mpi."""

import copy

import pytest
import torch
from torch import nn

from mgnet.depth import LayerParallel, ODENet
from mgnet.depth.nested_ranks import spread
from mgnet.petsc import distribute
from mgnet.training import MultilevelGradient


def made():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh())
    return ODENet(block, 8, before=nn.Linear(2, 3), learnable_steps=True)


def wrap(net):
    return distribute(LayerParallel(net, 2, 2))


def step(module, optimizer):
    optimizer.zero_grad()
    module(torch.rand(5, 2, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    optimizer.step()


def test_training_goes_on_in_the_whole_net(petsc):
    net, alone = made(), made()
    optimizers = [torch.optim.AdamW(each.parameters(), 0.1) for each in (net, alone)]
    parameters = list(net.parameters())
    for _ in range(2):
        with spread(wrap, net, optimizers[0]) as own:
            assert own.communicator is not None and own.optimizer is not optimizers[0]
            step(own.module, own.optimizer)
        assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
        step(LayerParallel(alone, 2, 2), optimizers[1])
    held, wanted = net.state_dict(), alone.state_dict()
    assert all(torch.equal(held[name], wanted[name]) for name in wanted)
    for a, b in zip(net.parameters(), alone.parameters(), strict=True):
        for key, value in optimizers[1].state[b].items():
            assert torch.equal(optimizers[0].state[a][key], value)


def test_after_an_error_all_is_as_before(petsc):
    net = made()
    optimizer = torch.optim.AdamW(net.parameters(), 0.1)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(KeyError), spread(wrap, net, optimizer) as own:
        step(own.module, own.optimizer)
        raise KeyError
    parts = {name for name in before if name.startswith(("block", "learnable"))}
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in parts)
    assert not optimizer.state and net.kept == range(8)
    net.check_whole()


def test_one_process_trains_the_net_itself():
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with spread(LayerParallel, net, optimizer) as own:
        assert own.optimizer is optimizer and own.communicator is None
        assert own.module.net is net


@pytest.mark.parametrize("kind", ["copy", "levels"])
def test_what_cannot_be_is_refused(petsc, kind):
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    if kind == "levels":
        optimizer = MultilevelGradient(torch.optim.Adam, net, {"lr": 0.1})
    made_of = copy.deepcopy if kind == "copy" else lambda net: net
    says = {"copy": "a distributed copy from wrap", "levels": "MultilevelGradient and distributed"}
    with pytest.raises(ValueError, match=says[kind]):
        with spread(lambda net: wrap(made_of(net)), net, optimizer):
            pass
    net.check_whole()
