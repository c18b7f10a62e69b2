"""Law: with an input for each layer, every propagation is the loop over the layers, with gradients.

The oracle is a loop of plain modules, written here.
"""

import copy

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, LayerParallel, ODENet
from mgnet.depth.mgrit.coarse_kinds import COARSE

WIDTH, SEEN = 4, 3


class Driven(nn.Module):
    """A cell with statistics, and an input that is a number."""

    def __init__(self, norm=False):
        super().__init__()
        self.state, self.input = nn.Linear(WIDTH, WIDTH), nn.Linear(SEEN, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH) if norm else nn.Identity()

    def forward(self, u, inputs=None, kind=None, scale=1.0):
        return torch.tanh(self.norm(self.state(u)) + self.input(inputs)) * (1 + kind) * scale - u


def problem(layers=13, seed=0, norm=False, **options):
    generator = torch.manual_seed(seed)
    names = {"layer_inputs": ["inputs", "kind"]}
    net = ODENet(lambda n: Driven(norm), layers, 2.0, **names, **options).double()
    count = layers + sum(options.get("boundary_layers", (0, 0)))
    given = {"dtype": torch.float64, "generator": generator}
    u = torch.randn(5, WIDTH, **given).requires_grad_()
    inputs = torch.randn(count, 5, SEEN, **given).requires_grad_()
    side = {"inputs": inputs, "kind": torch.arange(count) % 2, "scale": 0.7}
    return net, u, side


def loop(net, u, side):
    """Euler's steps, layer by layer, with gradients to the parameters of the net."""
    first, last = len(net.opening), len(net.closing)
    names, h = list(dict(net.block.named_parameters())), 2.0 / net.depth
    for n in range(first + net.depth + last):
        row = {"inputs": side["inputs"][n], "kind": side["kind"][n], "scale": side["scale"]}
        if first <= n < first + net.depth:
            k = 0 if net.weights == "shared" else n - first
            own = {name: net.block.get_parameter(name)[k] for name in names}
            u = u + h * torch.func.functional_call(net.block, own, (u,), row)
        else:
            layer = net.opening[n] if n < first else net.closing[n - first - net.depth]
            u = u + layer.block(u, **row)
    return u


def check(ours, net, u, side, rtol=1e-9):
    variables = u, side["inputs"], *net.parameters()
    a, b = ours(u, **side), loop(net, u, side)
    torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)
    weight = torch.linspace(-1.0, 2.0, a.numel(), dtype=a.dtype).reshape(a.shape)
    found = torch.autograd.grad((weight * a).sum(), variables)
    wanted = torch.autograd.grad((weight * b).sum(), variables)
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=rtol)


OPTIONS = [
    {},
    {"weights": "shared"},
    {"boundary_layers": (1, 2)},
    {"weights": "shared", "boundary_layers": (2, 0)},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_layer_by_layer(options):
    net, u, side = problem(**options)
    check(net, net, u, side, 1e-12)
    check(LayerParallel(net, mode="serial"), net, u, side, 1e-12)


@pytest.mark.parametrize("coarse", COARSE)
@pytest.mark.parametrize("options", OPTIONS)
def test_by_cycles(options, coarse):
    net, u, side = problem(16, 1, **options)
    control = CyclesToTolerance(1e-13, max_cycles=40)
    ours = LayerParallel(net, 3, 2, control=control, coarse=coarse)
    check(ours.train(), net, u, side)


def test_calls_with_other_inputs_do_not_meet():
    net, u, side = problem(12)
    ours = LayerParallel(net, 2, 4, control=CyclesToTolerance(1e-13))
    check(ours, net, u, side)
    side["inputs"].data.mul_(-2.0)  # in place: what is kept between calls must follow
    check(ours, net, u, side)
    side |= {"inputs": side["inputs"].detach().flip(0).requires_grad_(), "scale": 1.2}
    check(ours, net, u, side)


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("layers", [1, 6])
def test_what_is_given_is_not_written_to(layers, traced):
    net, u, side = problem(layers, norm=True)
    net.kernel.traced = traced
    side["inputs"] = side["inputs"].detach()
    versions = [side[name]._version for name in ("inputs", "kind")]
    for mode in ("serial", "mgrit"):
        ours = LayerParallel(net, 1 if layers == 1 else 2, 2, mode=mode).train()
        ours(u, **side).sum().backward()
    assert [side[name]._version for name in ("inputs", "kind")] == versions


def test_derivatives_of_gradients():
    net, u, side = problem(6)

    def second(ours):
        (first,) = torch.autograd.grad(ours(u, **side).square().sum(), [u], create_graph=True)
        return torch.autograd.grad(first.square().sum(), [u, side["inputs"], *net.parameters()])

    ours = LayerParallel(net, 2, 2, control=CyclesToTolerance(1e-13))
    wanted = second(lambda u, **side: loop(net, u, side))
    for found in (second(net), second(ours), second(LayerParallel(net, mode="serial"))):
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_trajectories_transforms_and_evaluation():
    net, u, side = problem(8)
    states = net.trajectory(u, **side)
    torch.testing.assert_close(states[-1], net(u, **side))
    ours = LayerParallel(net, 2, 2, control=CyclesToTolerance(1e-13)).eval()
    batches = [(u.detach(), net(u, **side).detach(), side)]
    assert max(ours.evaluate(nn.functional.mse_loss, batches).values()) < 1e-20
    x, y = (side["inputs"].detach()[:, :1], u.detach()[:1])
    few = {**side, "inputs": x}
    J = torch.func.jacrev(lambda e: net(y, **few | {"inputs": e}))(x)
    assert J.shape == (1, WIDTH, 8, 1, SEEN) and J[:, :, 0].abs().max() > 0.0


def test_refined_nets_ask_for_as_many_rows():
    net, u, side = problem(4)
    side["kind"] = torch.zeros(4, dtype=torch.long)
    fine = net.refine(2)
    assert fine.layer_inputs == net.layer_inputs == copy.deepcopy(net).layer_inputs
    twice = {name: x.repeat_interleave(2, 0) for name, x in side.items() if name != "scale"}
    loops = loop(fine, u, twice | {"scale": 0.7})
    torch.testing.assert_close(fine(u, scale=0.7, **twice), loops)
    with pytest.raises(ValueError, match=r"shape \(4, 5, 3\) for 8 layers"):
        fine(u, **side)


def test_layers_of_others():
    class Residual(Driven):
        def forward(self, u, inputs=None, kind=0, scale=1.0):
            return u + super().forward(u, inputs, kind, scale)

    blocks = [Residual() for _ in range(5)]
    net = ODENet.from_sequential(nn.ModuleList(blocks), layer_inputs=["inputs"])
    u, inputs = torch.randn(2, WIDTH), torch.randn(5, 2, SEEN)
    wanted = u
    for block, row in zip(blocks, inputs, strict=True):
        wanted = block(wanted, inputs=row)
    torch.testing.assert_close(net(u, inputs=inputs), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("call", ["net", "parallel"])
def test_refusals(call):
    net, u, side = problem(8)
    ours = net if call == "net" else LayerParallel(net)
    for wrong in (side["inputs"][1:], side["inputs"][0], torch.tensor(1.0)):
        with pytest.raises(ValueError, match="for 8 layers; give it a row for each layer"):
            ours(u, **side | {"inputs": wrong})
    with pytest.raises(TypeError, match="give tensors of shape"):
        ours(u, **side | {"kind": 1})


def test_names_that_the_block_does_not_take():
    with pytest.raises(TypeError, match="does not take"):
        ODENet(Driven(), 4, layer_inputs=["input"])
