"""Traced tapes and tapes of ordinary autograd are the same to those who use them."""

import pytest
import torch
from torch import nn
from torch.func import stack_module_state

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.tape import AutogradTape, SeparateTapes, TracedTape


def three(scheme, traced, norm=False):
    torch.manual_seed(0)
    parts = [nn.Linear(3, 3), nn.BatchNorm1d(3)] if norm else [nn.Linear(3, 3)]
    modules = [nn.Sequential(*parts, nn.Tanh()).double() for _ in range(3)]
    parameters, buffers = (tuple(x.values()) for x in stack_module_state(modules))
    layers = Layers(tuple(x.detach() for x in parameters), buffers, *torch.ones(2, 3).double())
    block = StackedBlock(modules[0], scheme, traced)
    states, lam = torch.randn(2, 3, 4, 3, dtype=torch.float64)
    return block, block.record(layers, states), lam


@pytest.mark.parametrize(("scheme", "norm"), [("rk4", False), ("heun", True)])
def test_both_kinds_agree(scheme, norm):
    (one, traced, lam), (two, plain, _) = (three(scheme, x, norm) for x in (True, False))
    assert isinstance(traced, TracedTape)
    assert isinstance(plain, SeparateTapes)
    for which in (slice(None), slice(1, None), slice(0, 3, 2), slice(0, 0)):
        x, y = traced[which], plain[which]
        torch.testing.assert_close(x.value, y.value)
        torch.testing.assert_close(x.new_buffers, y.new_buffers)
        torch.testing.assert_close(x.vjp(lam[which]), y.vjp(lam[which]))
        torch.testing.assert_close(x.vjp_all(lam[which]), y.vjp_all(lam[which]))
        assert (one.evaluations, one.vjps) == (two.evaluations, two.vjps)


def test_a_tape_is_pulled_as_often_as_needed():
    for traced in (True, False):
        _, tape, lam = three("euler", traced)
        assert torch.equal(tape.vjp(lam), tape.vjp(lam))
        torch.testing.assert_close(tape.vjp(2 * lam), 2 * tape.vjp(lam))
        one = tape[1:2]
        assert torch.equal(one[:].vjp(lam[1:2]), one.vjp(lam[1:2]))


@pytest.mark.parametrize(("scheme", "norm"), [("euler", False), ("heun", True)])
def test_single_layers_have_the_products_of_all(scheme, norm):
    """With the same bits where they are traced, and counted as often as there are layers."""
    for traced in (True, False):
        block, tape, lam = three(scheme, traced, norm)
        for _ in range(2):
            before, wanted = block.vjps, tape.vjp(lam)
            once = block.vjps - before
            parts = [vjp(one) for vjp, one in zip(tape.vjp_each(lam), lam.split(1), strict=True)]
            assert torch.equal(torch.cat(parts), wanted)
            assert block.vjps - before == 2 * once == 6 * block.stages


def test_an_autograd_tape_is_recorded_by_a_function_of_its_own():
    lam = torch.randn(1, 4, 3, dtype=torch.float64)
    layers = Layers((torch.ones(1, 3, 3).double(),), (), *torch.ones(2, 1).double())
    block = StackedBlock(nn.Linear(3, 3, bias=False), traced=False)
    tape = AutogradTape.record(block, layers, lam)
    torch.testing.assert_close(tape.value, lam @ torch.ones(3, 3).double())
    assert block.evaluations == 0  # `StackedBlock.record` counts
