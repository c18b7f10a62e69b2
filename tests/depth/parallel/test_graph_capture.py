"""Law: replays give what the module gives, of the weights and masks of now, and no Python runs.

`use_graphs` has recorders in place of CUDA graphs; tests at the end are for a GPU.
"""

import copy
import math

import pytest
import torch
from torch import nn

import tests.depth.graph_recorder as recorder
from mgnet.depth import FixedCycles, LayerParallel, ODENet, capture_graph
from mgnet.depth.parallel.graph_capture import GraphedLayers
from tests.depth.graph_recorder import Reads, use_device_thread, use_graphs
from tests.depth.layer_cases import CASES, around, inputs, passes, plain

pytestmark = pytest.mark.filterwarnings("ignore:LayerParallel continues training")


def captured(name, monkeypatch, generator):
    graphs = use_graphs(monkeypatch)
    torch.manual_seed(sum(map(ord, name)))
    parallel = CASES[name]()
    eager = copy.deepcopy(parallel)
    x, side = inputs(name, generator)
    return parallel, eager, capture_graph(parallel, x, **side), graphs


@pytest.mark.parametrize("name", CASES)
def test_replays_are_the_passes_of_the_module(monkeypatch, name):
    generator = torch.Generator().manual_seed(len(name))
    parallel, eager, graphed, graphs = captured(name, monkeypatch, generator)
    assert all(p.grad is None for p in parallel.parameters())
    for pair in zip(parallel.buffers(), eager.buffers(), strict=True):
        assert torch.equal(*pair)  # warming up leaves nothing behind
    for turn in range(1, 4):
        x, side = inputs(name, generator)
        # Tensors that are made on no device in particular would be on the host.
        with torch.device("meta" if turn > 1 else "cpu"), Reads() as reads:
            expected = passes(eager, eager, x, side)
        if turn > 1:  # the first call traces and sets up
            assert reads.found == ["cpu"] * (0 if "march" in name else 2)  # one for each pass
        with Reads() as reads:
            found = passes(parallel, graphed, x, side)
        assert reads.found == [] and [graph.replays for graph in graphs] == [turn, turn]
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(a, b, rtol=0.0, atol=0.0)
        for pair in zip(parallel.buffers(), eager.buffers(), strict=True):
            torch.testing.assert_close(*pair, rtol=0.0, atol=0.0)
        with torch.no_grad():  # as an optimizer does
            for net in (parallel, eager):
                for n, p in enumerate(net.parameters()):
                    p.mul_(0.9).add_(0.01 * n)
        reports = graphed.last_forward, graphed.last_backward
        assert reports == (eager.last_forward, eager.last_backward)


@pytest.mark.parametrize("name", ["two levels", "convolution", "march", "march from checkpoints"])
def test_a_capture_does_not_wait_for_its_own_backward_pass(monkeypatch, name):
    """That pass traces programs, on the thread that PyTorch has for a device."""
    use_device_thread(monkeypatch)
    generator = torch.Generator().manual_seed(len(name))
    _, eager, graphed, _ = captured(name, monkeypatch, generator)
    x, side = inputs(name, generator)
    found = passes(graphed.parallel, graphed, x, side)
    for a, b in zip(passes(eager, eager, x, side), found, strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=0.0)


def test_graphs_are_captured_on_a_stream_of_the_device_of_the_inputs(monkeypatch):
    """PyTorch's own stream for captures may be one of another device."""
    use_graphs(monkeypatch)
    kept = torch.cuda.graph.default_capture_stream
    capture_graph(LayerParallel(around(plain(), 8)), torch.randn(5, 3))
    assert torch.cuda.graph.default_capture_stream is kept
    log = recorder.Stream.log
    first, last = log.index(("device", "cpu")), log.index(("device", "before"))
    made = log[first + 1]
    captures = [n for n, what in enumerate(log) if what[0] == "capture"]
    assert made[0] == "made" and {log[n][1] for n in captures} == {made[1]}
    assert len(captures) == 2 and all(first < n < last for n in captures)


@pytest.fixture
def ready(monkeypatch):
    graphs = use_graphs(monkeypatch)
    torch.manual_seed(7)
    parallel = LayerParallel(around(plain(), 8))
    return parallel, capture_graph(parallel, torch.randn(5, 3)), graphs


def test_inputs_are_copied_into_memory_of_the_graph(ready):
    parallel, graphed, _ = ready
    x = torch.randn(5, 6)[:, ::2]  # strided
    kept = x.clone()
    first = graphed(x)
    assert torch.equal(first, parallel(x)) and torch.equal(x, kept)
    value = first.detach().clone()
    second = graphed(torch.randn(5, 3))
    assert torch.equal(first, value) and not torch.equal(second, value)


def test_gradients_that_are_kept_add_up(ready):
    """PyTorch's own graphed callables give the memory of the graph itself as the gradient."""
    parallel, graphed, _ = ready
    batches = torch.randn(3, 5, 3)
    for x in batches:
        graphed(x).square().sum().backward()
    found = [p.grad.clone() for p in parallel.parameters()]
    parallel.zero_grad()
    for x in batches:
        parallel(x).square().sum().backward()
    for p, gradient in zip(parallel.parameters(), found, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-6, atol=1e-7)


def test_weights_in_other_memory_are_read(ready):
    parallel, graphed, _ = ready
    x = torch.randn(5, 3)
    before = graphed(x)
    for p in parallel.parameters():
        p.data = 0.5 * p.data
    assert torch.equal(graphed(x), parallel(x)) and not torch.equal(graphed(x), before)


def test_without_gradients_the_forward_graph_alone_is_replayed(ready):
    parallel, graphed, graphs = ready
    with torch.no_grad():
        out = graphed(torch.randn(5, 3))
    assert not out.requires_grad and [graph.replays for graph in graphs] == [1, 0]


def test_the_module_itself_goes_on_beside_its_graphs(ready):
    parallel, graphed, _ = ready
    x = torch.randn(5, 3)
    out = graphed(x)
    parallel(torch.randn(9, 3)).sum().backward()  # another shape, in between
    parallel(x).sum().backward()
    assert torch.equal(graphed(x), out) and torch.equal(parallel(x), out)
    assert parallel._setups[parallel.method][1] is not graphed._held[parallel.method][1]


def test_a_backward_pass_whose_states_are_gone_is_refused(ready):
    parallel, graphed, graphs = ready
    first, second = graphed(torch.randn(5, 3)), graphed(torch.randn(5, 3))
    with pytest.raises(RuntimeError, match="a call before its last one"):
        first.sum().backward()
    assert graphs[1].replays == 0
    second.sum().backward(retain_graph=True)
    second.sum().backward()  # the same one again
    out = graphed(torch.randn(5, 3))
    with torch.no_grad():
        parallel.net.block[0].weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    x = torch.randn(5, 3)
    out = capture_graph(parallel, x.requires_grad_())(x)
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_state_that_is_not_finite_becomes_nan(monkeypatch, value):
    use_graphs(monkeypatch)
    parallel = LayerParallel(ODENet(plain(), 8), control=FixedCycles(1))
    x = torch.randn(5, 4)
    graphed = capture_graph(parallel, x.clone().requires_grad_())
    spoiled = x.clone()
    spoiled[2, 3] = value
    assert graphed(spoiled).isnan().all()
    assert not math.isfinite(graphed.last_forward.estimate)  # a report tells, and raises nothing
    out = graphed(x.requires_grad_())
    assert out.isfinite().all()
    gradient = torch.zeros_like(out)
    gradient[1, 1] = value
    (found,) = torch.autograd.grad(out, x, gradient)
    assert found.isnan().all()


def test_masks_are_those_of_the_calls(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    parallel, eager, graphed, _ = captured("dropout", monkeypatch, generator)
    x = torch.randn(5, 3, generator=generator)
    outs = [graphed(x) for _ in range(3)]
    assert not torch.equal(outs[0], outs[1]) and not torch.equal(outs[1], outs[2])
    assert all(torch.equal(out, eager(x)) for out in outs)
    assert parallel.net.calls == eager.net.calls == 3
    evaluated = capture_graph(parallel.eval(), x)
    assert torch.equal(evaluated(x), evaluated(x))


def changed(what, parallel):
    net = parallel.net
    if what == "the mode of a part":
        net.eval()
    elif what == "the settings or the control":
        parallel.control = FixedCycles(3)
    elif what == "a value that the block reads":
        net.block[1].negative_slope = 0.3
    elif what == "the place or the kind of a buffer":
        net.block[2].running_mean = net.block[2].running_mean.clone()
    elif what == "the names of weights":
        net.after.register_parameter("more", nn.Parameter(torch.ones(1)))
    elif what == "the hooks of a part":
        net.before.register_forward_hook(lambda *told: None)


@pytest.mark.parametrize(
    "what",
    [
        "the mode of a part",
        "the settings or the control",
        "a value that the block reads",
        "the place or the kind of a buffer",
        "the names of weights",
        "the hooks of a part",
    ],
)
def test_what_a_graph_would_not_follow_is_refused(monkeypatch, what):
    use_graphs(monkeypatch)
    block = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(), nn.BatchNorm1d(4))
    parallel = LayerParallel(around(block, 8))
    x = torch.randn(5, 3)
    graphed = capture_graph(parallel, x)
    graphed(x)
    changed(what, parallel)
    with pytest.raises(RuntimeError, match=f"captured before {what}.*capture_graph again"):
        graphed(x)


def test_a_validation_between_two_replays(monkeypatch):
    """As the page says: by the module itself, in eval mode and for another number of samples."""
    use_graphs(monkeypatch)
    block = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.BatchNorm1d(4))
    parallel = LayerParallel(around(block, 8))
    graphed = capture_graph(parallel, torch.randn(5, 3))
    graphed(torch.randn(5, 3)).sum().backward()
    with torch.no_grad():
        assert parallel.eval()(torch.randn(7, 3)).isfinite().all()
    parallel.train()
    graphed(torch.randn(5, 3)).sum().backward()


def test_weights_in_sixteen_bits_are_captured(monkeypatch):
    use_graphs(monkeypatch)
    parallel = LayerParallel(around(plain(), 8)).bfloat16()
    x = torch.randn(5, 3, dtype=torch.bfloat16)
    assert torch.equal(capture_graph(parallel, x)(x), parallel(x))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.ones(4, 3), r"got x as torch.float32 of shape \(4, 3\) on cpu, but was captured"),
        (torch.ones(5, 3).double(), r"torch.float64 of shape \(5, 3\)"),
        (torch.ones(5, 3, device="meta"), "on meta"),
        (torch.ones(5, 3).requires_grad_(), "got x with requires_grad"),
    ],
)
def test_other_inputs_are_refused(ready, x, words):
    with pytest.raises(ValueError, match=words):
        ready[1](x)


def test_other_calls_are_refused(monkeypatch, ready):
    parallel, graphed, _ = ready
    x = torch.randn(5, 3)
    with pytest.raises(ValueError, match=r"side inputs \['scale'\], but was captured with \[\]"):
        graphed(x, scale=x)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="under autocast"):
        graphed(x)
    with pytest.raises(RuntimeError, match=r"under torch\.func"):
        torch.func.vmap(graphed)(x[None])
    parallel.net.after.weight.requires_grad_(False)
    graphed(x).sum().backward()
    assert parallel.net.after.weight.grad is None
    frozen = capture_graph(parallel, x)
    parallel.net.after.weight.requires_grad_()
    with pytest.raises(ValueError, match=r"net\.after\.weight with requires_grad"):
        frozen(x)


def test_large_states_march_in_a_graph(monkeypatch):
    """Eagerly they take PyTorch's modules layer by layer, with more kernels."""
    graphs = use_graphs(monkeypatch)
    parallel = LayerParallel(ODENet(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), 6), mode="serial")
    x = torch.randn(10_000, 2)
    graphed = capture_graph(parallel, x)
    torch.testing.assert_close(graphed(x), parallel(x))
    names = [func.overloadpacket.__name__ for func, *_ in graphs[0].operations]
    assert names.count("baddbmm") == 6 and len(names) < 6 * 5


def test_the_recorder_refuses_what_a_capture_does():
    with pytest.raises(RuntimeError, match="not permitted"), recorder.Graph():
        torch.ones(1).item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name):
    generator = torch.Generator().manual_seed(len(name))
    parallel = CASES[name]().double().cuda()
    eager = copy.deepcopy(parallel)

    def drawn():
        x, side = inputs(name, generator)
        found = [t.detach().double().cuda().requires_grad_() for t in (x, *side.values())]
        return found[0], dict(zip(side, found[1:], strict=True))

    x, side = drawn()
    graphed = capture_graph(parallel, x, **side)
    assert isinstance(graphed, GraphedLayers)
    for _ in range(3):
        x, side = drawn()
        expected = passes(eager, eager, x, side)
        found = passes(parallel, graphed, x, side)
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
