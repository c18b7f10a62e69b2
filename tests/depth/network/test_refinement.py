"""Refinement in depth: exact by learnable steps and knots, and by hand for the others."""

import copy

import pytest
import torch

from mgnet.depth.hierarchy import depth_transfer
from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.training.loss.parameters import FlatParameters


class Timed(torch.nn.Module):
    """F(t, u) with a statistic of its own."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, t, u):
        return torch.tanh(self.norm(self.linear(u)) + t)


def net_of(layers=5, block=Timed, **options):
    torch.manual_seed(0)
    ends = {"before": torch.nn.Linear(3, 4), "after": torch.nn.Linear(4, 2)}
    net = ODENet(block(), layers, 2.0, boundary_layers=(1, 1), **ends, **options).double()
    if net.learnable_steps is not None:
        with torch.no_grad():
            net.learnable_steps.copy_(torch.linspace(-0.5, 1.0, layers))
    for buffer in net.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.0)
    return net.eval()


X = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("weights", ["per layer", "shared", DepthSpline(6, 2)])
@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("factor", [2, 3])
def test_gates_refine_without_a_change(weights, scheme, factor):
    net = net_of(weights=weights, scheme=scheme, learnable_steps=True)
    fine = net.refine(factor)
    assert fine.depth == 5 * factor and fine.final_time == 2.0
    assert torch.equal(fine(X), net(X))
    assert net.nesting_defect(X, factor) == 0.0
    assert torch.equal(fine.coarsen(factor)(X), net(X))
    if weights == "per layer":  # each new layer has a copy, which learns as soon as its gate does
        weight = fine.block.linear.weight
        assert torch.equal(weight[1], net.block.linear.weight[0])
        (g,) = torch.autograd.grad(fine(X).square().sum(), fine.learnable_steps)
        assert g[1::factor].abs().min() > 0


@pytest.mark.parametrize("learnable_steps", [False, True])
def test_knots_refine_without_a_change(learnable_steps):
    net = net_of(weights=DepthSpline(5, 2), learnable_steps=learnable_steps)
    fine = net.refine(2, "knots")
    assert fine.weights == DepthSpline(8, 2) and fine.depth == 5
    torch.testing.assert_close(fine(X), net(X), rtol=1e-13, atol=1e-14)
    assert net.nesting_defect(X, 2, "knots") < 1e-13
    torch.testing.assert_close(fine.coarsen(2, "knots")(X), net(X), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("learnable_steps", [False, True])
def test_constant_and_linear_weights_by_hand(factor, learnable_steps):
    net = net_of(learnable_steps=learnable_steps)
    W = net.block.linear.weight
    constant, linear = net.refine(factor, "constant"), net.refine(factor, "linear")
    for n in range(5 * factor):
        left, share = n // factor, (n % factor) / factor
        right = min(left + 1, 4)
        assert torch.equal(constant.block.linear.weight[n], W[left])
        expected = (1 - share) * W[left] + share * W[right]
        torch.testing.assert_close(linear.block.linear.weight[n], expected)
        mean = net.block.norm.running_mean
        assert torch.equal(linear.block.norm.running_mean[n], mean[left])
    for fine in (constant, linear):
        steps = net.steps.repeat_interleave(factor) / factor
        torch.testing.assert_close(fine.steps, steps)
        assert fine.block.norm.num_batches_tracked.dtype == torch.int64
    torch.testing.assert_close(constant.coarsen(factor, "constant")(X), net(X))
    torch.testing.assert_close(linear.coarsen(factor, "linear")(X), net(X))


def test_coarse_steps_are_sums_and_weights_those_of_the_left_layer():
    net = net_of(6, learnable_steps=True)
    coarse = net.coarsen(3)
    torch.testing.assert_close(coarse.learnable_steps, net.learnable_steps.view(2, 3).sum(1))
    assert torch.equal(coarse.block.linear.weight, net.block.linear.weight[::3])
    mean = net.coarsen(3, "constant").block.linear.weight
    torch.testing.assert_close(mean, net.block.linear.weight.unflatten(0, (2, 3)).mean(1))


def test_copies_converge_to_the_same_differential_equation():
    net = net_of(16)
    defects = [net.refine(2 * k, "constant")(X) - net.refine(k, "constant")(X) for k in (2, 4)]
    assert 0.4 < (defects[1].norm() / defects[0].norm()).item() < 0.6


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({"learnable_steps": True}, "steps"),
        ({}, "constant"),
        ({}, "linear"),
        ({"learnable_steps": True}, "linear"),
    ]
    + [
        ({"weights": DepthSpline(5, 3)}, "knots"),
        ({"weights": "shared", "learnable_steps": True}, "steps"),
    ],
)
@pytest.mark.parametrize("factor", [2, 3])
def test_the_transfer_carries_a_net_to_its_refinement(options, how, factor):
    net = net_of(**options)
    net.after.bias.requires_grad_(False)  # is no part of the vector
    transfer = depth_transfer(net, factor, how)
    u, fine = (FlatParameters(each).start() for each in (net, net.refine(factor, how)))
    torch.testing.assert_close(transfer.prolong(u), fine, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(transfer.inject(fine), u)
    moved = net.refine(factor, how)
    FlatParameters(moved).write(fine + torch.linspace(0.0, 1.0, len(fine)).double() ** 3)
    down = FlatParameters(moved.coarsen(factor, how)).start()
    torch.testing.assert_close(transfer.inject(FlatParameters(moved).start()), down)


def test_tied_and_frozen_parameters_stay_so():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.a.bias.requires_grad_(False)

        def forward(self, u):
            return torch.tanh(self.b(self.a(u)))

    net = net_of(block=Tied, learnable_steps=True)
    fine = copy.deepcopy(net.refine())
    assert fine.block.a.weight is fine.block.b.weight
    assert not fine.block.a.bias.requires_grad and fine.block.b.bias.requires_grad
    assert torch.equal(fine(X), net(X))


@pytest.mark.parametrize(
    ("options", "call", "sentence"),
    [
        (
            {},
            lambda net: net.refine(2, "steps"),
            "without them; make it with learnable_steps=True",
        ),
        ({}, lambda net: net.refine(2, "knots"), "weights 'per layer'; .*DepthSpline"),
        ({}, lambda net: net.refine(2, "cubic"), "one of steps, constant, linear, knots"),
        ({}, lambda net: net.refine(1), "factor 1; it must be at least 2"),
        ({}, lambda net: net.coarsen(2), "factor 2 for 5 layers; it must divide"),
        (
            {"weights": DepthSpline(6, 3)},
            lambda net: net.coarsen(2, "knots"),
            "factor 2 for 3 spline intervals",
        ),
    ],
)
def test_what_cannot_be_done(options, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(net_of(**options))


def test_carried_gradients_are_those_of_the_fine_net():
    """Exactly those of the weights; of a new step up to the length of the old one."""

    class Plain(Timed):  # whose slope does not depend on the time, as that of a copy does
        def forward(self, u):
            return super().forward(0.0, u)

    def gradient(net):
        loss = net(X).square().sum()
        return torch.autograd.grad(loss, [net.block.linear.weight, net.learnable_steps])

    net = net_of(block=Plain, learnable_steps=True)
    with torch.no_grad():
        net.learnable_steps.copy_(torch.full((5,), 1e-4))
    net.requires_grad_(False)
    for p in (net.block.linear.weight, net.learnable_steps):
        p.requires_grad_()
    transfer = depth_transfer(net)
    order = [p for _, p in net.named_parameters() if p.requires_grad]
    assert [p.shape for p in order] == [(5,), (5, 4, 4)]
    theta, learnable_steps = gradient(net)
    carried = transfer.carry_gradient(torch.cat([learnable_steps, theta.flatten()]))
    fine_theta, fine_gates = gradient(net.refine())
    torch.testing.assert_close(carried[10:].view(10, 4, 4), fine_theta, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(carried[:10], fine_gates, rtol=2e-3, atol=2e-3)
