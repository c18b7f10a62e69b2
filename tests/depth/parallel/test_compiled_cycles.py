"""Cycles in compiled loops are those of traced layers to rounding, and converge to the net."""

import math
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

pytest.importorskip("numba")

from mgnet.depth import (  # noqa: E402
    CyclesToTolerance,
    DepthSpline,
    FixedCycles,
    LayerParallel,
    ODENet,
    odeint,
)
from mgnet.depth.mgrit.c_layers import Intervals  # noqa: E402
from mgnet.depth.parallel import propagation  # noqa: E402
from mgnet.depth.parallel.compiled_cycles import inner_points, inner_runs  # noqa: E402

# layers, coarsening, levels, relaxation, coarse layers, weights
CASES = [
    (16, 4, 2, ("F",), "mean", "per layer"),
    (17, 4, 2, ("FCF",), "first", "shared"),
    (29, (3, 2), 3, ("F", "FCF"), "mean", "per layer"),
    (27, 3, 3, ("FCF",), "identity", "shared"),
    (14, (4, 3), 3, ("F", "F"), "fused", "per layer"),
    (31, (2, 5), 3, ("FCF", "FCFCF"), "first", DepthSpline(4)),
]


@pytest.fixture
def swept(monkeypatch):
    """Counts sweeps that the loops recorded."""
    found, run = [], propagation.CompiledForward.record

    def counted(self, level, states):
        found.append(level)
        return run(self, level, states)

    monkeypatch.setattr(propagation.CompiledForward, "record", counted)
    return found


def made(seed, layers, weights, scheme="euler"):
    torch.manual_seed(seed)
    block = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 5), nn.LayerNorm(5))
    options = {"learnable_steps": True} if weights == "per layer" else {}
    net = ODENet(block, layers, 2.0, scheme=scheme, weights=weights, **options).double()
    return net, torch.randn(3 + 9 * seed, 5, dtype=torch.float64).requires_grad_()


def passes(module, x):
    """Output, all gradients, and the work of a pass."""
    kernel = module.net.kernel
    before = kernel.evaluations, kernel.vjps
    y = module(x)
    found = torch.autograd.grad(y.square().sum(), [x, *module.parameters()])
    return [y, *found], (kernel.evaluations - before[0], kernel.vjps - before[1])


@pytest.mark.parametrize("seed", range(len(CASES)))
def test_results_and_work_are_those_of_traced_layers(seed, swept, monkeypatch):
    layers, coarsening, levels, relaxation, coarse, weights = CASES[seed]
    net, x = made(seed, layers, weights, ("euler", "heun")[seed % 2])
    control = FixedCycles(1, 2, tolerance=math.inf)
    options = {"relaxation": relaxation, "coarse": coarse, "control": control}
    parallel = LayerParallel(net, levels, coarsening, **options)
    found, work = passes(parallel, x)
    assert swept.count(0) == 1
    monkeypatch.setattr(propagation, "compiled_cycles", lambda *_: "not now")
    expected, expected_work = passes(LayerParallel(net, levels, coarsening, **options), x)
    assert swept.count(0) == 1 and work == expected_work
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("levels, coarsening", [(2, 4), (3, (3, 2))])
def test_cycles_converge_to_the_net_and_its_derivatives(levels, coarsening, swept):
    net, x = made(1, 13, "per layer")
    parallel = LayerParallel(net, levels, coarsening, control=CyclesToTolerance(1e-13))
    inputs, found = [x, *net.parameters()], []
    for module in (parallel, net):
        y = module(x)
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        found.append([y, *first, *torch.autograd.grad(sum(g.sin().sum() for g in first), inputs)])
    assert 0 in swept
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


class Pushed(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 3)

    def forward(self, u, push=None):
        return torch.tanh(self.line(u) + push)


def test_inputs_of_layers_that_differ_between_samples(swept):
    torch.manual_seed(0)
    net = ODENet(Pushed(), 11, layer_inputs=["push"]).double()
    x, push = torch.randn(4, 3).double(), torch.randn(11, 4, 3).double().requires_grad_()
    inputs, found = [push, *net.parameters()], []
    for module in (LayerParallel(net, 2, 4, control=CyclesToTolerance(1e-13)), net):
        y = module(x, push=push)
        found.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    assert 0 in swept
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_newton_and_unknown_blocks_go_their_own_way(swept):
    net, x = made(0, 8, "per layer")
    LayerParallel(net, 2, 4, forward="newton", backward="newton")(x).sum().backward()
    curve = ODENet(nn.Sequential(nn.Linear(5, 5), nn.Softmax(-1)), 8).double()
    LayerParallel(curve)(x).sum().backward()
    assert not swept


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("layers, factor", [(7, 3), (8, 3), (9, 3), (2, 5), (1, 2)])
def test_inner_runs_are_those_of_f_relaxation(layers, factor, reverse):
    parts = Intervals(layers, factor, reverse)
    runs = inner_runs(parts, reverse)
    found = []
    for k in range(runs.count):
        count = runs.last if k == runs.count - 1 else runs.length
        found += range(runs.first + k * runs.step, runs.first + k * runs.step + count)
    expected = [n for call in parts.f_steps for n in range(layers)[call.which]]
    assert sorted(found) == sorted(expected)
    points = [n for n in range(1, layers) if n % factor]
    assert [n for n in inner_points(parts, runs.count).ravel().tolist() if n < layers] == points


def drawn(seed):
    """A net of a random block, and how it is solved; how many cycles are enough."""
    draw, gate = random.Random(seed), nn.Sequential
    torch.manual_seed(seed)
    width, inner = draw.choice([1, 2, 9, 17, 33]), draw.randint(1, 40)
    last, way = nn.Linear(inner, width, bias=draw.random() < 0.5), draw.choice(["F", "V", "W"])
    curve = draw.choice([nn.Tanh(), nn.ReLU(), nn.GELU(), nn.SiLU(), nn.ELU(), nn.Softplus()])
    block = gate(nn.LayerNorm(width), nn.Linear(width, inner), curve, last)
    layers, factors = draw.randint(9, 60), [draw.randint(2, 9), draw.randint(2, 4)]
    weights = draw.choice(["per layer", "per layer", "shared", DepthSpline(4)])
    options = {"scheme": draw.choice(["euler", "euler", "heun"]), "weights": weights}
    options |= {"learnable_steps": weights == "per layer" and draw.random() < 0.5}
    net = ODENet(block, layers, 2.0, **options).double()
    few = draw.randint(1, 2)
    solved = {
        "levels": few + 1, "coarsening": factors[:few],
        "forward": draw.choice(["", "cascade + "]) + way,
        "backward": draw.choice(["", "cascade + "]) + way,
        "relaxation": [draw.choice(["F", "FCF"]) for _ in range(few)],
        "coarse": draw.choice(["mean", "mean", "first", "identity"]),
    }  # fmt: skip
    x = torch.randn(draw.choice([1, 2, 17, 40, 150]), width, dtype=torch.float64)
    return net, solved, x, -(-layers // factors[0]) + 1


def of_plain_loop(net, x):
    """The output, by PyTorch, layer after layer."""
    layers, kernel = net.layers(), net.kernel
    for n in range(net.depth):
        one, time, step = [p[n] for p in layers.parameters], layers.times[n], layers.steps[n]
        x = x + step * kernel.evaluate(one, (), time, step, x)[0]
    return x


@pytest.mark.parametrize("seed", range(5))
def test_drawn_nets_are_a_plain_loop_and_bits_belong_to_the_sample(seed, swept):
    net, solved, x, enough = drawn(seed)
    x, weight, found = x.requires_grad_(), torch.randn_like(x), []
    inputs, threads = [x, *net.parameters()], torch.get_num_threads()
    few = LayerParallel(net, control=FixedCycles(1, tolerance=math.inf), **solved)
    control = FixedCycles(enough, tolerance=math.inf)
    for module in (LayerParallel(net, control=control, **solved), lambda x: of_plain_loop(net, x)):
        y = module(x)
        found.append([y, *torch.autograd.grad(y, inputs, weight)])
    assert 0 in swept
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            y = few(x)
            found.append([y, *torch.autograd.grad(y, inputs, weight)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    part = slice(len(x) // 3, len(x) // 3 + 1 + len(x) // 2)
    alone = x.detach()[part].requires_grad_()
    y = few(alone)
    assert torch.equal(y, found[0][0][part])
    assert torch.equal(torch.autograd.grad(y, alone, weight[part])[0], found[0][1][part])


class Field(nn.Linear):
    def forward(self, t, u):
        return torch.tanh(super().forward(u)) * torch.cos(t)


@pytest.mark.parametrize("way", ["serial", "checkpoints", "mgrit", "every state"])
def test_threads_may_differentiate_one_graph_together(way):
    torch.manual_seed(0)
    x = torch.randn(64, 24, dtype=torch.float64).requires_grad_()
    if way == "every state":
        field, t = Field(24, 24).double(), torch.linspace(0.0, 1.0, 41).double()
        y, weight = odeint(field, x, t, method="euler", mode="mgrit"), field.weight
    else:
        net = ODENet(nn.Sequential(nn.Linear(24, 24), nn.Tanh()), 48).double()
        options = {"levels": 2} if way == "mgrit" else {"levels": 1}
        memory = "checkpoints" if way == "checkpoints" else "states"
        y, weight = LayerParallel(net, memory=memory, **options)(x), net.block[0].weight
    cotangents = [torch.randn_like(y) for _ in range(3)]

    def pulled(k):
        return torch.autograd.grad(y, [x, weight], cotangents[k % 3], retain_graph=True)

    expected = [pulled(k) for k in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for k, found in enumerate(pool.map(pulled, range(24))):
            assert all(torch.equal(a, b) for a, b in zip(found, expected[k % 3], strict=True))
