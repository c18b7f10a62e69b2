"""Law: derivatives of the gradients of a `LayerParallel` are those of its layers one after another.

Oracle: the `ODENet`, by plain autograd; `gradgradcheck`. Drawn: scheme, layers, coarsening, levels,
batch, kinds of weights, steps (some of them 0), blocks with a time, norms, dropout and running
statistics, traced or not. Asked in every way that PyTorch has: a penalty, `grad` of `grad`,
`torch.autograd.functional`, `gradgradcheck`. Where the result is not that of the layers: an error.
"""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import functional

from mgnet.depth import (
    AdaptiveCycles,
    CyclesToTolerance,
    DepthSpline,
    FixedCycles,
    LayerParallel,
    ODENet,
)
from mgnet.depth.parallel.serial import SMALL


class Timed(nn.Linear):
    def forward(self, t, u):
        return super().forward(u).tanh() * torch.cos(3.0 * t)


class Square(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3) / 4)

    def forward(self, u):
        return self.weight * u * u


BLOCKS = [
    lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh()),
    lambda: Timed(3, 3),
    Square,
    lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.3), nn.GELU()),
    lambda: nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3), nn.SiLU()),
    lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.Tanh()),
]


def made(layers=16, **options):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    return ODENet(block, layers, before=nn.Linear(2, 3), **options).double()


def tight(net, levels=2, coarsening=4, **options):
    return LayerParallel(net, levels, coarsening, control=CyclesToTolerance(1e-12), **options)


def inputs(batch=3):
    return torch.randn(batch, 2, generator=torch.Generator().manual_seed(1)).double()


def penalty(model, x):
    """The gradients of a loss with the derivative of the output, of x and all parameters."""
    x = x.clone().requires_grad_()
    out = model(x)
    (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    loss = out.mean() + slope.square().sum()
    return torch.autograd.grad(loss, [x, *model.parameters()], materialize_grads=True)


def same(found, wanted, tolerance=1e-10):
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).norm() <= tolerance * max(theirs.norm(), 1.0)


@pytest.mark.parametrize("seed", range(6))
def test_penalties_of_drawn_networks(seed):
    generator = torch.Generator().manual_seed(seed)

    def pick(*values):
        return values[int(torch.randint(len(values), (), generator=generator))]

    torch.manual_seed(seed)
    layers = pick(1, 2, 5, 8, 13)
    net = ODENet(
        BLOCKS[seed % len(BLOCKS)](),
        layers,
        pick(0.5, 2.0),
        scheme=pick("euler", "euler", "heun", "rk4"),
        weights=pick("per layer", "shared", DepthSpline(4, 2)),
        learnable_steps=pick(False, True),
        before=nn.Linear(2, 3),
        after=pick(None, nn.Linear(3, 2)),
    ).double()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    if net.learnable_steps is not None and pick(False, True):
        net.learnable_steps.data[0] = 0.0
    net.kernel.traced = pick(True, True, False)
    net.train(pick(True, True, False))
    factor, levels, size = pick(2, 3), 1, layers
    while size > 1 and levels < 3:
        size, levels = -(-size // factor), levels + 1
    parallel = tight(
        copy.deepcopy(net),
        min(levels, pick(1, 2, 3)),
        factor,
        mode=pick("mgrit", "mgrit", "serial"),
        forward=pick("cascade + V", "V", "F"),
        warm_start=pick(False, True),
    )
    parallel.net.kernel.traced = net.kernel.traced
    for number in range(2):  # the second call starts from the first one, and has other masks
        x = inputs(pick(2, 5)) + number
        same(penalty(parallel, x), penalty(net, x))
    for ours, theirs in zip(parallel.net.buffers(), net.buffers(), strict=True):
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_every_way_to_ask(mode):
    net, x = made(), inputs()
    parallel, v = tight(net, mode=mode), inputs() + 1.0
    weight = net.block[0].weight.detach()

    def output(model):
        return lambda x: model(x).sin().sum()

    def of_weights(model):
        def function(w):
            held = net.block[0]._parameters
            kept, held["weight"] = held["weight"], w
            try:
                return model(x).square().sum()
            finally:
                held["weight"] = kept

        return function

    for ask in (
        lambda model: [functional.hessian(output(model), x)],
        lambda model: [functional.hvp(output(model), x, v)[1]],
        lambda model: [functional.vhp(output(model), x, v)[1]],
        lambda model: [functional.jvp(model, x, v)[1]],
        lambda model: [functional.hvp(of_weights(model), weight, weight)[1]],
        lambda model: [functional.jacobian(model, x, create_graph=True)],
    ):
        same(ask(parallel), ask(net))


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_gradgradcheck(mode):
    net = made(5, learnable_steps=True)
    parallel = tight(net, coarsening=2, mode=mode)
    x = inputs(1).requires_grad_()
    assert torch.autograd.gradgradcheck(parallel, (x,), atol=1e-6)


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_third_derivatives(mode):
    net, x = made(5, learnable_steps=True, weights="shared"), inputs(2)

    def third(model):
        z = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(model(z).square().sum(), z, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), z, create_graph=True)
        return torch.autograd.grad(second.square().sum(), [z, *net.parameters()])

    same(third(tight(net, coarsening=2, mode=mode)), third(net))


def test_scales_of_the_direction_do_not_matter():
    """One tolerance holds for states and tangents, of whatever size these are."""
    net, x = made(), inputs().requires_grad_()
    parallel = LayerParallel(net, control=CyclesToTolerance(1e-6))
    for factor in (1e-12, 1.0, 1e12):
        found = []
        for model in (parallel, net):
            (slope,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
            found.append(torch.autograd.grad(factor * slope.square().sum(), x)[0] / factor)
        assert (found[0] - found[1]).norm() <= 1e-4 * found[1].norm()


def test_large_states_in_turn():
    net, x = made(2), inputs(SMALL // 2)
    same(penalty(tight(net, 1, mode="serial"), x), penalty(net, x))


def test_a_float32_network():
    net, x = made().float(), inputs().float()
    found = penalty(LayerParallel(net, control=CyclesToTolerance(1e-5)), x)
    same(found, penalty(net, x), 1e-4)


@pytest.mark.parametrize("control", [FixedCycles(3), AdaptiveCycles(3, 3)])
def test_fixed_cycles_are_refused_in_every_way(control):
    parallel, x = LayerParallel(made(), control=control), inputs(1).requires_grad_()
    refused = pytest.raises(RuntimeError, match="fixed number of cycles leaves a gradient")
    (slope,) = torch.autograd.grad(parallel(x).square().sum(), x, create_graph=True)
    assert slope.requires_grad  # a graph that nobody differentiates
    with refused:
        slope.sum().backward()
    parallel(x).square().sum().backward(create_graph=True)
    weight = parallel.net.block[0].weight
    with refused:
        weight.grad.square().sum().backward()
    with refused:
        functional.hessian(lambda x: parallel(x).square().sum(), x)
    with refused:
        functional.hvp(lambda x: parallel(x).square().sum(), x, x)
    with refused:
        functional.vhp(lambda x: parallel(x).square().sum(), x, x)
    with refused:
        functional.jvp(parallel, x, x)
    with refused:
        torch.autograd.gradgradcheck(parallel, (x,))


@pytest.mark.parametrize("options", [{"max_cycles": 1}, {"max_cycles": 2, "backward": 1e-300}])
def test_too_few_cycles_are_refused(options):
    net, x = made(64), inputs().requires_grad_()
    parallel = LayerParallel(net, coarsening=16, control=CyclesToTolerance(1e-9, **options)).eval()
    (slope,) = torch.autograd.grad(parallel(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="above the tolerance .*; allow more cycles"):
        slope.sum().backward()


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_many_gradients_at_once_are_refused(mode):
    parallel = tight(made(), mode=mode)
    for ask in (functional.jacobian, functional.hessian):
        with pytest.raises(RuntimeError, match="many gradients at once"):
            ask(lambda x: parallel(x).sum(), inputs(1), vectorize=True)


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_buffers_edited_after_the_forward_pass_are_refused(mode):
    torch.manual_seed(0)
    net = ODENet(nn.Sequential(nn.BatchNorm1d(2), nn.Tanh()), 4).double().eval()
    x = inputs().requires_grad_()
    (slope,) = torch.autograd.grad(tight(net, mode=mode)(x).sum(), x, create_graph=True)
    net.block[0].running_mean += 1.0
    with pytest.raises(RuntimeError, match="buffers of its block were edited"):
        slope.sum().backward()


def test_a_zero_gradient_is_solved_at_once():
    parallel, x = tight(made()), inputs().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel(x).backward(torch.zeros(3, 3).double())
    assert parallel.last_backward.cycles == 1 and not x.grad.any()


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_a_block_that_changes_before_the_second_derivative_is_refused(mode):
    net, x = ODENet(Square(), 4).double(), torch.ones(2, 3, dtype=torch.float64).requires_grad_()
    parallel = LayerParallel(net, 2, 2, mode=mode, control=CyclesToTolerance(1e-12))
    (slope,) = torch.autograd.grad(parallel(x).sum(), x, create_graph=True)
    parallel.eval()
    with pytest.raises(
        RuntimeError, match=r"its block was changed after the .* by train\(\) or eval"
    ):
        torch.autograd.grad(slope.sum(), x)


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_buffers_edited_before_the_backward_pass_are_refused(mode):
    torch.manual_seed(0)
    net = ODENet(nn.Sequential(nn.BatchNorm1d(2), nn.Tanh()), 4).double().eval()
    out = tight(net, mode=mode)(inputs().requires_grad_()).sum()
    net.block[0].running_mean += 1.0
    with pytest.raises(RuntimeError, match="buffers of its block or side inputs were edited"):
        out.backward()
