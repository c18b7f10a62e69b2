"""The compiled loop over time is that of PyTorch, with gradients, and their derivatives."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

pytest.importorskip("numba")

from mgnet.depth import TimeParallel  # noqa: E402
from mgnet.depth.recurrent import time_parallel  # noqa: E402
from mgnet.depth.recurrent.compiled_cells import MOST, marches  # noqa: E402
from mgnet.depth.recurrent.recurrence import recurrence_of  # noqa: E402


@pytest.fixture
def taken(monkeypatch):
    calls, run = [], time_parallel.march_states

    def counted(*given):
        calls.append(given)
        return run(*given)

    monkeypatch.setattr(time_parallel, "march_states", counted)
    return calls


def data(T, batch, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(T, batch, width, dtype=torch.float64, generator=generator)
    return x.requires_grad_()


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": True}],
    ids=str,
)
@pytest.mark.parametrize("T, batch", [(1, 1), (40, 3), (301, 20)])
def test_output_states_and_all_gradients(kind, options, T, batch, taken):
    torch.manual_seed(1)
    module = kind(3, 5, **options).double()
    ours, x, found = TimeParallel(module, mode="serial"), data(T, batch, 3), []
    layers = module.num_layers * (1 + module.bidirectional)
    parts = [torch.randn(layers, batch, 5, dtype=torch.float64) for _ in range(2)]
    parts = [p.requires_grad_() for p in parts[: 1 + (kind is nn.LSTM)]]
    h0 = tuple(parts) if kind is nn.LSTM else parts[0]
    for run in (ours, module):
        y, last = run(x, h0)
        last = torch.cat(last) if kind is nn.LSTM else last
        loss = y.square().sum() + last.sin().sum()
        found.append([y, last, *torch.autograd.grad(loss, [x, *parts, *module.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    assert len(taken) == layers


@pytest.mark.parametrize("cell", [nn.GRUCell, nn.LSTMCell])
def test_derivatives_of_gradients(cell, taken):
    torch.manual_seed(0)
    cell = cell(2, 3).double()
    ours = TimeParallel(cell, mode="serial")
    module, x, found = ours.to_module(), data(7, 4, 2), []
    for run, weights in ((ours, [*cell.parameters()]), (module, [*module.parameters()])):
        inputs = [x, *weights]
        first = torch.autograd.grad(run(x)[0].square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        found.append([*first, *second])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert len(taken) == 1


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_packed_sequences(kind, taken):
    torch.manual_seed(0)
    module = kind(2, 4, bidirectional=True).double()
    ours, found = TimeParallel(module, mode="serial"), []
    sequences = [data(T, 1, 2, T)[:, 0].detach() for T in (9, 4, 7)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    for run in (ours, module):
        y, last = run(packed)
        last = torch.cat(last) if kind is nn.LSTM else last
        loss = y.data.square().sum() + last.sum()
        found.append([y.data, last, *torch.autograd.grad(loss, [*module.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    assert len(taken) == 2


def test_single_precision(taken):
    torch.manual_seed(0)
    gru, x = nn.GRU(3, 8), torch.randn(500, 6, 3)
    ours = TimeParallel(gru, mode="serial")
    torch.testing.assert_close(ours(x)[0], gru(x)[0], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], gru(x)[0], rtol=1e-4, atol=1e-5)
    assert len(taken) == 2


def test_what_it_does_not_take(taken):
    recurrence = recurrence_of(nn.GRUCell(2, 4), None, (4,))
    x = torch.zeros(5, 3, 2)
    assert marches(recurrence, x, 3)
    assert not marches(recurrence, x.double(), 3) and not marches(recurrence, x[:, :0], 0)
    assert not marches(recurrence, x, MOST // 4 + 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert not marches(recurrence, x, 3)
    wide = TimeParallel(nn.GRUCell(2, 4), mode="serial")
    wide(torch.zeros(5, MOST // 4 + 1, 2))
    assert not taken
    hooked = nn.GRUCell(2, 4)
    hooked.register_forward_hook(lambda module, given, out: 2.0 * out)
    found = TimeParallel(hooked, mode="serial")(x + 1.0)[0]
    torch.testing.assert_close(found[0], hooked(x[0] + 1.0))
    assert not taken


@pytest.mark.parametrize("mode", ["serial", "auto"])
def test_a_coarse_step_of_the_user_is_not_asked_for(mode, taken):
    torch.manual_seed(0)
    cell, x = nn.GRUCell(2, 3).double(), data(40, 2, 2)
    ours = TimeParallel(cell, mode=mode, coarse=lambda x, h, k: cell(x, h))
    torch.testing.assert_close(ours(x)[0], ours.to_module()(x)[0], rtol=1e-5, atol=1e-6)
    assert taken
