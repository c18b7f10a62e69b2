"""Law: on one rank nothing changes. More ranks: tests/mpi."""

import copy

import pytest
import torch
from torch import nn

from mgnet.depth import LayerParallel, ODENet, TimeParallel
from mgnet.petsc import distribution
from mgnet.petsc.distribution import distribute, distribute_layers, distribute_time


def made(seed=0, **options):
    torch.manual_seed(seed)
    block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    return LayerParallel(ODENet(block, 7, before=nn.Linear(2, 3), **options), 2, 2)


def step(parallel, optimizer):
    optimizer.zero_grad()
    parallel(torch.ones(4, 2)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("learnable_steps", [False, True])
def test_one_rank_is_the_module_itself(petsc, learnable_steps):
    alone = made(learnable_steps=learnable_steps)
    spread = distribute_layers(copy.deepcopy(alone))
    for parallel in (alone, spread):
        step(parallel, torch.optim.Adam(parallel.parameters()))
    for ours, theirs in zip(spread.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_network_without_layer_parallel_is_refused():
    with pytest.raises(TypeError, match=r"module of type ODENet; give LayerParallel\(net\)"):
        distribute_layers(made().net)


def test_without_petsc4py_one_process_goes_on_and_several_are_refused(monkeypatch):
    monkeypatch.setattr(distribution, "find_spec", lambda name: None)
    for name in distribution.SIZES:
        monkeypatch.delenv(name, raising=False)
    parallel = made()
    assert distribute_layers(parallel) is parallel
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ModuleNotFoundError, match="several processes"):
        distribute_layers(parallel)


@pytest.mark.parametrize(
    "numbers", [{}, {"layers": 1}, {"batches": 1}, {"layers": 1, "batches": 1}]
)
def test_a_grid_of_one_rank(petsc, numbers):
    parallel = distribute(made(), **numbers)
    assert parallel.communicator.batches is None
    assert (parallel.communicator.rank, parallel.communicator.ranks) == (0, 1)


@pytest.mark.parametrize("with_petsc", [False, True])
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"layers": 2, "batches": 3}, "layers 2 and batches 3 on 1 rank; .*mpiexec -n 6"),
        ({"layers": 2}, "layers 2 and batches 1 on 1 rank"),
        ({"batches": 2}, "layers 1 and batches 2 on 1 rank"),
        ({"layers": 0}, "distribute got layers 0; give a number of ranks"),
        ({"batches": 1.0}, r"distribute got batches 1\.0"),
        ({"batches": True}, "distribute got batches True"),
    ],
)
def test_other_grids_are_refused(petsc, monkeypatch, numbers, message, with_petsc):
    if not with_petsc:
        monkeypatch.setattr(distribution, "find_spec", lambda name: None)
        for name in distribution.SIZES:
            monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=message):
        distribute(made(), **numbers)


@pytest.mark.parametrize("with_petsc", [False, True])
def test_steps_on_one_rank_have_the_same_bits_without_petsc4py(petsc, monkeypatch, with_petsc):
    if not with_petsc:
        monkeypatch.setattr(distribution, "find_spec", lambda name: None)
        for name in distribution.SIZES:
            monkeypatch.delenv(name, raising=False)
    module, x = nn.GRU(2, 3), torch.randn(100, 2, 2)
    shared = distribute_time(TimeParallel(module), pieces=4)
    assert shared.communicator.rank == 0 and len(shared.shares(100, 10).pieces) == 4
    expected = module(x)[0]
    torch.testing.assert_close(shared(x)[0], expected, rtol=1e-5, atol=1e-5)
    again = TimeParallel(module)
    again.shares = distribution.Alone(4)
    assert torch.equal(again(x)[0], shared(x)[0])
    assert torch.equal(copy.deepcopy(shared)(x)[0], shared(x)[0])


def test_what_has_no_time_steps_is_refused():
    with pytest.raises(TypeError, match=r"module of type GRU; give TimeParallel\(gru\)"):
        distribute_time(nn.GRU(2, 3))
    for pieces in (0, 2.0, True, None):
        with pytest.raises(ValueError, match="distribute_time got pieces .*; give an integer"):
            distribute_time(TimeParallel(nn.GRU(2, 3)), pieces)


def test_steps_of_several_processes_need_petsc4py(monkeypatch):
    monkeypatch.setattr(distribution, "find_spec", lambda name: None)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ModuleNotFoundError, match="distribute_time got several processes"):
        distribute_time(TimeParallel(nn.GRU(2, 3)))
