"""Law: cycles end at the gradient of autograd on any number of levels, for blocks with norms.

Parts of a recorded level lie in memory every so many layers; PyTorch's backward passes of norms
read the mean and the deviation that they kept as if these were contiguous.
"""

import pytest
import torch
from torch import nn

from mgnet.depth import FixedCycles, LayerParallel, ODENet
from mgnet.depth.mgrit.coarse_kinds import COARSE

WIDTH = 6
NORMS = {
    "layer": lambda: nn.LayerNorm(WIDTH),
    "layer, plain": lambda: nn.LayerNorm(WIDTH, elementwise_affine=False),
    "group": lambda: nn.GroupNorm(2, WIDTH),
    "batch": lambda: nn.BatchNorm1d(WIDTH),
    "batch, of a batch": lambda: nn.BatchNorm1d(WIDTH, track_running_stats=False),
    "root mean square": lambda: nn.RMSNorm(WIDTH),
    "attention": lambda: nn.TransformerEncoderLayer(WIDTH, 2, 8, 0.0, batch_first=True),
}


@pytest.mark.parametrize(("levels", "coarse"), [(2, "mean"), *((4, each) for each in COARSE)])
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_are_those_of_autograd(norm, levels, coarse):
    torch.manual_seed(levels)
    scales = torch.logspace(-1.0, 1.0, 5)[:, None]  # rows whose deviations differ
    x = scales * torch.randn(5, WIDTH)
    if norm == "attention":
        x = x.expand(3, 5, WIDTH) * torch.rand(3, 1, 1)
    net = ODENet(lambda n: nn.Sequential(nn.Linear(WIDTH, WIDTH), NORMS[norm]()), 16).double()
    parallel = LayerParallel(
        net, levels, 2, control=FixedCycles(16, tolerance=9.0), coarse=coarse
    ).train()
    parameters, x = list(net.parameters()), x.double()
    found = torch.autograd.grad(parallel(x).square().sum(), parameters)
    wanted = torch.autograd.grad(net(x).square().sum(), parameters)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
