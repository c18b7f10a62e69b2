import torch
from torch import nn

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.programs import batch
from mgnet.depth.batched.stand_ins import StandIns
from mgnet.depth.batched.tracing import trace_layer


def test_numbers_are_given_to_a_program_and_views_prepared_once():
    class Scaled(nn.Linear):
        def forward(self, u):
            return super().forward(u) / u.shape[0]

    module = Scaled(3, 3)
    block = StackedBlock(module)
    own = [*(x.detach() for x in module.parameters()), torch.tensor(0.0), torch.tensor(1.0)]
    given = StandIns(own, torch.empty(5, 3), [0])
    one = trace_layer(block.evaluate, [*given.tensors, given.state], 2, 1, given.axes)
    program = batch(one.slope, given.many(4), 4, False, axes=given.axes)
    many = [x.expand(4, *x.shape).clone() for x in own]
    prepared = program.prepare(*many)
    assert all(x._base is not None for x in prepared)
    for size in (2, 7):
        states = torch.randn(4, size, 3)
        expected = torch.stack([module(u) for u in states])
        found = program.run(*program.numbers(size), *prepared, states)
        torch.testing.assert_close(found, expected)
        alone = trace_layer(block.evaluate, [*own, states[0]], 2, 1)
        there = batch(alone.slope, [*many, states], 4, False)
        assert there.numbers is None and there.text() == program.text([size])
        assert there.text() != program.text([size + 1])
