"""To and from nn.Sequential: the same functions, the same tensors."""

from typing import Any

import pytest
import torch

from mgnet.depth import CyclesToTolerance, LayerParallel
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
        ([Foreign(), Foreign(), Foreign(rate=1.0)], {}, "module 2 differs from module 0: .*p=1.0"),
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


@pytest.mark.parametrize("output", [lambda x: x[:, :1], lambda x: x[0], lambda x: x[None]])
def test_an_increment_does_not_broadcast(output):
    class Block(torch.nn.Module):
        def forward(self, x):
            return output(x)

    with pytest.raises(ValueError, match=r"for a state of shape \(2, 4\); it must keep the shape"):
        Increment(Block())(torch.randn(2, 4))


@pytest.mark.parametrize(
    "block", [torch.nn.TransformerDecoderLayer(4, 1, 4), Timed()], ids=lambda each: str(each)[:5]
)
def test_modules_of_two_arguments_are_no_increments(block):
    with pytest.raises(TypeError, match="; a layer x -> y is called with x alone"):
        ODENet.from_sequential(torch.nn.ModuleList([block, block]))


# Sequences of other kinds than nn.Sequential.


def encoder(norm=True, batch_first=True, norm_first=True, layers=4, **options):
    options = {"batch_first": batch_first, "norm_first": norm_first, "dropout": 0.0} | options
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, **options)
    last = torch.nn.LayerNorm(8) if norm else None
    nested = batch_first and not norm_first
    made = torch.nn.TransformerEncoder(layer, layers, last, enable_nested_tensor=nested)
    for parameter in made.parameters():  # biases, norms and layers begin alike else
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return made.double()


def gradients(module, x):
    x = x.clone().requires_grad_()
    module(x).square().sum().backward()
    return [x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_whole_encoder(norm, norm_first, batch_first, training):
    torch.manual_seed(0)
    module = encoder(norm, batch_first, norm_first).train(training)
    net = ODENet.from_sequential(module)
    assert (net.depth, net.final_time, net.before) == (4, 4.0, None)
    assert (net.after is not None) == norm and net.training == training
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(x), module(x), rtol=1e-12, atol=1e-13)
    expected, got = gradients(module, x), gradients(net, x)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-11, atol=1e-12)
    theirs = dict(module.named_parameters())
    for name, p in net.block.block.named_parameters():
        rows = torch.stack([theirs[f"layers.{n}.{name}"].grad for n in range(4)])
        torch.testing.assert_close(p.grad, rows, rtol=1e-11, atol=1e-12)


def test_an_encoder_layer_parallel():
    torch.manual_seed(0)
    module = encoder()
    net = ODENet.from_sequential(module)
    parallel = LayerParallel(net, levels=2, coarsening=2, control=CyclesToTolerance(1e-12))
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(parallel(x), module(x), rtol=1e-10, atol=1e-11)


def test_some_layers_of_an_encoder():
    torch.manual_seed(0)
    module = encoder()
    net = ODENet.from_sequential(module, blocks=(1, 3))
    assert net.depth == 2 and len(net.after) == 2
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(net(x), module(x), rtol=1e-12, atol=1e-13)


class Tupled(Foreign):
    """With the signature of a Hugging Face layer."""

    def __init__(self, rest=(None,)):
        super().__init__()
        self.rest = rest

    def forward(self, hidden_states, attention_mask=None, use_cache=False, **kwargs):
        return (super().forward(hidden_states), *self.rest)


@pytest.mark.parametrize("rest", [None, (), (None,), (None, ())])
def test_a_list_of_modules_that_give_tuples(rest):
    torch.manual_seed(0)
    make = Foreign if rest is None else lambda: Tupled(rest)
    modules: Any = torch.nn.ModuleList([make() for _ in range(4)]).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    expected = x
    for module in modules:
        expected = expected + module.f(expected)
    net = ODENet.from_sequential(modules)
    torch.testing.assert_close(net(x), expected, rtol=1e-13, atol=1e-14)
    again = net.to_sequential()
    torch.testing.assert_close(again(x), expected, rtol=1e-13, atol=1e-14)
    parallel = LayerParallel(net, levels=2, coarsening=2, control=CyclesToTolerance(1e-13))
    parallel(x).sum().backward()
    got = net.block.block.f[0].weight.grad
    expected.sum().backward()
    rows = torch.stack([module.f[0].weight.grad for module in modules])
    torch.testing.assert_close(got, rows, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("parallel", [False, True])
def test_tuples_with_more_are_refused(parallel):
    net = ODENet.from_sequential(torch.nn.ModuleList([Tupled((torch.zeros(2),)) for _ in range(4)]))
    with pytest.raises(
        TypeError, match=r"a tensor of shape \(3, 4\), a tensor of shape \(2,\); on"
    ):
        (LayerParallel(net) if parallel else net)(torch.zeros(3, 4))


class Doubled(torch.nn.Sequential):
    def forward(self, input):
        return 2.0 * super().forward(input)


class Listed(torch.nn.ModuleList):
    def forward(self, x):
        return self[0](x)


class Scaled(torch.nn.TransformerEncoder):
    def forward(self, src, **options):
        return super().forward(2.0 * src, **options)


def hooked():
    sequential = torch.nn.Sequential(Foreign(), Foreign())
    sequential.register_forward_hook(lambda module, given, output: 2.0 * output)
    return sequential


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: Doubled(Foreign()), TypeError, "its own forward in place of that of Sequential"),
        (lambda: Listed([Foreign()]), TypeError, "its own forward in place of that of ModuleList"),
        (
            lambda: Scaled(torch.nn.TransformerEncoderLayer(4, 1), 2, enable_nested_tensor=False),
            TypeError,
            "a Scaled, which has its own forward in place of that of TransformerEncoder",
        ),
        (hooked, ValueError, "a Sequential with hooks, which it would leave out"),
        (Foreign, TypeError, "a Foreign; give a torch.nn.Sequential, a ModuleList or a Trans"),
        (lambda: [Foreign()], TypeError, "a list; give"),
        (lambda: torch.nn.ModuleList(), ValueError, r"blocks \(0, 0\) of 0 modules"),
    ],
)
def test_what_does_more_than_to_call_modules_in_turn_is_refused(make, kind, words):
    with pytest.raises(kind, match=words):
        ODENet.from_sequential(make())


def test_a_class_that_only_adds_a_constructor_is_taken():
    class Own(torch.nn.Sequential):
        def __init__(self):
            super().__init__(Foreign(), Foreign())

    x, sequential = torch.randn(2, 4), Own()
    torch.testing.assert_close(ODENet.from_sequential(sequential)(x), sequential(x))
