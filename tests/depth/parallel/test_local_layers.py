"""Law: a network that keeps some layers has exactly their tensors, and refuses what needs all."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from mgnet.depth import DepthSpline, LayerParallel, ODENet
from mgnet.depth.mgrit.communicator import SerialCommunicator
from mgnet.depth.parallel.local_layers import (
    first_not_finite,
    keep_layers,
    layered_names,
    naming_divergence,
)


def net_of(**options):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    return ODENet(block, 7, 1.3, before=nn.Linear(2, 3), **options)


@pytest.mark.parametrize("learnable_steps", [False, True])
@pytest.mark.parametrize("which", [range(0, 7), range(2, 5), range(7, 7)])
def test_tensors_are_those_of_the_layers(which, learnable_steps):
    whole = net_of(learnable_steps=learnable_steps)
    part = copy.deepcopy(whole)
    keep_layers(part, which)
    for net in (whole, part):
        net.resample_dropout()
    for all_of_them, own in zip(whole.layers().tensors(), part.own_layers().tensors(), strict=True):
        assert torch.equal(all_of_them[which.start : which.stop], own)
    for name, tensor in part.state_dict().items():
        rows = len(which) if name in layered_names(part) else len(whole.state_dict()[name])
        assert tensor.dim() == 0 or len(tensor) == rows
    assert part.depth == 7
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in part.parameters())


def test_frozen_parameters_stay_so():
    net = net_of()
    net.block[0].weight.requires_grad_(False)
    keep_layers(net, range(2))
    assert [p.requires_grad for p in net.block.parameters()] == [False, True, True, True]


@pytest.mark.parametrize(
    "call",
    [
        lambda net: net(torch.ones(2, 2)),
        lambda net: net.trajectory(torch.ones(2, 2)),
        lambda net: net.regularization(1.0),
        lambda net: net.layer(0),
        lambda net: net.to_sequential(),
        lambda net: net.refine(),
        lambda net: net.coarsen(),
        lambda net: keep_layers(net, range(1)),
        lambda net: net.check_whole(),
    ],
)
@pytest.mark.parametrize(("which", "words"), [(range(2, 5), "2 to 4"), (range(0), "none")])
def test_what_needs_all_layers_is_refused(call, which, words):
    net = net_of()
    keep_layers(net, which)
    with pytest.raises(ValueError, match=f"holds .*{words}.* of 0 to 6 only; call"):
        call(net)


@pytest.mark.parametrize("weights", ["shared", DepthSpline(4)])
@pytest.mark.parametrize("which", [range(0, 3), range(2, 7), range(7, 7)])
def test_weights_of_all_layers_stay_whole(weights, which):
    whole = net_of(weights=weights, learnable_steps=True)
    part = copy.deepcopy(whole)
    keep_layers(part, which)
    assert layered_names(part) == {
        "learnable_steps",
        "block.1.running_mean",
        "block.1.running_var",
        "block.1.num_batches_tracked",
    }
    for all_of_them, own in zip(whole.block.parameters(), part.block.parameters(), strict=True):
        assert torch.equal(all_of_them, own)
    for net in (whole, part):
        net.resample_dropout()
    for all_of_them, own in zip(whole.layers().tensors(), part.own_layers().tensors(), strict=True):
        assert torch.equal(all_of_them[which.start : which.stop], own)


class Others(SerialCommunicator):
    """Stands for processes that this test does not have."""


def test_a_module_takes_whole_intervals_only():
    parallel = LayerParallel(net_of(), 2, 3)
    with pytest.raises(
        ValueError, match="1 to 3 here, which are not whole coarsest intervals of 3"
    ):
        parallel.take_part(range(1, 4), Others())
    for which in (range(3, 7), range(7, 7)):
        LayerParallel(net_of(), 2, 3).take_part(which, Others())


@pytest.mark.parametrize(("which", "expected"), [(range(7), 4), (range(3, 7), 4), (range(4), None)])
def test_the_first_layer_that_is_not_finite(which, expected):
    net: Any = net_of()
    net.block[0].weight.data[5, 0, 0] = torch.nan
    net.block[1].running_mean[4, 2] = torch.inf
    keep_layers(net, which)
    assert first_not_finite(net) == expected
    net.before.bias.data[0] = torch.nan
    assert first_not_finite(net) == (-1 if expected is None else expected)


def test_what_an_optimizer_keeps_is_looked_at():
    net = net_of()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.5)
    net.block[0].weight.sum().backward()
    optimizer.step()
    assert first_not_finite(net, optimizer) is None
    optimizer.state[net.block[0].weight]["momentum_buffer"][2, 1, 1] = torch.nan
    assert first_not_finite(net) is None and first_not_finite(net, optimizer) == 2


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_pass_that_diverges_says_where(direction):
    torch.manual_seed(0)
    net: Any = ODENet(nn.Linear(3, 3), 7, after=nn.Linear(3, 1))
    parallel, x = LayerParallel(net, 2, 2), torch.ones(2, 3)
    if direction == "forward":
        net.block.weight.data[5] = torch.inf
        reason = r"the forward pass .* in layers 0 to 6 \(step .*\); weights of layer 5 are not fin"
    else:
        reason = r"the backward pass .* in layers 0 to 6 \(step .*\); the weights are finite: check"
    with pytest.raises(FloatingPointError, match=reason):
        parallel(x).sum().mul(torch.nan).backward()
    net.after.bias.data[0] = torch.nan
    net.block.weight.data[5] = 0.0
    with pytest.raises(FloatingPointError, match="weights before, after or shared by"):
        with naming_divergence(net, "forward"):
            raise FloatingPointError("step 1")
