"""One layer on its own trains its gate."""

import torch

from mgnet.depth.network.residual_block import ResidualBlock


def test_a_gate_is_trained():
    gate = torch.nn.Parameter(torch.tensor(0.5))
    layer = ResidualBlock(torch.nn.Identity(), gate)
    layer(torch.tensor([2.0])).sum().backward()
    assert gate.grad == 2.0
    assert "step=0.5" in str(layer)
