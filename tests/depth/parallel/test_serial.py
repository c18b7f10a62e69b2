"""Law: a march is serial propagation; each process hands on what it has and gets."""

import copy

import pytest
import torch
from torch import nn

from mgnet.depth import LayerParallel, ODENet
from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.compiled import checkpoints
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR, SerialCommunicator
from mgnet.depth.parallel.local_layers import keep_layers
from mgnet.depth.parallel.method import SERIAL_METHOD
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached
from mgnet.depth.parallel.serial import march


def marched(net, communicator, x):
    layers = net.own_layers()
    prepared = PropagationSetup.of(net.kernel, detached(layers), SERIAL_METHOD, communicator)
    return march(prepared, x, layers.steps, layers.parameters)


def net_of(block=None, **options):
    torch.manual_seed(0)
    block = block or nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    return ODENet(block, 6, 2.0, **options).double()


@pytest.mark.parametrize("options", [{}, {"learnable_steps": True, "scheme": "heun"}])
def test_alone_it_is_the_serial_network(options):
    net = net_of(**options)
    x, z = (torch.ones(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    out, expected = marched(net, SERIAL_COMMUNICATOR, x), net(z)
    torch.testing.assert_close(out, expected, rtol=1e-14, atol=1e-15)
    wanted = torch.autograd.grad(expected.sin().sum(), [z, *net.parameters()])
    found = torch.autograd.grad(out.sin().sum(), [x, *net.parameters()])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("norm", [False, True])
def test_few_small_images_are_convolved_layer_by_layer(norm):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.GroupNorm(1, 2) if norm else nn.ReLU())
    net = ODENet(block, 4, learnable_steps=True).double()
    x, z = (torch.ones(2, 2, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    out, expected = marched(net, SERIAL_COMMUNICATOR, x), net(z)
    wanted = torch.autograd.grad(expected.sin().sum(), [z, *net.parameters()])
    found = torch.autograd.grad(out.sin().sum(), [x, *net.parameters()])
    for ours, theirs in zip([out, *found], [expected, *wanted], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


class Given(SerialCommunicator):
    """Has a process upstream and one downstream; keeps what is sent."""

    def __init__(self, point, end):
        self.given, self.end, self.sent = [point], end, []

    def receive(self, start, reverse):
        return self.given.pop(0)

    def send(self, point, reverse):
        self.sent.append(point)

    def broadcast_from_last(self, point, reverse):
        return self.end


def test_a_process_in_the_middle_hands_on():
    whole = net_of()
    part = copy.deepcopy(whole)
    keep_layers(part, range(2, 4))
    x = torch.ones(4, 3, dtype=torch.float64)
    points = whole.trajectory(x)
    communicator = Given(points[2].detach(), points[6].detach())
    out = marched(part, communicator, x)
    assert torch.equal(out, points[6])
    torch.testing.assert_close(communicator.sent[0], points[4], rtol=1e-14, atol=1e-15)
    lam = torch.randn_like(x)
    communicator.given, communicator.end = [lam], torch.zeros_like(x)
    out.backward(torch.zeros_like(x))
    leaf = points[2].detach().requires_grad_()
    u = leaf
    for n in (2, 3):
        u = whole.layer(n)(u)
    (expected,) = torch.autograd.grad(u, leaf, lam)
    torch.testing.assert_close(communicator.sent[1], expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("size", [2, 6000])
@pytest.mark.parametrize("scheme", ["euler", "heun"])
def test_small_states_and_large_ones(size, scheme):
    """They go different ways: gradients of the parameters in one call, or layer by layer."""
    net = net_of(learnable_steps=True, scheme=scheme)
    x = torch.linspace(-1, 1, 3 * size, dtype=torch.float64).reshape(size, 3).requires_grad_()
    wanted = torch.autograd.grad(net(x).sin().sum(), [x, *net.parameters()])
    found = torch.autograd.grad(
        marched(net, SERIAL_COMMUNICATOR, x).sin().sum(), [x, *net.parameters()]
    )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


class Broken(nn.Linear):
    """Cannot be traced: Python looks at a value."""

    def forward(self, u):
        return super().forward(u) * (2.0 if float(u.detach().sum()) > 1e9 else 1.0)


@pytest.mark.filterwarnings("ignore:the block cannot be traced")
def test_a_block_that_cannot_be_traced():
    net = net_of(Broken(3, 3))
    x = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    wanted = torch.autograd.grad(net(x).sin().sum(), [x, *net.parameters()])
    found = torch.autograd.grad(
        marched(net, SERIAL_COMMUNICATOR, x).sin().sum(), [x, *net.parameters()]
    )
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-14)


def test_frozen_layers_and_no_graph():
    net = net_of()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    x = torch.ones(4, 3, dtype=torch.float64)
    assert not marched(net, SERIAL_COMMUNICATOR, x).requires_grad
    out = marched(net, SERIAL_COMMUNICATOR, x.requires_grad_())
    out.sum().backward()
    assert x.grad is not None


@pytest.fixture
def few_states(monkeypatch):
    """As if they were large: a MiB of them is free."""
    monkeypatch.setattr(checkpoints, "FREE", 1)


class Drawing(nn.Module):
    """Statistics, dropout and convolutions: no compiled loop takes it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2)
        self.dropout = nn.Dropout(0.3)

    def forward(self, u):
        return self.dropout(torch.tanh(self.norm(self.conv(u))))


class Watched(nn.Linear):
    """A block that cannot be traced."""

    def forward(self, u):
        return super().forward(u) * (2.0 if float(u.detach().sum()) > 0 else 1.0)


@pytest.mark.parametrize("block", [Drawing(), Watched(5, 5)])
def test_checkpoints_in_place_of_states(block, few_states):
    torch.manual_seed(0)
    whole = LayerParallel(ODENet(block, 23).double(), levels=1)
    frugal = LayerParallel(copy.deepcopy(whole.net), levels=1, memory="checkpoints")
    x, found = torch.randn(4, 2, 5, dtype=torch.float64, requires_grad=True), []
    for module in (whole, frugal):
        torch.manual_seed(1)
        y = module(x)
        y.square().sum().backward(retain_graph=True)
        first = x.grad.clone()
        y.square().sum().backward()  # with other statistics in the buffers by now
        torch.testing.assert_close(x.grad, 2 * first)
        found.append([y, first, *[p.grad for p in module.parameters()], *module.buffers()])
        x.grad = None
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_checkpoints_have_second_derivatives(few_states):
    torch.manual_seed(0)
    net = ODENet(nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Tanh()), 9).double()
    x, found = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True), []
    for module in (net, LayerParallel(net, levels=1, memory="checkpoints")):
        (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [x, *net.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_checkpoints_of_another_mode_are_refused():
    module = LayerParallel(ODENet(Drawing(), 9), levels=1, memory="checkpoints")
    out = module(torch.randn(4, 2, 5, requires_grad=True))
    module.eval()
    with pytest.raises(RuntimeError, match="from checkpoints, but its block was changed"):
        out.sum().backward()


def test_few_states_are_kept(few_states):
    """Large states without a compiled loop: neither tapes nor autograd's graph hold them."""
    module = LayerParallel(ODENet(Drawing(), 400), levels=1, memory="checkpoints").eval()
    x, kept = torch.randn(1100, 2, 8, requires_grad=True), []
    record = StackedBlock.record

    def counted(self, layers, states):
        kept.append(len(layers))
        return record(self, layers, states)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StackedBlock, "record", counted)
        out = module(x)
        assert not kept
        out.sum().backward()
    assert sum(kept) == 400


def test_memory_settings():
    net = ODENet(nn.Linear(2, 2), 16)
    with pytest.raises(ValueError, match="memory 'disk'; use states or checkpoints"):
        LayerParallel(net, levels=1, memory="disk")
    for mode in ("mgrit", "auto"):
        with pytest.raises(ValueError, match="cycles need all states; use mode='serial'"):
            LayerParallel(net, mode=mode, memory="checkpoints")
    module = LayerParallel(net, mode="serial", memory="checkpoints")
    other = LayerParallel(net, mode="serial")
    other.load_state_dict(module.state_dict())
    assert other.settings["memory"] == "checkpoints"
