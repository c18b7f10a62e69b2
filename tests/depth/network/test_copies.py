"""Modules that torch does not copy are refused where they come in."""

import pytest
import torch
import torch.nn.utils.prune

from mgnet.depth import ODENet


def test_a_pruned_block_is_refused_in_one_sentence():
    """Torch makes the pruned weight of others, and does not copy such a tensor."""

    def pruned(n=0):
        return torch.nn.utils.prune.l1_unstructured(torch.nn.Linear(3, 3), "weight", 0.5)

    for call in (
        lambda: ODENet(pruned(), 2),
        lambda: ODENet(pruned, 2),
        lambda: ODENet.from_sequential(torch.nn.Sequential(pruned(), pruned())),
    ):
        with pytest.raises(ValueError, match=r"got a module that torch cannot copy.*prune\.remove"):
            call()
    block = torch.nn.utils.prune.remove(pruned(), "weight")
    assert ODENet(block, 2)(torch.rand(4, 3)).shape == (4, 3)
