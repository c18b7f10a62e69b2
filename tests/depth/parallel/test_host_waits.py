"""Law: on a device no cycle makes the host wait; a pass does so once, at its end, and finds NaN.

Tensors of the CPU stand for those of a device: `use_device` has them take its way.
"""

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, FixedCycles, LayerParallel, ODENet
from mgnet.depth.parallel.history import History
from tests.depth.graph_recorder import OnHost, Reads, on_no_device, use_device
from tests.depth.layer_cases import CASES, around, inputs, passes, plain

pytestmark = pytest.mark.filterwarnings("ignore:LayerParallel continues training")


# All others are counted where they are captured, in `test_graph_capture.py`.
@pytest.mark.parametrize(
    "name", ["three levels", "coarse fused", "convolution", "statistics", "march"]
)
def test_a_pass_is_read_once_at_its_end_and_no_cycle(monkeypatch, name):
    use_device(monkeypatch)
    torch.manual_seed(sum(map(ord, name)))
    generator = torch.Generator().manual_seed(len(name))
    parallel = CASES[name]()
    passes(parallel, parallel, *inputs(name, generator))  # traces and sets up
    x, side = inputs(name, generator)
    on_no_device(monkeypatch)
    serial = parallel.settings["mode"] == "serial"
    with torch.device("meta"), Reads() as forward:
        out = parallel(x, **side)
    with torch.device("meta"), Reads() as backward:
        out.square().sum().backward()
    # The gather of a report is the read; without cycles or their opening there is none.
    expected = [] if serial else ["cpu"]
    assert (forward.found, backward.found) == (expected, expected)


def test_the_count_sees_what_is_planted(monkeypatch):
    use_device(monkeypatch)
    parallel = LayerParallel(around(plain(), 8))
    parallel(torch.ones(5, 3)).sum().backward()
    add_change = History.add_change

    def reading(self, before, after):
        float(after.sum())
        after.tolist()
        add_change(self, before, after)

    monkeypatch.setattr(History, "add_change", reading)
    with Reads() as reads:
        parallel(torch.ones(5, 3)).sum().backward()
    assert reads.found == ["_local_scalar_dense", "tolist", "cpu"] * 2
    with Reads() as reads:
        x = torch.ones(2).cpu()
        assert isinstance(x, OnHost) and x.tolist() == [1.0, 1.0] and float(x.sum()) == 2.0
        torch.tensor([1.0])
        assert bool(torch.ones(1) > 0) and torch.equal(torch.ones(1), torch.ones(1))
        torch.ones(3).nonzero()
    assert reads.found == ["cpu", "tensor", "_local_scalar_dense", "equal", "nonzero"]


def test_results_are_those_of_the_host(monkeypatch):
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(4)
    parallel = CASES["three levels"]()
    x, _ = inputs("", generator)
    from mgnet import kernels

    monkeypatch.setattr(kernels, "available", False)
    expected = passes(parallel, parallel, x, {})
    reports = parallel.last_forward, parallel.last_backward
    use_device(monkeypatch)
    found = passes(parallel, parallel, x, {})
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert (parallel.last_forward, parallel.last_backward) == reports


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("control", [FixedCycles(2), CyclesToTolerance(1e-6)])
def test_a_state_that_is_not_finite_is_found_at_the_end(monkeypatch, value, control):
    use_device(monkeypatch)
    parallel = LayerParallel(ODENet(plain(), 16), control=control)
    x = torch.randn(5, 4)
    x[3, 1] = value
    with pytest.raises(FloatingPointError, match="forward pass .* not finite .* the weights are"):
        parallel(x)
    parallel.net.block[0].weight.data[9] = value
    with pytest.raises(FloatingPointError, match="weights of layer 9 are not finite"):
        parallel(torch.randn(5, 4))


def test_an_adjoint_that_is_not_finite_is_found_at_the_end(monkeypatch):
    use_device(monkeypatch)
    parallel = LayerParallel(ODENet(plain(), 16))
    out = parallel(torch.randn(5, 4))
    gradient = torch.zeros_like(out)
    gradient[2, 0] = torch.inf
    with pytest.raises(FloatingPointError, match="the backward pass meets a state"):
        out.backward(gradient)


def test_a_state_that_was_not_finite_for_a_while_is_found(monkeypatch):
    """Cycles make points exact one after another, so the last ones may be finite again."""
    use_device(monkeypatch)
    history = History(LayerParallel(ODENet(plain(), 4)).communicator, False, torch.float32)
    points = torch.ones(3, 2, 4)
    history.look(points)
    spoiled = points.clone()
    spoiled[1, 0, 2] = torch.nan
    history.look(spoiled)
    history.look(points)
    assert history.spoiled(points).isnan().all()
    with pytest.raises(FloatingPointError, match="not finite"):
        history.summarize()
    large = torch.full((3, 2, 4), 1e200, dtype=torch.float64)  # whose square overflows
    history = History(history.communicator, True, torch.float64)
    history.look(large)
    assert torch.equal(history.spoiled(large), large)
    assert history.summarize().cycles == 0


class Masked(nn.Module):
    """Python, which no trace has; `edits` its mask as batch norm does, without being counted."""

    def __init__(self, edits):
        super().__init__()
        self.linear, self.edits = nn.Linear(4, 4), edits
        self.register_buffer("mask", torch.ones(4))

    def forward(self, u):
        if self.edits:
            nn.functional.batch_norm(u, torch.zeros(4), self.mask, training=True)
        return torch.tanh(self.linear(u)) * self.mask


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
@pytest.mark.parametrize("edits", [False, True])
def test_buffers_of_all_layers_are_looked_at_once(monkeypatch, edits, mode):
    use_device(monkeypatch)
    net = ODENet(Masked(edits), 8, shared_buffers=["mask"])
    net.kernel.traced = False
    parallel, x = LayerParallel(net, mode=mode), torch.randn(5, 4)
    if edits:
        with pytest.raises(ValueError, match="Masked changes its buffer mask"):
            parallel(x)
        return
    parallel(x).sum().backward()
    with Reads() as reads:
        parallel(x).sum().backward()
    counts = {"mgrit": ["cpu", "tolist"] * 2, "serial": ["tolist"]}
    assert reads.found == counts[mode]


def test_serial_propagation_of_an_ode_net_reads_nothing(monkeypatch):
    net = around(nn.Sequential(plain()), 6)
    x = torch.randn(5, 3)
    expected = net(x)
    use_device(monkeypatch)
    with Reads() as reads:
        out = net(x)
        out.sum().backward()
    assert reads.found == []
    torch.testing.assert_close(out, expected)
