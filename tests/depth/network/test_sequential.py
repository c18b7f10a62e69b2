"""To and from nn.Sequential: the same functions, the same tensors."""

import pytest
import torch

from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.network.residual_block import ResidualBlock
from mgnet.depth.network.sequential import Increment
from mgnet.depth.network.spline_weights import DepthSpline


class Timed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, t, u):
        return self.norm(torch.tanh(self.linear(u) + t))


class Foreign(torch.nn.Module):
    def __init__(self, width=4, rate=0.0):
        super().__init__()
        self.f = torch.nn.Sequential(
            torch.nn.Linear(width, width), torch.nn.Tanh(), torch.nn.Dropout(rate)
        )

    def forward(self, x):
        return x + self.f(x)


def dense():
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())


def same_tensors(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert list(a) == list(b)
    # Final times are sums of steps: equal to rounding, as loading finds.
    assert all(torch.equal(a[n], b[n]) for n in a if not n.endswith("_extra_state"))


@pytest.mark.parametrize("scheme", ["euler", "rk4"])
@pytest.mark.parametrize("learnable_steps", [False, True])
@pytest.mark.parametrize("block", [dense, Timed])
@pytest.mark.parametrize("boundary_layers", [(0, 0), (2, 1)])
def test_round_trip(scheme, learnable_steps, block, boundary_layers):
    torch.manual_seed(0)
    net = ODENet(
        block(),
        7,
        3.0,
        scheme=scheme,
        learnable_steps=learnable_steps,
        boundary_layers=boundary_layers,
        before=torch.nn.Linear(3, 4),
        after=torch.nn.Linear(4, 2),
    )
    if learnable_steps:
        with torch.no_grad():
            net.learnable_steps.copy_(torch.linspace(-0.3, 1.0, 7))
    net = net.double().eval()
    for buffer in net.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.0)
    x = torch.randn(5, 3, dtype=torch.float64)
    sequential = net.to_sequential()
    torch.testing.assert_close(sequential(x), net(x), rtol=1e-13, atol=1e-14)
    back = ODENet.from_sequential(sequential)
    same_tensors(back, net)
    torch.testing.assert_close(back(x), net(x), rtol=1e-13, atol=1e-14)
    assert str(back) == str(net)
    assert not back.training
    with torch.no_grad():  # all three have tensors of their own
        sequential[0].weight.zero_()
    same_tensors(back, net)
    names = [type(module).__name__ for module in sequential]
    assert names == ["Linear", *["ResidualBlock"] * (7 + sum(boundary_layers)), "Linear"]


@pytest.mark.parametrize("weights", ["shared", DepthSpline(4, 2)])
def test_shared_weights_become_separate(weights):
    net = ODENet(dense(), 5, weights=weights).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    sequential = net.to_sequential()
    torch.testing.assert_close(sequential(x), net(x))
    back = ODENet.from_sequential(sequential)
    assert back.weights == "per layer" and back.block[0].weight.shape == (5, 4, 4)
    torch.testing.assert_close(back(x), net(x))


@pytest.mark.parametrize("learnable_steps", [False, True])
def test_blocks_of_others(learnable_steps):
    torch.manual_seed(0)
    blocks = [Foreign() for _ in range(6)]
    ends = [torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)]
    sequential = torch.nn.Sequential(*ends[:2], *blocks, ends[2]).double()
    net = ODENet.from_sequential(sequential, (2, 8), learnable_steps=learnable_steps)
    assert (
        net.depth == 6
        and net.final_time == 6.0
        and (net.learnable_steps is not None) == learnable_steps
    )
    assert len(net.before) == 2 and net.block.block.f[0].weight.shape == (6, 4, 4)
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(net(x), sequential(x), rtol=1e-13, atol=1e-14)
    net(x).sum().backward()
    sequential(x).sum().backward()
    expected = torch.stack([block.f[0].weight.grad for block in blocks])
    torch.testing.assert_close(net.block.block.f[0].weight.grad, expected, rtol=1e-12, atol=1e-14)
    again = ODENet.from_sequential(net.to_sequential())
    torch.testing.assert_close(again(x), sequential(x), rtol=1e-13, atol=1e-14)


def residual(width=4, step=0.5, time=0.0, scheme="euler", block=None):
    return ResidualBlock(block or torch.nn.Linear(width, width), step, time, scheme)


@pytest.mark.parametrize(
    ("modules", "options", "sentence"),
    [
        ([Foreign(), Foreign(), Foreign(rate=0.5)], {}, "module 2 differs from module 0: .*p=0.5"),
        ([Foreign(), Foreign(5)], {}, "module 1 differs from module 0"),
        ([residual(), residual(scheme="heun")], {}, "module 1 .* scheme 'heun' instead of 'euler'"),
        ([residual(), torch.nn.ReLU(), residual()], {}, "ReLU as module 1, among ResidualBlocks"),
        (
            [residual(), residual(step=0.25)],
            {},
            "steps from 0.25 to 0.5; give learnable_steps=True",
        ),
        ([residual(step=-1.0)], {}, "steps from -1 to -1; give learnable_steps=True"),
        ([Foreign()], {"blocks": (0, 2)}, r"blocks \(0, 2\) of 1 modules"),
        ([], {}, r"blocks \(0, 0\) of 0 modules"),
        (
            [residual(time=t, block=Timed()) for t in (0.0, 0.5, 0.7)],
            {},
            "module 2 has time 0.7; .* at 1",
        ),
    ],
)
def test_what_cannot_be_taken_is_named(modules, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ODENet.from_sequential(torch.nn.Sequential(*modules), **options)


def test_increments():
    block = Foreign()
    x = torch.randn(2, 4)
    torch.testing.assert_close(Increment(block)(x), block.f(x))
