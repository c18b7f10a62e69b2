"""Law: the sum of microbatches is PyTorch's own accumulation. Several networks: tests/mpi."""

from collections import OrderedDict, UserDict
from typing import NamedTuple

import pytest
import torch
from torch import nn

from mgnet.depth import AdaptiveCycles, LayerParallel, ODENet, accumulate_gradients


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


def made(seed=0, drop=0.0, **settings):
    torch.manual_seed(seed)
    block = nn.Sequential(nn.Linear(3, 3), nn.Dropout(drop), nn.Tanh())
    net = ODENet(block, 8, before=nn.Linear(2, 3), after=nn.Dropout(drop))
    net.kernel.traced = False
    return LayerParallel(net, 2, 2, **settings)


def data(rows=11):
    generator = torch.Generator().manual_seed(rows)
    return Pair(torch.rand(rows, 2, generator=generator), torch.rand(rows, 3, generator=generator))


def loss(module, batch):
    x, y = batch
    return (module(x) - y).square().mean()


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(("rows", "count"), [(11, 4), (8, 4), (3, 3), (7, 1)])
def test_bits_are_those_of_a_loop(rows, count, before):
    ours, theirs, (x, y) = made(), made(), data(rows)
    for module in (ours, theirs):
        if before:
            module(x).sum().backward()
    value = accumulate_gradients(ours, loss, (x, y), count)
    total = torch.zeros((), dtype=torch.float64)
    for part in zip(x.tensor_split(count), y.tensor_split(count), strict=True):
        share = loss(theirs, part) * (len(part[0]) / rows)
        share.backward()
        total += share.detach().double()
    assert torch.equal(value, total)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("count", [1, 2, 5, 11])
def test_the_gradient_is_that_of_the_whole_batch(count):
    module = made().double()
    batch = [part.double() for part in data()]
    value = accumulate_gradients(module, loss, batch, count)
    own = [p.grad for p in module.parameters()]
    exact = loss(module, batch)
    torch.testing.assert_close(value, exact.detach())
    wanted = torch.autograd.grad(exact, [*module.parameters()])
    # One cycle each way: errors depend on the batch, but are small.
    torch.testing.assert_close(own, [*wanted], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "batch",
    [
        {"x": data()[0], "y": data()[1], "about": "words"},
        [data()[0], {"y": (data()[1],)}, torch.tensor(2.0)],
        data(),
    ],
)
def test_containers_keep_their_kind(batch):
    seen = []

    def rows(module, piece):
        seen.append(piece)
        x = piece["x"] if isinstance(piece, dict) else piece[0]
        return module(x).sum()

    accumulate_gradients(made(), rows, batch, 3)
    assert [type(piece) for piece in seen] == [type(batch)] * 3
    first = [piece["x"] if isinstance(piece, dict) else piece[0] for piece in seen]
    whole = batch["x"] if isinstance(batch, dict) else batch[0]
    assert torch.equal(torch.cat(first), whole)
    if isinstance(batch, dict):
        assert {piece["about"] for piece in seen} == {"words"}
    elif isinstance(batch, list):
        assert torch.equal(torch.cat([piece[1]["y"][0] for piece in seen]), data()[1])
        assert all(piece[2] is batch[2] for piece in seen)


def test_masks_differ_between_microbatches_and_steps_and_come_again():
    """Of the keys of layers, and of PyTorch's own dropout around them."""

    def outputs(count):
        module, found = made(drop=0.5).train(), []

        def keep(module, x):
            found.append(module(x).detach())
            return module.net.before(x).sum()

        torch.manual_seed(3)
        for _ in range(2):
            accumulate_gradients(module, keep, torch.ones(40, 2), count)
        return found, module.net.calls, torch.rand(1)

    (first, calls, drawn), (again, *others) = outputs(4), outputs(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [calls, drawn] == others and calls == 2
    assert all(not torch.equal(a, b) for n, a in enumerate(first) for b in first[:n])


def test_cycles_adapt_as_after_one_call():
    module = made(control=AdaptiveCycles(tolerance=1e-9, every=1, max_cycles=9)).train()
    one = made(control=module.control).train()
    x, y = data(8)
    accumulate_gradients(module, loss, (x, y), 4)
    loss(one, (x[:2], y[:2])).backward()
    assert module.control == one.control != AdaptiveCycles(tolerance=1e-9, every=1, max_cycles=9)
    assert module.calls == one.calls == 1


def test_plain_modules_are_taken():
    net = nn.Linear(2, 3)
    accumulate_gradients(net, loss, data(), 3)
    (wanted,) = torch.autograd.grad(loss(net, data()), net.weight)
    torch.testing.assert_close(net.weight.grad, wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((loss, data(), 0), "microbatches 0; give a number of at least 1"),
        ((loss, data(), 2.0), r"microbatches 2\.0"),
        ((loss, data(3), 4), "3 rows for 4 microbatches"),
        ((loss, (data(3)[0], data(4)[1]), 2), r"tensors of \[3, 4\] rows"),
        ((loss, "words", 2), "no tensor with rows"),
        ((lambda module, batch: 1.0, data(), 2), "a loss of type float"),
        ((lambda module, batch: module(batch[0]), data(), 2), r"a loss of shape \(6, 3\)"),
        ((lambda module, batch: batch[0].sum(), data(), 2), r"shape \(\) without a gradient"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        accumulate_gradients(made(), *arguments)


def test_starts_from_another_microbatch_are_refused():
    module = made(warm_start=True)
    with pytest.raises(ValueError, match="warm_start=True"):
        accumulate_gradients(module, loss, data(), 2)
    accumulate_gradients(module, loss, data(), 1)


class Beside:
    """Two networks, as the first one sees them: the other one gives nothing."""

    rank, ranks = 0, 2
    first = None  # control and calls of the first one

    def gather(self, values):
        return torch.cat([values, values], 1)

    def receive(self, start, reverse):
        return start

    def send(self, point, reverse):
        pass

    def broadcast_from_last(self, point, reverse):
        return point

    def broadcast(self, value):
        return self.first if self.first else value


class Part:
    """A communicator of one process that holds all layers, beside another network."""

    def __init__(self, own):
        self.own, self.batches = own, Beside()

    def __getattr__(self, name):
        return getattr(self.own, name)


class Scaled(nn.Module):
    """Running statistics that nothing counts."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x):
        return nn.functional.batch_norm(self.linear(x), self.mean, self.var, training=True)


@pytest.mark.parametrize("kind", ["running statistics", "before", "auto", "few", "mixed"])
def test_networks_that_would_differ_are_refused(kind):
    module = made(mode="auto") if kind == "auto" else made()
    if kind == "running statistics":
        net = ODENet(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3)), 4, before=nn.Linear(2, 3))
        module = LayerParallel(net, 2, 2).train()
    if kind == "before":
        module.net.before = Scaled()
    grads = [torch.ones_like(p) for p in module.parameters()]
    for p, grad in zip(module.parameters(), grads, strict=True):
        p.grad = grad
    module.communicator = Part(module.communicator)
    whole = nn.ModuleList([module, made()]) if kind == "mixed" else module
    says = {"running statistics": "calls change 'net.block.0.running_mean'", "auto": "mode='auto'"}
    says |= {"before": "calls change 'net.before.mean'"}
    says |= {"few": "at least 2, one for each network", "mixed": "different grids"}
    with pytest.raises(ValueError, match=says[kind]):
        accumulate_gradients(whole, loss, data(), 1 if kind == "few" else None)
    for p, grad in zip(module.parameters(), grads, strict=True):
        assert p.grad is grad and bool((grad == 1.0).all())


def test_sparse_gradients_of_several_networks_are_refused():
    module = made()
    module.net.before = nn.Embedding(5, 3, sparse=True)
    module.communicator = Part(module.communicator)
    with pytest.raises(ValueError, match="sparse gradient"):
        accumulate_gradients(module, lambda module, x: module(x).sum(), torch.arange(4))
    assert all(p.grad is None for p in module.parameters())


def test_cycles_and_calls_are_those_of_the_first_network():
    """A loss that calls twice counts fewer calls, where a first one ended the cycles."""
    module = made(control=AdaptiveCycles()).train()
    module.communicator = Part(module.communicator)
    module.communicator.batches.first = None, 7
    accumulate_gradients(module, loss, data())
    assert (module.control, module.calls) == (None, 7)


class Tokens(UserDict):
    """As that of a tokenizer."""

    def __getattr__(self, name):
        return self.data[name]


@pytest.mark.parametrize("kind", [Tokens, OrderedDict])
def test_mappings_keep_their_class(kind):
    batch, seen = kind(x=data()[0], about="words"), []

    def rows(module, piece):
        seen.append(piece)
        return module(piece.x if kind is Tokens else piece["x"]).sum()

    accumulate_gradients(made(), rows, batch, 3)
    assert [type(piece) for piece in seen] == [kind] * 3
    assert torch.equal(torch.cat([piece["x"] for piece in seen]), data()[0])
    assert torch.equal(batch["x"], data()[0]) and batch["about"] == "words"
