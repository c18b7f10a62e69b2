"""Weights from and to layers of others, against these layers called one after another."""

import copy
import random
from typing import Any

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, DepthSpline, LayerParallel, ODENet
from mgnet.depth.network.dropout import KeyedDropout
from mgnet.depth.network.sequential import Increment


class Block(nn.Module):
    """A layer with the signature of Hugging Face, tied weights, buffers and dropout."""

    def __init__(self, width=4, rate=0.1, bias=True, tied=True):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, width, bias=bias), nn.Dropout(rate), nn.Tanh(), nn.Dropout1d(rate)
        )
        self.out = nn.Linear(width, width, bias=False)
        if tied:
            self.out.weight = self.mlp[0].weight
        self.norm = nn.BatchNorm1d(width)
        self.register_buffer("shift", torch.randn(width))
        self.register_buffer("cache", torch.randn(width), persistent=False)

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        h = self.out(self.mlp(self.norm(hidden_states)))
        return hidden_states + 0.5 * h + 0.1 * self.shift + 0.1 * self.cache, None


def drawn(count=4, seed=0, make=Block):
    torch.manual_seed(seed)
    layers = nn.ModuleList([make() for _ in range(count)])
    for each in layers.modules():
        if isinstance(each, nn.BatchNorm1d):
            for x in (each.weight, each.bias, each.running_mean, each.running_var):
                x.data.add_(torch.rand(x.shape))
            each.num_batches_tracked.fill_(seed + 1)
    return layers.double().eval()


def in_turn(layers, x):
    for layer in layers:
        x = layer(x)
        x = x[0] if isinstance(x, tuple) else x
    return x


def tensors_of(module):
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: x.detach().clone() for name, x in named}


def unchanged(module, before):
    now = tensors_of(module)
    return now.keys() == before.keys() and all(torch.equal(now[n], before[n]) for n in now)


def inputs(rows=5):
    return torch.randn(rows, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("given", [list, nn.Sequential, nn.ModuleList, tuple, "increments"])
@pytest.mark.parametrize("start", ["layers", "template"])
def test_a_net_with_loaded_weights_is_the_function_of_the_layers(given, start):
    if start == "layers":
        net = ODENet.from_sequential(drawn(seed=1))
    else:
        net = ODENet(Increment(Block()), 4, 4.0, start="identical").double().eval()
    layers = drawn(seed=2)
    parameters = [(p, p.data_ptr()) for p in net.parameters()]
    if given == "increments":
        net.load_layers([Increment(each) for each in layers])
    else:
        net.load_layers(given(layers) if given is not nn.Sequential else nn.Sequential(*layers))
    close(net(inputs()), in_turn(layers, inputs()))
    assert [(p, p.data_ptr()) for p in net.parameters()] == parameters
    assert torch.equal(net.block.block.norm.num_batches_tracked, torch.full((4,), 3))
    with torch.no_grad():  # a copy
        layers[0].shift.add_(1.0)
    assert not torch.equal(net.block.block.shift[0], layers[0].shift)


def test_blocks_without_an_increment():
    class F(Block):
        def forward(self, hidden_states, **kwargs):
            return 0.5 * self.out(self.mlp(self.norm(hidden_states)))

    layers = drawn(make=F)
    net = ODENet(F(), 4, 4.0).double().eval()
    net.load_layers(layers)
    x = inputs()
    for layer in layers:
        x = x + layer(x)
    close(net(inputs()), x)
    assert [type(each) for each in net.to_layers()] == [F] * 4


@pytest.mark.parametrize("boundary", [(0, 0), (1, 2)])
@pytest.mark.parametrize("training", [False, True])
def test_layers_that_are_given_back(boundary, training):
    count = 4 + sum(boundary)
    net = ODENet(
        lambda n: Increment(drawn(1, seed=n)[0]), 4, 4.0, boundary_layers=boundary
    ).double()
    net = net.train(training)
    layers: Any = net.to_layers()
    assert isinstance(layers, nn.ModuleList) and [type(x) for x in layers] == [Block] * count
    original = drawn(1)[0]
    layer: Any
    for n, layer in enumerate(layers):
        assert str(layer) == str(original) and layer.training == training
        assert layer.out.weight is layer.mlp[0].weight
        assert not [part for part in layer.modules() if isinstance(part, KeyedDropout)]
        expected, got = tensors_of(drawn(1, seed=n)[0]), tensors_of(layer)
        assert list(got) == list(expected)
        assert all(torch.equal(got[name], expected[name]) for name in got)
    assert layers.training == training
    close(in_turn(layers.eval(), inputs()), net.eval()(inputs()))
    before = tensors_of(net)
    with torch.no_grad():
        for x in (*layers.parameters(), *layers.buffers()):
            x.zero_()
    assert unchanged(net, before)


@pytest.mark.parametrize("boundary", [(0, 0), (2, 1)])
def test_there_and_back_in_place(boundary):
    count = 4 + sum(boundary)
    net = ODENet(Increment(Block()), 4, 4.0, boundary_layers=boundary, start="identical")
    net = net.double().eval()
    layers, target = drawn(count, seed=3), drawn(count, seed=4)
    net.load_layers(layers)
    close(net(inputs()), in_turn(layers, inputs()))
    kept = [(p, p.data_ptr()) for p in target.parameters()]
    assert net.to_layers(into=target) is target
    assert [(p, p.data_ptr()) for p in target.parameters()] == kept
    assert unchanged(target, tensors_of(layers))


def test_training_between():
    """One step of the net is one step of the layers."""
    layers = drawn(make=lambda: Block(rate=0.0)).train()
    net = ODENet.from_sequential(layers)
    for module, run in ((net, net), (layers, lambda x: in_turn(layers, x))):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        run(inputs()).square().sum().backward()
        optimizer.step()
    found, expected = tensors_of(net.to_layers()), tensors_of(layers)
    for name in expected:
        close(found[name], expected[name])


@pytest.mark.parametrize("weights", ["shared", DepthSpline(3, 1)])
def test_shared_weights_are_given_but_not_loaded(weights):
    net = ODENet(Increment(nn.Linear(4, 4)), 4, 4.0, weights=weights).double()
    layers = net.to_layers()
    close(in_turn(layers, inputs()), net(inputs()))
    target = nn.ModuleList([nn.Linear(4, 4) for _ in range(4)]).double()
    net.to_layers(into=target)
    assert unchanged(target, tensors_of(layers))
    before = tensors_of(net)
    with pytest.raises(ValueError, match="which has none of its own for each layer"):
        net.load_layers(layers)
    assert unchanged(net, before)


def test_layers_that_are_one_module():
    net = ODENet(Increment(nn.Linear(4, 4)), 3, 3.0, weights="shared").double()
    one = nn.Linear(4, 4).double()
    net.to_layers(into=[one] * 3)
    close(in_turn([one] * 3, inputs()), net(inputs()))
    other = ODENet(Increment(nn.Linear(4, 4)), 3, 3.0).double()
    before = tensors_of(one)
    with pytest.raises(ValueError, match="layer 1 whose weight is shared with an earlier layer"):
        other.to_layers(into=[one] * 3)
    assert unchanged(one, before)
    other.load_layers([one] * 3)
    close(other(inputs()), in_turn([one] * 3, inputs()))


def test_flags_types_and_optimizers():
    """Flags and types stay those of the target; an optimizer keeps its parameters."""
    net = ODENet.from_sequential(drawn())
    net.block.block.mlp[0].bias.requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters())
    layers = drawn(seed=1).float().requires_grad_(False)
    net.load_layers(layers)
    assert net.block.block.out.weight.requires_grad and net.block.block.shift.dtype == torch.float64
    assert torch.equal(net.block.block.shift[2], layers[2].shift.double())
    assert all(any(p is q for q in net.parameters()) for p in optimizer.param_groups[0]["params"])
    target: Any = drawn(seed=2).to(torch.bfloat16)
    net.to_layers(into=target)
    assert target[3].shift.dtype == torch.bfloat16 and target[3].mlp[0].bias.requires_grad
    assert torch.equal(target[3].shift, layers[3].shift.to(torch.bfloat16))
    assert not net.to_layers()[0].mlp[0].bias.requires_grad


def test_weights_that_a_backward_pass_needs():
    net = ODENet.from_sequential(drawn(make=lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh())))
    loss = net(inputs()).sum()
    net.load_layers(net.to_layers())
    with pytest.raises(RuntimeError, match="modified"):
        loss.backward()


def test_a_layer_parallel_net_has_the_loaded_weights():
    net = ODENet.from_sequential(drawn())
    parallel = LayerParallel(net, levels=2, coarsening=2, control=CyclesToTolerance(1e-13))
    parallel(inputs())
    net.load_layers(drawn(seed=1))
    close(parallel(inputs()), in_turn(drawn(seed=1), inputs()))


class WithMask(Block):
    def __init__(self, value=1.0):
        super().__init__()
        self.mask = torch.full((4,), value)


class Counts(Block):
    """A buffer of another kind."""

    def __init__(self):
        super().__init__()
        self.shift = torch.zeros(4, dtype=torch.int64)


def emptied():
    layer = Block().to("meta")
    layer.out.weight = layer.mlp[0].weight  # torch unties them
    return layer


def last_differs(make):
    layers = drawn()
    layers[3] = make()
    return layers


CASES = {
    "too few": (lambda: drawn(3), ValueError, "3 modules for an ODENet of 4 layers; give one for"),
    "too many": (lambda: drawn(5), ValueError, "5 modules for an ODENet of 4 layers"),
    "width": (
        lambda: last_differs(lambda: Block(5)),
        ValueError,
        r"layer 3 with \S+ of torch.float32 and shape \(5,.*\); that of the ODENet is of",
    ),
    "missing": (
        lambda: last_differs(lambda: Block(bias=False)),
        ValueError,
        "layer 3 that is not .*: without mlp.0.bias; give layers of the class",
    ),
    "more": (
        lambda: last_differs(lambda: Block(tied=False)),
        ValueError,
        "layer 3 .*block: with out.weight, which it has not; give",
    ),
    "other": (
        lambda: last_differs(lambda: nn.Linear(4, 4)),
        ValueError,
        "layer 3 .* without cache, mlp.0.bias, .* and with bias, weight, which it has not",
    ),
    "kind": (lambda: last_differs(Counts), ValueError, "layer 3 with shift of torch.int64"),
    "meta": (
        lambda: last_differs(emptied),
        ValueError,
        r"layer 3 whose \S+ is on the meta device and has no numbers",
    ),
    "no modules": (lambda: [1, 2, 3, 4], TypeError, "a list; give a ModuleList"),
    "a module": (lambda: drawn()[0], TypeError, "a Block; give a ModuleList"),
    "an encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2), 4),
        TypeError,
        "a TransformerEncoder; give a ModuleList",
    ),
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["load_layers", "to_layers"])
def test_what_is_refused_changes_nothing(case, method):
    make, kind, words = CASES[case]
    net = ODENet.from_sequential(drawn(seed=1))
    given = make()
    modules = [each for each in given if isinstance(each, nn.Module)] if "a" not in case[:1] else []
    before, theirs = tensors_of(net), [tensors_of(each) for each in modules]
    with pytest.raises(kind, match=f"{method} got .*{words}"):
        getattr(net, method)(given)
    assert unchanged(net, before)
    on_meta = case == "meta"
    for module, told in zip(modules[: 3 if on_meta else None], theirs, strict=False):
        assert unchanged(module, told)


@pytest.mark.parametrize("method", ["load_layers", "to_layers"])
def test_tensors_that_are_no_buffers_are_not_lost(method):
    net = ODENet.from_sequential(drawn(make=WithMask))
    getattr(net, method)(drawn(make=WithMask))
    with pytest.raises(ValueError, match="layer 0 with another mask than the block of the ODENet"):
        getattr(net, method)(drawn(make=lambda: WithMask(2.0)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"final_time": 2.0}, "scheme 'euler' and steps from 0.5 to 0.5; .* net.to_sequential()"),
        ({"scheme": "heun"}, "scheme 'heun' and steps from 1 to 1"),
        ({"learnable_steps": True}, "steps from 0.999998987 to 1"),
    ],
)
@pytest.mark.parametrize("into", [False, True])
def test_layers_alone_cannot_have_other_steps(options, words, into):
    net = ODENet(Increment(nn.Linear(4, 4)), 4, **({"final_time": 4.0} | options))
    if net.learnable_steps is not None:
        net.to_layers()
        net.learnable_steps.data[1] -= 1e-6
    target = [nn.Linear(4, 4) for _ in range(4)]
    before = [tensors_of(each) for each in target]
    with pytest.raises(ValueError, match=f"to_layers got an ODENet with .*{words}"):
        net.to_layers(target if into else None)
    assert all(unchanged(each, told) for each, told in zip(target, before, strict=True))


def test_boundary_layers_are_counted():
    net = ODENet(Increment(nn.Linear(4, 4)), 3, 3.0, boundary_layers=(1, 2))
    with pytest.raises(
        ValueError, match="3 modules for an ODENet of 3 layers, 1 before and 2 after"
    ):
        net.load_layers([nn.Linear(4, 4)] * 3)
    layers = drawn(6, make=lambda: nn.Linear(4, 4))
    layers[5] = nn.Linear(4, 4, bias=False)
    with pytest.raises(ValueError, match="layer 5 that is not of the architecture"):
        net.load_layers(layers)


@pytest.mark.parametrize("method", ["load_layers", "to_layers"])
def test_nets_that_are_refused(method):
    distributed = ODENet.from_sequential(drawn())
    distributed.kept = range(2)
    with pytest.raises(ValueError, match="ODENet holds the layers 0 to 1 of 0 to 3 only"):
        getattr(distributed, method)(drawn())
    net = ODENet.from_sequential(nn.ModuleList([nn.Linear(4, 4)] * 4)).to("meta")
    with pytest.raises(ValueError, match="got an ODENet whose weight is on the meta device"):
        getattr(net, method)([nn.Linear(4, 4)] * 4)

    class Own(ODENet):
        def layers(self):
            return super().layers()

    with pytest.raises(TypeError, match=f"{method} got a Own, which has its own layers"):
        getattr(Own.from_sequential(drawn()), method)(drawn())


def test_copies_of_nets_load_for_themselves():
    net = ODENet.from_sequential(drawn())
    other = copy.deepcopy(net)
    other.load_layers(drawn(seed=1))
    close(net(inputs()), in_turn(drawn(), inputs()))
    close(other(inputs()), in_turn(drawn(seed=1), inputs()))


@pytest.mark.parametrize("seed", range(8))
def test_drawn_layers_there_and_back(seed):
    """Of any size, number, precision and boundary, with and without ties and biases."""
    draw = random.Random(seed)
    width, first, count, last = (
        draw.randint(*limits) for limits in ((2, 6), (0, 2), (1, 5), (0, 2))
    )
    options: Any = {"width": width, "bias": draw.random() < 0.5, "tied": draw.random() < 0.5}
    layers = drawn(first + count + last, seed, lambda: Block(**options))
    layers = layers.to(draw.choice([torch.float32, torch.float64]))
    net = ODENet(lambda n: Increment(Block(**options)), count, count, boundary_layers=(first, last))
    net = net.double().eval()
    net.load_layers(layers)
    x = torch.randn(3, width, dtype=torch.float64)
    close(net(x), in_turn(copy.deepcopy(layers).double(), x))
    target = drawn(len(layers), seed + 100, lambda: Block(**options)).to(layers[0].shift.dtype)
    net.to_layers(into=target)
    assert unchanged(target, tensors_of(layers))
