"""Law: the loops give the states and gradients of the layers as PyTorch evaluates them.

Blocks are drawn: chains of random operations, of random widths, with one or many states.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("numba")

from mgnet.depth import ODENet  # noqa: E402
from mgnet.depth.batched.tracing import trace_for_autograd  # noqa: E402
from mgnet.depth.compiled.graph_operations import code_of  # noqa: E402
from mgnet.depth.compiled.march import CompiledMarch  # noqa: E402

FUNCTIONS = (
    torch.tanh, torch.sigmoid, torch.relu, F.silu, F.gelu, F.softplus, F.elu, torch.sin, torch.cos,
    lambda x: F.leaky_relu(x, 0.2), lambda x: F.gelu(x, approximate="tanh"), lambda x: (-x).exp(),
)  # fmt: skip


class Drawn(nn.Module):
    """A block of random operations."""

    def __init__(self, width, seed):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        inner = self.draw(1, 20)
        self.width, self.first = width, nn.Linear(width, inner, bias=bool(self.draw(0, 2)))
        self.norm = nn.LayerNorm(inner, elementwise_affine=bool(self.draw(0, 2)))
        self.scale = nn.Parameter(0.5 + torch.rand(inner, generator=self.generator))
        self.number = nn.Parameter(torch.rand((), generator=self.generator))
        self.second, self.turned = nn.Linear(inner, width), nn.Parameter(torch.eye(inner))
        self.kinds = [self.draw(0, 6) for _ in range(4)]
        self.functions = [FUNCTIONS[self.draw(0, len(FUNCTIONS))] for _ in range(3)]
        self.cut = self.draw(0, width + 1)

    def draw(self, low, high):
        return int(torch.randint(low, high, (), generator=self.generator))

    def reset_parameters(self):
        nn.init.normal_(self.turned, std=0.3)
        nn.init.normal_(self.scale, 1.0, 0.3)
        nn.init.normal_(self.number)

    def forward(self, t, u):
        x = self.functions[0](self.first(u))
        for kind in self.kinds:
            if kind == 0:
                x = self.norm(x + 0.1 * self.number)
            elif kind == 1:
                x = x * self.scale + t
            elif kind == 2:
                x = self.functions[1](x) - 0.5 * x
            elif kind == 3:
                x = self.functions[2](x) * (1.5 - x)
            elif kind == 4:
                x = x @ (self.turned - self.turned.mT)
            else:
                x = x * x / 4.0 + self.number * x
        y = torch.tanh(self.second(x))
        return torch.cat([y[..., self.cut :], y[..., : self.cut]], -1) + 0.1 * u


def marched(net, u):
    kernel, layers = net.kernel, net.layers()
    one = [x[0].detach() for x in layers.tensors()]
    traced = trace_for_autograd(kernel.evaluate, [*one, u.detach()], len(kernel.names))
    return CompiledMarch(code_of(traced, u), u.dtype), layers


def gradients(net, layers, run, weight):
    """By the state and by the parameters of the net."""
    start, found = run.adjoint(weight)
    pairs = [
        (x, g)
        for x, g in zip(layers.tensors(), found, strict=True)
        if x.requires_grad and g is not None
    ]
    inner, outer = zip(*pairs, strict=True)
    rest = torch.autograd.grad(inner, list(net.parameters()), outer, allow_unused=True)
    return [start, *rest]


def close(found, wanted, dtype):
    tolerance = 1e-11 if dtype == torch.float64 else 1e-3
    largest = max(float(b.abs().max()) for b in wanted if b is not None)
    for a, b in zip(found, wanted, strict=True):
        if a is None or b is None:
            assert all(x is None or not x.any() for x in (a, b))
            continue
        scale = float(b.abs().max()) + 1e-3 * largest  # some are 0 but for rounding
        torch.testing.assert_close(a / scale, b / scale, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(24))
def test_drawn_blocks(seed, dtype):
    torch.manual_seed(seed)
    draw = lambda low, high: int(torch.randint(low, high, ()))  # noqa: E731
    width, layers = draw(1, 14), draw(1, 9)
    shape = (draw(1, 70), width) if draw(0, 2) else (draw(1, 9), draw(1, 6), width)
    options = {
        "scheme": ("euler", "heun", "rk4")[draw(0, 3)],
        "weights": ("per layer", "shared")[draw(0, 2)],
        "learnable_steps": bool(draw(0, 2)),
    }
    net = ODENet(Drawn(width, seed), layers, 1.0, **options).to(dtype)
    u = torch.randn(*shape, dtype=dtype, requires_grad=True)
    march, own = marched(net, u)
    tensors = [x.detach() for x in own.tensors()]
    y, weight = net(u), torch.randn(*shape, dtype=dtype)
    wanted = torch.autograd.grad((weight * y).sum(), [u, *net.parameters()], allow_unused=True)
    for record in (False, True):
        run = march.forward(tensors, u.detach(), record)
        close([run.last()], [y.detach()], dtype)
    for _ in range(2):  # the adjoint may be asked for again
        close(gradients(net, own, run, weight), wanted, dtype)


def simple(layers=9, batch=50):
    torch.manual_seed(0)
    net = ODENet(nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.LayerNorm(5)), layers)
    u = torch.randn(batch, 5)
    march, own = marched(net, u)
    return net, u, march, [x.detach() for x in own.tensors()]


def test_passes_that_overlap_do_not_meet():
    _, u, march, tensors = simple()
    first = march.forward(tensors, u, True)
    alone = first.adjoint(torch.ones_like(u))
    kept = [march.forward(tensors, k * u, True) for k in range(3)]
    again = first.adjoint(torch.ones_like(u))
    assert torch.equal(alone[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(alone[1][:2], again[1][:2], strict=True))
    del kept, first
    other = march.forward(tensors, u, True)  # in memory that was used before
    assert torch.equal(other.adjoint(torch.ones_like(u))[0], alone[0])


def test_bits_do_not_depend_on_threads_nor_on_the_other_layers():
    _, u, march, tensors = simple(batch=200)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            run = march.forward(tensors, u, True)
            start, rest = run.adjoint(torch.ones_like(u))
            found.append([run.last(), start, *[g for g in rest if g is not None]])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    half = march.forward([x[:4] for x in tensors], u, False).last()
    assert torch.equal(march.forward([x[4:] for x in tensors], half, False).last(), found[0][0])


def test_a_sample_does_not_meet_the_others():
    _, u, march, tensors = simple()
    wanted = march.forward(tensors, u, False).last()
    spoilt = u.clone()
    spoilt[1] = torch.nan
    found = march.forward(tensors, spoilt, False).last()
    rest = torch.arange(len(u)) != 1
    assert torch.equal(found[rest], wanted[rest]) and found[1].isnan().all()
    assert torch.equal(march.forward(tensors, u[:3], False).last(), wanted[:3])


def test_infinite_numbers_are_those_of_the_samples():
    _, u, march, tensors = simple()
    u[0], weight = torch.inf, torch.zeros_like(u)
    weight[3] = 1.0
    run = march.forward(tensors, u, True)
    start, _ = run.adjoint(weight)
    assert start[1:].isfinite().all() and bool((start[4:] == 0.0).all())
