"""Laws of the border between module and call: what is asked, what is reported, in which order."""

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, LayerParallel, ODENet
from mgnet.depth.parallel.control import CycleLimit
from mgnet.depth.parallel.method import MGRITMethod
from mgnet.depth.parallel.propagation import Propagation
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached
from mgnet.depth.parallel.solve import ModuleCall, WarmStarts, solve

BUDGETS = {"forward": CycleLimit(2), "backward": CycleLimit(3)}


def call_of(net, told, **options):
    method = MGRITMethod.from_texts((4,), "cascade + V", "cascade + V", ("F", "FCF"))
    propagation = Propagation(PropagationSetup.of(net.kernel, detached(net.layers()), method))
    given = {"record": True, "update": False, "report": lambda *pair: told.append(pair)}
    return ModuleCall(net, propagation, BUDGETS, **given | options)


def net_of(block=None):
    torch.manual_seed(0)
    return ODENet(block or nn.Sequential(nn.Linear(3, 3), nn.Tanh()), 13, 2.0).double()


def solved(net, call, x):
    layers = net.layers()
    return solve(call, x, layers.steps, layers.parameters)


def test_each_pass_reports_once_and_takes_its_own_budget():
    net, told, x = net_of(), [], torch.ones(2, 3, dtype=torch.float64)
    out = solved(net, call_of(net, told), x)
    assert [(name, made.cycles) for name, made in told] == [("forward", 2)]
    out.sum().backward()
    assert [(name, made.cycles) for name, made in told] == [("forward", 2), ("backward", 3)]


def test_without_a_record_there_are_no_tapes():
    net, told, x = net_of(), [], torch.ones(2, 3, dtype=torch.float64)
    call = call_of(net, told, record=False)
    with torch.no_grad():
        solved(net, call, x)
    assert call.propagation.tapes == [] and len(told) == 1


@pytest.mark.parametrize("update", [False, True])
def test_buffers_are_updated_where_it_is_asked(update):
    net, x = net_of(nn.BatchNorm1d(3)), torch.randn(4, 3, dtype=torch.float64)
    before = net.block.running_mean.clone()
    solved(net, call_of(net, [], update=update), x)
    assert torch.equal(net.block.running_mean, before) != update


def test_warm_starts_are_of_one_direction_shape_and_precision():
    starts = WarmStarts()
    net, x = net_of(), torch.ones(2, 3, dtype=torch.float64)
    solved(net, call_of(net, [], starts=starts), x).sum().backward()
    assert set(starts.kept) == {"forward", "backward"}
    assert starts.guess("forward", x) is starts.kept["forward"]
    assert starts.guess("forward", torch.ones(1, 3)) is None
    assert starts.guess("backward", x.float()) is None
    assert starts.guess("sideways", x) is None


class Louder(nn.Linear):
    """As many tensors in training as in evaluation."""

    def forward(self, u):
        return super().forward(u).tanh() * (2.0 if self.training else 1.0)


class Drops(nn.Linear):
    def forward(self, u):
        return nn.functional.dropout(super().forward(u).tanh(), 0.4, self.training)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("mode", ["mgrit", "serial"])
@pytest.mark.parametrize(
    "block",
    [Louder(3, 3), Drops(3, 3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh())],
)
def test_a_backward_pass_keeps_the_mode_of_its_forward_pass(block, mode, known):
    found = []
    for change in (False, True):
        torch.manual_seed(0)
        parallel = LayerParallel(net_of(block), mode=mode, control=CyclesToTolerance(1e-12))
        x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
        if known:
            parallel.eval()(x).sum().backward()
        parallel.zero_grad()
        out = parallel.train()(x)
        parallel.train(not change)
        parameters = list(parallel.parameters())
        found.append(torch.autograd.grad(out.square().sum(), [x, *parameters]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
