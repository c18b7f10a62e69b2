"""Rows on recurrent networks: a GRU of two layers as `TimeParallel`, beside `torch.nn.GRU`."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import torch
from crossings.networks import Network, close
from crossings.rows import row
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from mgnet.depth import CyclesToTolerance, TimeParallel
from mgnet.petsc.distribution import distribute_time

SECTION = "Recurrent networks"
STEPS, BATCH = 40, 3


def gru(**options: Any) -> nn.GRU:
    """The same weights every time."""
    torch.manual_seed(0)
    return nn.GRU(2, 4, 2, batch_first=True, **options).double()


def plain(weights: dict[str, Tensor], x: Any) -> Any:
    """PyTorch's own module, with these weights under the names that `TimeParallel` gives them."""
    own = {name.removeprefix("cell."): value for name, value in weights.items()}
    return torch.func.functional_call(gru(), own, (x,))[0]


def by_cycles() -> TimeParallel:
    """Solved far below what is asked of the numbers."""
    return TimeParallel(gru(), control=CyclesToTolerance(1e-13, max_cycles=60))


def serially() -> TimeParallel:
    return TimeParallel(gru(), mode="serial")


NETWORKS = [
    Network("TimeParallel", by_cycles, plain, lambda m: (m.cell, "weight_hh_l0")),
    Network("TimeParallel, serial", serially, plain, lambda m: (m.cell, "weight_hh_l0")),
]
BOTH = tuple(network.title for network in NETWORKS)


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, STEPS, 2, generator=generator, dtype=torch.float64)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    found = module.named_parameters()
    return {n: p.detach().clone().requires_grad_() for n, p in found}


def same(network: Network, module: nn.Module, x: Any = None) -> None:
    """Output and gradients of weights."""
    x, weights = inputs() if x is None else x, weights_of(module)
    found, expected = module(x)[0], network.plain(weights, x)
    packed = not isinstance(found, Tensor)
    found, expected = (y.data if packed else y for y in (found, expected))
    close(found, expected, "output", 1e-9)
    module.zero_grad()
    found.square().sum().backward()
    expected.square().sum().backward()
    for name, value in module.named_parameters():
        assert value.grad is not None and weights[name].grad is not None
        close(value.grad, weights[name].grad, f"gradient of {name}", 1e-8)


@row(SECTION, "padded sequences, `batch_first=True`", networks=BOTH)
def padded(network: Network) -> None:
    same(network, network.make())


@row(SECTION, "packed sequences, `enforce_sorted=False`", networks=BOTH)
def packed(network: Network) -> None:
    rows = [row[:n] for row, n in zip(inputs(), (17, STEPS, 5), strict=True)]
    if network.plain is plain:
        same(network, network.make(), pack_sequence(rows, enforce_sorted=False))
        return

    def unpacked(weights: dict[str, Tensor], x: Any) -> Any:
        return x._replace(data=network.plain(weights, x.data))

    same(network._replace(plain=unpacked), network.make(), pack_sequence(rows, False))


@row(SECTION, "`copy.deepcopy`, `pickle`, `torch.save` of the `state_dict`", networks=BOTH)
def saved(network: Network) -> None:
    module, file = network.make(), io.BytesIO()
    same(network, pickle.loads(pickle.dumps(copy.deepcopy(module))))
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = TimeParallel(gru())
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    other.load_state_dict(torch.load(file))
    same(network, other)


@row(SECTION, "three steps of Adam with `clip_grad_norm_`", networks=BOTH)
def trained(network: Network) -> None:
    module, x = network.make(), inputs()
    weights = weights_of(module)
    ways = (
        (list(module.parameters()), lambda: module(x)[0]),
        (list(weights.values()), lambda: network.plain(weights, x)),
    )
    for parameters, call in ways:
        optimizer = torch.optim.Adam(parameters, 1e-2, eps=1e-4)
        for _ in range(3):
            optimizer.zero_grad()
            (call() - 1.0).square().mean().backward()
            nn.utils.clip_grad_norm_(parameters, 0.01)
            optimizer.step()
    for name, value in module.named_parameters():
        close(value, weights[name], name, 1e-6)


@row(SECTION, "a loss with the input derivative, `create_graph=True`", networks=BOTH)
def penalized(network: Network) -> None:
    module, found = network.make(), []
    weights = weights_of(module)
    for call in (lambda x: module(x)[0], lambda x: network.plain(weights, x)):
        x = inputs().requires_grad_()
        (gradient,) = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        found.append(second)
    close(*found, "second derivatives", 1e-8)


@row(SECTION, "`torch.func.vmap` over further sequences", networks=BOTH)
def mapped(network: Network) -> None:
    module, x = network.make(), torch.stack([inputs(), -inputs()])
    found = torch.func.vmap(lambda x: module(x)[0])(x)
    close(found[1], network.plain(weights_of(module), x[1]), "output", 1e-9)


@row(SECTION, '`torch.compile(backend="eager")` of a recurrent network', networks=BOTH, quick=False)
def compiled(network: Network) -> None:
    module = network.make()
    close(
        torch.compile(module, backend="eager")(inputs())[0],
        network.plain(weights_of(module), inputs()),
        "output",
        1e-9,
    )


@row(SECTION, "`mgnet.petsc.distribute_time`, on one rank", networks=BOTH)
def distributed(network: Network) -> None:
    same(network, distribute_time(network.make(), pieces=4))
