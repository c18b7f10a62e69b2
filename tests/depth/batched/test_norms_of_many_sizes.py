"""Blocks with norms, trained on batches of many sizes: a trace for all of them."""

import pytest
import torch
from torch import nn

from mgnet.depth import FixedCycles, LayerParallel, ODENet
from mgnet.depth.parallel import propagation


class Attention(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self):
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(
            4, 2, 8, dropout=0.0, batch_first=True, norm_first=True
        )

    def forward(self, u):
        return self.inner(u) - u


class Spread(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, u):
        return self.weight * u / (1 + u.var(0))


CASES = {
    "layer": (lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)), (5, 4)),
    "attention": (Attention, (3, 4)),
    "group": (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Tanh()), (4, 3, 2)),
    "groups without weights": (
        lambda: nn.Sequential(nn.Linear(3, 3), nn.GroupNorm(4, 4, affine=False)),
        (4, 3),
    ),
    "variance": (Spread, (4,)),
}


@pytest.mark.parametrize("name", CASES)
def test_norms_leave_the_batch_open(name, monkeypatch):
    monkeypatch.setattr(propagation, "compiled_cycles", lambda *_: "not now")  # which take no trace
    make, shape = CASES[name]
    torch.manual_seed(0)
    net = ODENet(make(), 8, final_time=1.0).double()
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn_like(p)
    parallel = LayerParallel(net, levels=2, coarsening=4, control=FixedCycles(2))
    plain, counts = net.to_sequential(), []
    of_layers = zip(*[list(layer.parameters()) for layer in plain], strict=True)
    weights = [x for same in of_layers for x in same]
    for size in (3, 2, 6, 4, 7):
        x = torch.randn(size, *shape, dtype=torch.float64, requires_grad=True)
        value, expected = parallel(x), plain(x)
        found = torch.autograd.grad(value.sum(), [x, *net.parameters()])  # strides of 0
        of_x, *rest = torch.autograd.grad(expected.sum(), [x, *weights])
        stacked = [torch.stack(rest[i : i + 8]) for i in range(0, len(rest), 8)]
        close = {"rtol": 1e-9, "atol": 1e-10}
        torch.testing.assert_close((value, *found), (expected, of_x, *stacked), **close)
        counts.append(len(net.kernel._traces))
    assert counts[2:] == [3] * 3
