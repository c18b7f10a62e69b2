"""Law: pieces of a sequence, one after another, are the whole, and no piece sees another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgnet.depth.recurrent.pieces import PiecedSteps
from mgnet.depth.recurrent.propagation import TimeAdjoint, TimeSteps
from mgnet.depth.recurrent.recurrence import recurrence_of


def made(steps, piece, factors, kind=nn.GRUCell):
    torch.manual_seed(0)
    cell = kind(2, 3).double()
    recurrence = recurrence_of(cell, None, (3,) * (1 + (kind is nn.LSTMCell)))
    inputs = recurrence.inputs(torch.randn(steps, 2, 2).double()).detach()
    taken = recurrence.steps(*[w.detach() for w in recurrence.weights])
    whole = TimeSteps(taken, inputs, factors)
    parts = [TimeSteps(taken, part, factors) for part in inputs.split(piece)]
    lengths = tuple(len(part.inputs) for part in parts)
    points = torch.randn(steps + 1, 2, sum(recurrence.widths)).double()
    adjoints = [
        TimeAdjoint(part, points[a : a + n + 1])
        for part, a, n in zip(parts, range(0, steps, piece), lengths, strict=True)
    ]
    pairs = whole, PiecedSteps(parts, lengths, factors, steps)
    return [pairs, (TimeAdjoint(whole, points), PiecedSteps(adjoints, lengths, factors, steps))]


@given(st.integers(1, 60), st.integers(1, 4), st.sampled_from([(2,), (3, 2)]), st.data())
@settings(max_examples=25)
def test_pieces_are_the_whole(steps, together, factors, data):
    piece = together * (6 if len(factors) > 1 else 2)
    kind = data.draw(st.sampled_from([nn.GRUCell, nn.LSTMCell]))
    for whole, pieced in made(steps, piece, factors, kind):
        for level in range(len(factors) + 1):
            count = pieced.begins[level][-1]
            begin = data.draw(st.integers(0, count))
            which = slice(begin, data.draw(st.integers(begin, count)), data.draw(st.integers(1, 4)))
            states = torch.randn(len(range(count)[which]), 2, 3 + 3 * (kind is nn.LSTMCell))
            states = states.double()
            found = pieced.advance(level, which, states)
            if len(states):
                torch.testing.assert_close(found, whole.advance(level, which, states))
            for structure in ("dense", "diagonal"):
                values, jacobians = pieced.linearize(level, which, states, structure)
                if len(states):
                    expected = whole.linearize(level, which, states, structure)
                    torch.testing.assert_close((values, jacobians), expected)
                assert jacobians.dim() == states.dim() + (structure == "dense")


def test_bits_of_a_piece_do_not_depend_on_the_others():
    (_, pieced), _ = made(60, 6, (3, 2))
    states = torch.randn(20, 2, 3).double()
    whole = pieced.advance(0, slice(1, 60, 3), states)
    for number, part in enumerate(pieced.pieces):
        alone = PiecedSteps([part], (6,), (3, 2), 60)
        rows = slice(2 * number, 2 * number + 2)
        assert torch.equal(alone.advance(0, slice(1, 6, 3), states[rows]), whole[rows])


def test_memory_is_that_of_the_jacobians_of_all_processes():
    (_, pieced), _ = made(60, 6, (3, 2))
    many = PiecedSteps(pieced.pieces, pieced.lengths, (3, 2), 10**13)
    with pytest.raises(ValueError, match="dense Jacobians of 10000000000000 steps"):
        many.linearize(0, slice(0, 60), torch.zeros(60, 2, 3).double(), "dense")
