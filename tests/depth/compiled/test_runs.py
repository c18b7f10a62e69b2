"""Runs of layers, forward and backward, are those of autograd, each from a state of its own."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("numba")

from mgnet.depth import ODENet  # noqa: E402
from mgnet.depth.batched.tracing import trace_for_autograd  # noqa: E402
from mgnet.depth.compiled.graph_operations import code_of  # noqa: E402
from mgnet.depth.compiled.march import CompiledMarch, PackedLayers  # noqa: E402
from mgnet.depth.compiled.runs import LayerRuns, Runs  # noqa: E402


def made(seed, layers):
    """A net, and its layers as the loops have them."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    width, inner, batch = (int(n) for n in rng.integers(1, 9, 3))
    batch = batch + 1 if seed % 2 else 16 * batch + 3
    block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, inner), nn.SiLU())
    block.append(nn.Linear(inner, width))
    weights = "shared" if seed % 3 == 2 else "per layer"
    net = ODENet(block, layers, 2.0, weights=weights).double()
    tensors = [x.detach() for x in net.layers().tensors()]
    one = [*[x[0] for x in tensors], torch.randn(batch, width, dtype=torch.float64)]
    traced = trace_for_autograd(net.kernel.evaluate, one, len(net.kernel.names))
    march = CompiledMarch(code_of(traced, one[-1]), torch.float64)
    wanted = [True] * len(net.kernel.names) + [False, True]
    return net, PackedLayers(march, tensors, False, wanted), (batch, width)


def marched(net, tensors, first, count, state, rows=None):
    """The states after layers, one by one, by PyTorch."""
    found = []
    for n in range(first, first + count):
        one = [x[n] for x in tensors]
        slope, _ = net.kernel.evaluate(one[:-2], (), one[-2], one[-1], state)
        state = state + one[-1] * slope
        state = state if rows is None else state + rows[n - first]
        found.append(state)
    return found


def members(runs):
    """First layer and number of layers of each run."""
    for k in range(runs.count):
        yield runs.first + k * runs.step, runs.last if k == runs.count - 1 else runs.length


@pytest.mark.parametrize("seed", range(6))
def test_states_after_runs_and_after_every_layer(seed):
    layers, factor = [(7, 3), (8, 4), (5, 9), (6, 2), (9, 4), (1, 2)][seed]
    net, packed, shape = made(seed, layers)
    runs = Runs.of_intervals(layers, factor)
    starts = torch.randn(runs.count, *shape, dtype=torch.float64)
    rows = torch.randn(runs.count, runs.length, *shape, dtype=torch.float64)
    ends = LayerRuns(packed, runs, shape).forward(starts)
    every = LayerRuns(packed, runs, shape, ()).forward(starts, rows, every=True)
    for k, (first, count) in enumerate(members(runs)):
        expected = marched(net, packed.tensors, first, count, starts[k])[-1]
        torch.testing.assert_close(ends[k], expected, rtol=1e-12, atol=1e-12)
        states = marched(net, packed.tensors, first, count, starts[k], rows[k])
        torch.testing.assert_close(every[k, :count], torch.stack(states), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_adjoints_and_gradients_are_those_of_autograd(seed):
    layers, factor = [(7, 3), (8, 4), (5, 9), (6, 2), (9, 4), (1, 2)][seed]
    net, packed, shape = made(seed, layers)
    runs = Runs.of_intervals(layers, factor)
    starts = torch.randn(runs.count, *shape, dtype=torch.float64).requires_grad_()
    lams = torch.randn(runs.count, *shape, dtype=torch.float64)
    rows = torch.randn(layers, *shape, dtype=torch.float64)
    recorded = LayerRuns(packed, runs, shape, packed.march.prepared.wanted(packed.wanted), True)
    recorded.forward(starts)
    leaves = [x.clone().requires_grad_(g) for x, g in zip(packed.tensors, packed.wanted)]  # noqa: B905
    total = torch.zeros(())
    for k, (first, count) in enumerate(members(runs)):
        states = marched(net, leaves, first, count, starts[k])
        total = total + (states[-1] * lams[k]).sum()
        before = [starts[k], *states[:-1]]
        total = total + sum((rows[first + n] * before[n]).sum() for n in range(count))
    wanted = [starts, *[x for x in leaves if x.requires_grad]]
    expected = torch.autograd.grad(total, wanted)
    of_starts, found = recorded.gradients(lams, rows)
    found = [g for g, x in zip(found, leaves, strict=True) if x.requires_grad]
    for a, b in zip([of_starts, *found], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(recorded.backward(lams, rows=rows), expected[0])


@pytest.mark.parametrize("seed", range(4))
def test_single_layers_are_marched_through_and_parts_of_runs(seed):
    layers = 7
    net, packed, shape = made(seed, layers)
    points = torch.randn(layers, *shape, dtype=torch.float64)
    single = LayerRuns(packed, Runs.of_intervals(layers, 1), shape, (), True)
    single.forward(points)
    lam, rows = torch.randn(1, *shape, dtype=torch.float64), torch.randn_like(points)

    def back(n, lam):
        u = points[n].clone().requires_grad_()
        (found,) = torch.autograd.grad(marched(net, packed.tensors, n, 1, u)[0], u, lam)
        return found

    expected, now = [], lam[0]
    for n in reversed(range(layers)):
        now = back(n, now) + rows[n]
        expected.append(now)
    whole = Runs.of_intervals(layers, layers)
    found = single.backward(lam, whole, rows, every=True)
    torch.testing.assert_close(found, torch.stack(expected[::-1]), rtol=1e-11, atol=1e-11)
    # Every other layer by itself; and the second layers of runs that were recorded whole.
    lams = torch.randn(3, *shape, dtype=torch.float64)
    chosen = Runs.of_slice(slice(1, 7, 2), layers)
    expected = torch.stack([back(n, lams[k]) for k, n in enumerate((1, 3, 5))])
    torch.testing.assert_close(single.backward(lams, chosen), expected)
    recorded = LayerRuns(packed, Runs.of_intervals(layers, 3), shape, ())
    recorded.forward(lams)
    points[1:5:3] = recorded.states()[0:4:3]
    of_second = recorded.backward(lams[:2], Runs.of_slice(slice(1, 5, 3), layers))
    expected = torch.stack([back(n, lams[k]) for k, n in enumerate((1, 4))])
    torch.testing.assert_close(of_second, expected, rtol=1e-11, atol=1e-11)


def test_bits_depend_neither_on_threads_nor_on_the_other_runs():
    _, packed, _ = made(1, 8)
    shape, width = (300, packed.march.width), packed.march.width
    starts = torch.randn(4, *shape, dtype=torch.float64)
    kept, before, results = packed.march.prepared.wanted(packed.wanted), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            runs = LayerRuns(packed, Runs.of_intervals(8, 2), shape, kept)
            results.append([runs.forward(starts), *runs.gradients(starts, None)[1]])
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert (a is b is None) or torch.equal(a, b)
    alone = LayerRuns(packed, Runs(4, 2, 1, 2, 2), shape).forward(starts[2:3])
    assert width and torch.equal(alone[0], results[0][0][2])


def test_the_device_of_new_tensors_is_not_asked_for():
    net, packed, shape = made(0, 7)
    kept, runs = packed.march.prepared.wanted(packed.wanted), Runs.of_intervals(7, 3)
    starts = torch.randn(3, *shape, dtype=torch.float64)
    given, found = [packed.march, packed.tensors, False, packed.wanted], []
    for device in ("cpu", "meta"):
        with torch.device(device):
            recorded = LayerRuns(PackedLayers(*given), runs, shape, kept)
            ends = recorded.forward(starts)
            marched = packed.march.forward(packed.tensors, starts[0], record=True)
            found.append([ends, *recorded.gradients(starts, None)[1], *marched.adjoint(ends[0])[1]])
    for a, b in zip(*found, strict=True):
        assert (a is b is None) or torch.equal(a, b)


def test_numbers_that_wait_for_their_sign():
    _, packed, _ = made(1, 7)
    width = packed.march.width
    numbers = torch.randn(1, 1, width, dtype=torch.complex128).conj().imag
    assert numbers.is_neg()
    runs = LayerRuns(packed, Runs.of_intervals(7, 7), (1, width))
    assert torch.equal(runs.forward(numbers), runs.forward(numbers.resolve_neg()))
