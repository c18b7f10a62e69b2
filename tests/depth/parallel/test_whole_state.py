"""Law: gathered states are those of the whole, and are loaded again. More ranks: tests/mpi."""

import copy

import pytest
import torch
from torch import nn

from mgnet.depth import LayerParallel, ODENet, TimeParallel
from mgnet.depth.parallel.whole_state import gather_state, load_state
from mgnet.petsc.distribution import distribute_layers


def made(seed=0, **options):
    torch.manual_seed(seed)
    block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    return LayerParallel(ODENet(block, 7, before=nn.Linear(2, 3), **options), 2, 2)


def step(parallel, optimizer):
    optimizer.zero_grad()
    parallel(torch.ones(4, 2)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("distributed", [False, True])
def test_states_go_round(petsc, distributed):
    first, second = made(0), made(1)
    if distributed:
        distribute_layers(first)
        distribute_layers(second)
    optimizers = [torch.optim.Adam(each.parameters(), 0.1) for each in (first, second)]
    step(first, optimizers[0])
    load_state(second, gather_state(first))
    load_state(second, gather_state(first, optimizers[0]), optimizers[1])
    assert torch.equal(first(torch.ones(4, 2)), second(torch.ones(4, 2)))
    for parallel, optimizer in zip((first, second), optimizers, strict=True):
        step(parallel, optimizer)
    assert torch.equal(first(torch.ones(4, 2)), second(torch.ones(4, 2)))


def test_gathering_leaves_module_and_optimizer_alone(petsc):
    parallel = distribute_layers(made())
    optimizer = torch.optim.SGD(parallel.parameters(), 0.1, momentum=0.9)
    step(parallel, optimizer)
    state = gather_state(parallel, optimizer)
    assert state is not None
    before = copy.deepcopy(state)
    step(parallel, optimizer)
    for number, held in before["state"].items():
        assert torch.equal(held["momentum_buffer"], state["state"][number]["momentum_buffer"])


def test_an_optimizer_that_mixes_parameters_is_refused(petsc):
    parallel = distribute_layers(made())
    optimizer = torch.optim.Adafactor(parallel.parameters())
    step(parallel, optimizer)
    with pytest.raises(ValueError, match="Adafactor keeps .* cannot be distributed"):
        gather_state(parallel, optimizer)


def test_no_state_on_rank_0_is_refused(petsc):
    with pytest.raises(ValueError, match="None on rank 0"):
        load_state(distribute_layers(made()), None)


def test_other_modules_have_their_state_on_every_rank():
    module = TimeParallel(nn.GRU(2, 3))
    with pytest.raises(TypeError, match="gather_state got a TimeParallel; it is for LayerParallel"):
        gather_state(module)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="load_state got a TimeParallel"):
        load_state(module, None)  # type: ignore[arg-type]
