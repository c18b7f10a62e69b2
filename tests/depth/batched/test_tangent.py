"""Law: a layer of `TangentBlock` is a layer and its derivative in a direction, as autograd has it.

Blocks whose own formulas could be lost: norms, a time, buffers that are edited, no parameters, a
constant, layers that run one after another. To the second order each; oracle: double backward.
"""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from mgnet.depth import Layers, ODENet, StackedBlock
from mgnet.depth.batched.scheme import slope
from mgnet.depth.batched.tangent import TangentBlock


class Timed(nn.Linear):
    def forward(self, t, u):
        return super().forward(u).tanh() * torch.cos(3.0 * t)


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("value", torch.ones(3))

    def forward(self, u):
        return self.value.expand(u.shape)


BLOCKS = {
    "tanh": lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh()),
    "time": lambda: Timed(3, 3),
    "layer norm": lambda: nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3), nn.SiLU()),
    "batch norm": lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.GELU()),
    "no parameters": nn.Sigmoid,
    "linear": lambda: nn.Linear(3, 3),
    "constant": Constant,
}


def drawn(name, scheme, seed=0):
    """A stacked block, its layers, and a direction for states, steps and parameters."""
    torch.manual_seed(seed)
    net = ODENet(BLOCKS[name](), 4, final_time=2.0, scheme=scheme).double()
    layers = net.own_layers()
    parameters = tuple(0.5 * torch.randn_like(x) for x in layers.parameters)
    steps = torch.rand(4, dtype=torch.float64) + 0.5
    layers = Layers(parameters, layers.buffers, layers.times, steps)
    direction = [torch.randn_like(x) for x in (steps, *parameters)]
    u, w = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    return net, layers, u, w, direction


def oracle(net, layers, steps, u, parameters):
    """`s F` of every layer, by the module itself."""
    names = [name for name, _ in net.block.named_parameters()]
    rows = []
    for n in range(4):
        tensors = {name: p[n] for name, p in zip(names, parameters, strict=True)}
        buffers = {k: b[n].clone() for k, b in net.block.named_buffers()}

        def F(t, v, given=tensors | buffers):  # noqa: N802
            return functional_call(net.block, given, (t, v) if net.timed else (v,))

        rows.append(steps[n] * slope(net.scheme, F, layers.times[n], u[n], steps[n]))
    return torch.stack(rows)


@pytest.mark.parametrize(("traced", "scheme"), [(True, "euler"), (True, "heun"), (False, "euler")])
@pytest.mark.parametrize("name", BLOCKS)
def test_slopes_and_their_products_are_those_of_autograd(name, traced, scheme):
    net, layers, u, w, (of_steps, *direction) = drawn(name, scheme)
    tangent = TangentBlock(StackedBlock(net.block, scheme, traced), with_steps=True)
    steps, one = layers.steps, torch.ones_like(layers.steps)
    parameters = (*layers.parameters, one, *direction, of_steps / steps)
    states = torch.stack([u, w], 1)
    tape = tangent.record(Layers(parameters, layers.buffers, layers.times, steps), states)

    inputs = [x.clone().requires_grad_() for x in (u, steps, *layers.parameters)]
    along = [x.clone().requires_grad_() for x in (w, of_steps, *direction)]

    def function(u, steps, *parameters):
        return oracle(net, layers, steps, u, parameters)

    value, pushed = torch.autograd.functional.jvp(
        function, tuple(inputs), tuple(along), create_graph=True
    )
    scale = steps.reshape(-1, 1, 1, 1)
    made = (scale * tape.value).unbind(1)
    torch.testing.assert_close(made[0], value.detach(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(made[1], pushed.detach(), rtol=1e-12, atol=1e-13)

    lam = torch.randn_like(states)
    found, (mu, nu) = tape.vjp_all(scale * lam), lam.unbind(1)
    if "norm" in name:  # PyTorch's third derivatives of norms are wrong: two orders are enough
        value = function(*inputs)
        pulled = torch.autograd.grad(value, inputs, nu, create_graph=True, materialize_grads=True)
        wanted = torch.autograd.grad([value, *pulled], inputs, [mu, *along]) + pulled
    else:
        outputs = [(x, lam) for x, lam in ((value, mu), (pushed, nu)) if x.requires_grad]
        wanted = torch.autograd.grad(
            [x for x, _ in outputs],
            [*inputs, *along],
            [lam for _, lam in outputs],
            materialize_grads=True,
        )
    half = len(inputs)
    for row, expected in zip(found[0].unbind(1), (wanted[0], wanted[half]), strict=True):
        torch.testing.assert_close(row, expected, rtol=1e-11, atol=1e-12)
    for ours, theirs in zip(found[1][: half - 2], wanted[2:half], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    for ours, theirs in zip(found[1][half - 1 : -1], wanted[half + 2 :], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found[1][half - 2] / steps, wanted[1], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found[1][-1] / steps, wanted[half + 1], rtol=1e-11, atol=1e-12)


def test_buffers_stay_as_they_are():
    net, layers, u, w, _ = drawn("batch norm", "euler")
    tangent = TangentBlock(net.kernel, with_steps=False)
    before = [x.clone() for x in layers.buffers]
    directions = tuple(torch.ones_like(x) for x in layers.parameters)
    both = Layers((*layers.parameters, *directions), layers.buffers, layers.times, layers.steps)
    tape = tangent.record(both, torch.stack([u, w], 1))
    for old, now, new in zip(before, layers.buffers, tape.new_buffers, strict=True):
        assert torch.equal(old, now) and torch.equal(old, new)


def test_a_tangent_of_a_tangent_is_the_second_derivative():
    class Cube(nn.Module):
        def forward(self, u):
            return u**3

    twice = TangentBlock(TangentBlock(StackedBlock(Cube()), False), False)
    layers = Layers((), (), *torch.ones(2, 1))
    state = torch.tensor([[[2.0], [1.0]], [[1.0], [0.0]]])  # (u, u'), and their derivative
    value = twice.slope(layers, state[None])[0]
    assert value.ravel().tolist() == [8.0, 12.0, 12.0, 12.0]
