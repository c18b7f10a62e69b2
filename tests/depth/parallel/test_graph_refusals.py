"""Law: what no graph can have is refused in one sentence, before anything runs."""

import pytest
import torch
from torch import nn

from mgnet.depth import (
    AdaptiveCycles,
    CyclesToTolerance,
    DepthSpline,
    LayerParallel,
    ODENet,
    capture_graph,
)
from mgnet.depth.mgrit.communicator import SerialCommunicator
from mgnet.depth.parallel.graph_refusals import check_capture, hooked, is_serial
from tests.depth.graph_recorder import use_graphs
from tests.depth.layer_cases import CASES, around, plain

X = torch.ones(5, 3)


def module(**options):
    return LayerParallel(around(plain(), 8), **options)


def with_hook(kind):
    parallel = module()
    getattr(parallel.net.before, kind)(lambda *told: None)
    return parallel


def spread():
    class Ranks:
        rank, ranks, batches = 0, 2, None

    parallel = module()
    parallel.communicator = Ranks()
    return parallel


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (spread, "spread over processes"),
        (lambda: module(mode="auto"), 'mode "auto"'),
        (lambda: module(control=CyclesToTolerance()), "CyclesToTolerance, which reads norms"),
        (lambda: module(control=AdaptiveCycles()), "AdaptiveCycles, which reads norms"),
        (lambda: module(warm_start=True), "warm_start=True"),
        (lambda: module(forward="newton"), "Newton's method"),
        (lambda: module(backward="cascade + newton(diagonal)"), "Newton's method"),
        (lambda: LayerParallel(around(plain(), 8, weights=DepthSpline(4))), "that are splines"),
        (lambda: with_hook("register_forward_hook"), r"hooks \('net\.before'\)"),
        (lambda: with_hook("register_forward_pre_hook"), r"hooks \('net\.before'\)"),
        (lambda: with_hook("register_full_backward_hook"), r"hooks \('net\.before'\)"),
    ],
)
def test_modules_that_no_graph_can_have(monkeypatch, make, words):
    graphs = use_graphs(monkeypatch)
    with pytest.raises(ValueError, match=f"capture_graph got .*{words}") as refused:
        capture_graph(make(), X)
    assert str(refused.value).count(". ") == 0 and not graphs


def test_inputs_that_no_graph_can_have(monkeypatch):
    with pytest.raises(ValueError, match="got an input on cpu; CUDA graphs need tensors on"):
        capture_graph(module(), X)
    with pytest.raises(TypeError, match=r"got \(ODENet, Tensor\); give a LayerParallel"):
        capture_graph(around(plain(), 8), X)
    with pytest.raises(TypeError, match=r"got \(LayerParallel, list\)"):
        capture_graph(module(), [[1.0]])
    use_graphs(monkeypatch)
    with pytest.raises(ValueError, match="an input on meta and weights on cpu"):
        capture_graph(module(), X.to("meta"))
    with pytest.raises(ValueError, match=r"side inputs that are not tensors \(scale\)"):
        capture_graph(CASES["side"](), X, scale=2.0)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="autocast"):
        capture_graph(module(), X)


def test_derived_modules_are_refused(monkeypatch):
    class Doubled(LayerParallel):
        def forward(self, x):
            return 2.0 * super().forward(x)

    use_graphs(monkeypatch)
    with pytest.raises(TypeError, match="capture_graph got a Doubled, which has its own forward"):
        capture_graph(Doubled(around(plain(), 8)), X)


def test_blocks_that_run_as_python_are_refused(monkeypatch):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, u):
            return self.linear(u) if u.sum().item() > 0 else u

    graphs = use_graphs(monkeypatch)
    parallel = LayerParallel(around(Branching(), 8))
    before = dict(vars(parallel))
    with (
        pytest.warns(UserWarning, match="cannot be traced"),
        pytest.raises(ValueError, match="a block Branching that cannot be traced"),
    ):
        capture_graph(parallel, X)
    assert not graphs and vars(parallel) == before


def test_serial_propagation_needs_no_control_or_mode_of_cycles(monkeypatch):
    use_graphs(monkeypatch)
    for options in ({"mode": "serial"}, {"levels": 1}, {"levels": 1, "mode": "auto"}):
        parallel = module(control=CyclesToTolerance(), warm_start=True, **options)
        assert is_serial(parallel)
        check_capture(parallel, X, {})
    given_up = module(control=AdaptiveCycles())
    given_up.control = None  # as it does where serial propagation is cheaper
    assert is_serial(given_up) and not is_serial(module())
    check_capture(given_up, X, {})
    assert isinstance(given_up.communicator, SerialCommunicator)


def test_hooks_of_all_modules_are_seen():
    parallel = LayerParallel(ODENet(plain(), 8))
    assert hooked(parallel) == []
    handle = nn.modules.module.register_module_forward_hook(lambda *told: None)
    try:
        assert hooked(parallel) == ["every module"]
    finally:
        handle.remove()
