"""Laws of fused layers: sums of slopes at one state, the same in any call; exact transposes."""

import pytest
import torch
from torch import nn

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.parallel.fused_layers import FusedLayers


def made(count, stride, scheme="euler", traced=True):
    torch.manual_seed(count)
    blocks = [nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double() for _ in range(count)]
    stacked = [torch.stack(each) for each in zip(*[b.parameters() for b in blocks], strict=True)]
    stacked = tuple(p.detach() for p in stacked)
    steps = torch.rand(count, dtype=torch.float64) - 0.3  # some are negative
    fine = Layers(stacked, (), torch.arange(count).double(), steps)
    fused = FusedLayers(StackedBlock(blocks[0], scheme, traced), fine, stride)
    return fused, blocks, torch.randn(len(fused), 2, 3, dtype=torch.float64)


@pytest.mark.parametrize(("count", "stride"), [(8, 4), (9, 4), (3, 5), (12, 1), (7, 2)])
@pytest.mark.parametrize("traced", [True, False])
def test_a_slope_is_the_sum_of_those_it_stands_for(count, stride, traced):
    fused, blocks, states = made(count, stride, traced=traced)
    with torch.no_grad():
        wanted = torch.stack(
            [
                sum(fused.fine.steps[i] * blocks[i](state) for i in range(first, last))
                for state, first in zip(states, range(0, count, stride), strict=True)
                for last in [min(first + stride, count)]
            ]
        )
    found = fused.bound_slope(slice(0, len(fused)), states)(states)
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(fused.record(states).value, wanted, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("count", "stride"), [(24, 3), (23, 4), (13, 2)])
def test_bits_do_not_depend_on_which_layers_are_taken_together(count, stride):
    fused, _, states = made(count, stride)
    whole, tape = fused.bound_slope(slice(0, len(fused)), states)(states), fused.record(states)
    lam = torch.randn_like(states)
    product, each = tape.vjp(lam), tape.vjp_each(lam[:1])
    for start in range(3):
        for step in (1, 2, 3):
            which = slice(start, len(fused), step)
            part = states[which]
            assert torch.equal(fused.bound_slope(which, part)(part), whole[which])
            assert torch.equal(tape[which].vjp(lam[which]), product[which])
            assert torch.equal(tape[which].value, whole[which])
    for n, (slope, vjp) in enumerate(zip(fused.slopes(states[:1]), each, strict=True)):
        assert torch.equal(slope(states[n : n + 1]), whole[n : n + 1])
        assert torch.equal(vjp(lam[n : n + 1]), product[n : n + 1])
    assert torch.equal(tape[1:][::2].vjp(lam[1::2]), product[1::2])


@pytest.mark.parametrize("scheme", ["euler", "heun"])
def test_products_are_those_of_autograd(scheme):
    fused, _, states = made(11, 4, scheme)
    lam, leaf = torch.randn_like(states), states.clone().requires_grad_()
    slopes = fused.kernel.slope(fused.fine, leaf.repeat_interleave(4, 0)[:11])
    weighted = fused.fine.steps.view(-1, 1, 1) * slopes * lam.repeat_interleave(4, 0)[:11]
    (wanted,) = torch.autograd.grad(weighted.sum(), leaf)
    torch.testing.assert_close(fused.record(states).vjp(lam), wanted, rtol=1e-12, atol=1e-14)


def test_evaluations_are_counted_by_the_block():
    fused, _, states = made(11, 4)
    fused.bound_slope(slice(0, 3), states)(states)
    assert fused.kernel.evaluations == 11
    fused.record(states)[2:].vjp(states[2:])
    assert (fused.kernel.evaluations, fused.kernel.vjps) == (22, 3)
