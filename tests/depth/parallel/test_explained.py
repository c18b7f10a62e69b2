"""The sentence is about the mode, and about the loops that a call takes."""

import pytest
import torch
from torch import nn

pytest.importorskip("numba")

from mgnet.depth import LayerParallel, ODENet  # noqa: E402
from mgnet.depth.parallel import serial  # noqa: E402

COMPILED = "in a compiled loop."
NOT = "without compiled loops: Softmax is not among the supported modules."
MODES = {
    "serial": "Serial propagation, ",
    "mgrit": "Cycles over the layers, {}; serial propagation would be ",
    "auto": "Cycles, {}, or serial propagation, if it is faster; the latter is ",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("known", [True, False])
def test_what_is_told_is_what_is_done(mode, known, monkeypatch):
    curve = nn.Tanh() if known else nn.Softmax(-1)
    net = ODENet(nn.Sequential(nn.Linear(3, 3), curve), 8)
    parallel, x, taken = LayerParallel(net, mode=mode), torch.randn(5, 3), []
    loops = "in compiled loops" if known else "without compiled loops"
    assert parallel.explain(x) == MODES[mode].format(loops) + (COMPILED if known else NOT)
    run = serial.march_compiled
    monkeypatch.setattr(serial, "march_compiled", lambda *x: taken.append(x) or run(*x))
    LayerParallel(net, mode="serial")(x)
    assert len(taken) == known


def test_cycles_say_why_they_alone_are_not_compiled():
    told = LayerParallel(ODENet(nn.Linear(3, 3), 8), forward="newton").explain(torch.randn(5, 3))
    assert told.startswith("Cycles over the layers, without compiled loops: Newton's method needs")
    assert told.endswith(COMPILED)


def test_one_level_is_serial_and_the_batch_counts():
    net = ODENet(nn.Linear(3, 3), 8)
    parallel = LayerParallel(net, levels=1)
    assert parallel.explain(torch.randn(5, 3)) == "Serial propagation, " + COMPILED
    told = parallel.explain(torch.randn(0, 3))
    assert "without compiled loops: states are torch.float32 of shape (0, 3)" in told


@pytest.mark.parametrize("mode", MODES)
def test_to_explain_changes_nothing(mode):
    before = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout())
    net = ODENet(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Dropout()), 8, before=before)
    parallel, x = LayerParallel(net, mode=mode), torch.randn(5, 2)
    state = {name: value.clone() for name, value in parallel.state_dict().items()}
    drawn = torch.get_rng_state()
    parallel.explain(x)
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, value in parallel.state_dict().items():
        assert torch.equal(value, state[name]), name
