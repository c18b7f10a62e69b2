"""Law: a march is serial propagation; each process hands on what it has and gets."""

import copy

import pytest
import torch
from torch import nn

from mgnet.depth import ODENet
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
