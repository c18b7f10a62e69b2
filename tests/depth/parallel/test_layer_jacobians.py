"""Laws: Jacobians of layers are those of autograd, each sample and layer on its own."""

import warnings

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, FixedCycles, LayerParallel, ODENet
from mgnet.depth.parallel.layer_jacobians import backward_jacobians, work_of
from mgnet.depth.parallel.method import MGRITMethod
from mgnet.depth.parallel.propagation import Adjoint, CycleLimit, Propagation
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached


class Bilinear(nn.Module):
    """States of shape (batch, 2, 3)."""

    def __init__(self):
        super().__init__()
        self.left = nn.Parameter(torch.randn(2, 2))
        self.right = nn.Parameter(torch.randn(3, 3))

    def forward(self, u):
        return torch.tanh(self.left @ u @ self.right)


@pytest.fixture
def net():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all layers begin alike
        net = ODENet(Bilinear(), 9, final_time=2.0).double()
    for p in net.parameters():
        p.data += 0.5 * torch.randn_like(p)
    return net


def propagation_of(net, states):
    method = MGRITMethod.from_texts((4,), "newton", "newton", ("F",))
    setup = PropagationSetup.of(net.kernel, detached(net.layers()), method)
    forward = Propagation(setup)
    forward.forward(states[0], CycleLimit(4), None, record=True)
    return setup, forward


@pytest.mark.parametrize("which", [slice(0, 9, 1), slice(1, 9, 4), slice(8, 9, 4)])
def test_forward_jacobians_are_those_of_autograd(net, which):
    states = torch.randn(9, 5, 2, 3, dtype=torch.float64)
    setup, _ = propagation_of(net, states)
    values, dense = setup.linearize(0, which, states[which], "dense")
    assert dense.shape == (len(range(9)[which]), 5, 6, 6)
    torch.testing.assert_close(values, setup.advance(0, which, states[which]), rtol=0, atol=0)
    _, diagonal = setup.linearize(0, which, states[which], "diagonal")
    layers = net.layers()
    for k, layer in enumerate(range(9)[which]):
        left, right = (p[layer].detach() for p in layers.parameters)
        step = layers.steps[layer]

        def one(u, left=left, right=right, step=step):
            return (u + step * torch.tanh(left @ u @ right)).flatten()

        for sample in range(5):
            u = states[layer, sample]
            exact = torch.autograd.functional.jacobian(one, u).reshape(6, 6)
            torch.testing.assert_close(dense[k, sample], exact)
            torch.testing.assert_close(diagonal[k, sample].flatten(), exact.diagonal())


def test_backward_ones_are_transposed(net):
    states = torch.randn(1, 5, 2, 3, dtype=torch.float64)
    setup, forward = propagation_of(net, states)
    adjoint, which = Adjoint.of(forward), slice(2, 9, 4)
    lam = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    values, dense = adjoint.linearize(0, which, lam, "dense")
    torch.testing.assert_close(values, adjoint.advance(0, which, lam))
    torch.testing.assert_close(values.flatten(2), (dense @ lam.flatten(2)[..., None])[..., 0])
    _, diagonal = adjoint.linearize(0, which, lam, "diagonal")
    torch.testing.assert_close(diagonal.flatten(2), dense.diagonal(dim1=2, dim2=3))


def test_the_products_are_counted(net):
    states = torch.randn(9, 5, 2, 3, dtype=torch.float64)
    setup, _ = propagation_of(net, states)
    kernel, before = net.kernel, (net.kernel.evaluations, net.kernel.vjps)
    setup.linearize(0, slice(0, 9, 1), states, "dense")
    counted = kernel.evaluations - before[0] + kernel.vjps - before[1]
    assert (
        counted
        == 9 * setup.linearization_work("dense", states)
        == 9 * work_of(kernel, "dense", states)
    )


def test_blocks_that_mix_samples_still_converge():
    """Batch norm in training: the Jacobians are approximate, the result is not."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh())
    net = ODENet(block, 12).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    exact = net(x)
    found = LayerParallel(net, forward="newton", control=FixedCycles(4))(x)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)


def test_more_than_the_memory_is_refused(net, monkeypatch):
    monkeypatch.setattr("mgnet.limits.machine_memory", lambda: 1000)
    states = torch.randn(9, 5, 2, 3, dtype=torch.float64)
    setup, _ = propagation_of(net, states[:, :0])
    with pytest.raises(ValueError, match=r"states of 6 entries.*take newton\(diagonal\)"):
        setup.linearize(0, slice(0, 9, 1), states, "dense")
    tape = setup.kernel.record(setup.fine, states)
    assert (
        backward_jacobians(net.kernel, tape, torch.ones(1), states, "diagonal").shape
        == states.shape
    )


@pytest.mark.parametrize("text", ["newton", "newton(diagonal)"])
def test_derivatives_of_gradients(text):
    """State and tangent are one state, with a Jacobian each."""
    torch.manual_seed(0)
    net = ODENet(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), 13).double()
    parallel = LayerParallel(
        net, forward=text, backward=text, control=CyclesToTolerance(1e-12, max_cycles=40)
    )
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def penalty(model):
        (slope,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, *net.parameters()])

    for found, exact in zip(penalty(parallel), penalty(net), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)


def test_no_layers_have_jacobians_of_the_same_shape(net):
    states = torch.randn(9, 5, 2, 3, dtype=torch.float64)
    setup, forward = propagation_of(net, states)
    for propagator in (setup, Adjoint.of(forward)):
        for structure, shape in (("dense", (0, 5, 6, 6)), ("diagonal", (0, 5, 2, 3))):
            values, found = propagator.linearize(0, slice(0, 0), states[:0], structure)
            assert values.shape == (0, 5, 2, 3) and found.shape == shape
