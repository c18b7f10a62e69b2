"""Threads that call one network at once, fresh ones too, get what one thread gets."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, LayerParallel, ODENet
from mgnet.depth.batched.lending import lending


class Mixed(nn.Module):
    """A block of two modules that a batched program does not know in advance."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 3)

    def forward(self, u):
        return self.second(torch.tanh(self.first(u)))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_threads_that_call_fresh_networks_get_the_layers_one_after_another(mode, seed):
    net = ODENet(Mixed(seed), layers=8 + seed).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    right = net(x).detach()
    control = CyclesToTolerance(1e-9, max_cycles=20)
    parallel = LayerParallel(net, levels=2, coarsening=4, control=control, mode=mode).eval()
    errors, together = [], threading.Barrier(4)

    def work(network):
        together.wait()
        try:
            for _ in range(3):
                errors.append(float((network(x).detach() - right).abs().max()))
        except Exception as error:  # a thread's own would only be printed
            errors.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in (parallel, net) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(error, float) and error < 1e-8 for error in errors), errors


class Pooled(nn.Module):
    """A module that waits for other threads, which call a network."""

    def __init__(self):
        super().__init__()
        self.net = ODENet(nn.Linear(3, 3), layers=4)

    def forward(self, x):
        with ThreadPoolExecutor(2) as pool:
            return torch.cat(list(pool.map(self.net, x.split(2))))


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", [nn.Identity, LayerParallel])
def test_modules_around_the_layers_may_wait_for_threads(kind, place):
    network = kind(ODENet(nn.Linear(3, 3), layers=8, **{place: Pooled()}))
    found = []
    caller = threading.Thread(target=lambda: found.append(network(torch.ones(4, 3))), daemon=True)
    caller.start()
    caller.join(60.0)
    assert len(found) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_of_a_fork_does_not_wait_for_a_thread_of_its_parent():
    held, over = threading.Event(), threading.Event()

    def hold():
        with lending():
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if lending().acquire(timeout=10.0) else 1)
    _, status = os.waitpid(child, 0)
    over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
