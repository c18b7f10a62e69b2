"""Law: sequences go in and out in the shapes and orders of PyTorch."""

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from mgnet.depth.recurrent.sequences import TimeSequence, size_of


@pytest.mark.parametrize("batch_first", [True, False])
def test_tensors_there_and_back(batch_first):
    x = torch.randn(4, 7, 2)
    sequence = TimeSequence.of(x, batch_first)
    assert sequence.x.shape == ((7, 4, 2) if batch_first else (4, 7, 2))
    assert torch.equal(sequence.output(sequence.x), x) and sequence.lengths is None
    assert torch.equal(sequence.reversed(sequence.x), sequence.x.flip(0))
    one = TimeSequence.of(x[0], batch_first)
    assert one.x.shape == (7, 1, 2) and torch.equal(one.output(one.x), x[0])
    state = torch.randn(3, 2)
    assert torch.equal(one.given_order(one.ordered(state)), state)


@pytest.mark.parametrize("seed", range(5))
def test_packed_there_and_back(seed):
    torch.manual_seed(seed)
    lengths = torch.randint(1, 9, (5,)).tolist()
    rows = [torch.randn(n, 2) for n in lengths]
    packed = pack_sequence(rows, enforce_sorted=False)
    sequence = TimeSequence.of(packed, batch_first=False)
    back = sequence.output(sequence.x)
    assert torch.equal(back.data, packed.data) and torch.equal(back.batch_sizes, packed.batch_sizes)
    own = sequence.given_order(sequence.x.transpose(0, 1)[None])[0]
    wanted = pad_packed_sequence(packed, batch_first=True)[0]
    for row, length, padded in zip(own, lengths, wanted, strict=True):
        assert torch.equal(row[:length], padded[:length])
        assert torch.equal(row[length:], padded[length - 1].expand_as(row[length:]))
    if sequence.running is not None:
        runs = sequence.given_order(sequence.running.sum(0).view(1, -1, 1)).flatten()
        assert runs.tolist() == lengths
    in_order = sequence.given_order(sequence.lengths.view(1, -1, 1)).flatten()
    assert in_order.tolist() == lengths
    state = torch.randn(1, 5, 3)
    assert torch.equal(sequence.given_order(sequence.ordered(state)), state)
    flipped = sequence.output(sequence.reversed(sequence.x))
    wanted = pack_sequence([row.flip(0) for row in rows], enforce_sorted=False)
    assert torch.equal(flipped.data, wanted.data)
    points = torch.cat([sequence.x[:1] * 0, sequence.x])
    last = sequence.given_order(sequence.last(points)[None])[0]
    assert torch.equal(last, torch.stack([row[-1] for row in rows]))
    other = sequence.with_data(2.0 * packed.data)
    assert torch.equal(other.x, 2.0 * sequence.x)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (torch.zeros(0, 2, 3), RuntimeError, "without steps"),
        (torch.zeros(3), ValueError, "give (T, batch, features)"),
        (torch.zeros(1, 2, 3, 4), ValueError, "shape (1, 2, 3, 4)"),
        ([[1.0]], TypeError, "type list"),
    ],
)
def test_refusals(given, error, words):
    with pytest.raises(error) as caught:
        TimeSequence.of(given, batch_first=False)
    assert words in str(caught.value)


def test_sizes_are_told_to_a_factor_of_two_and_with_what_gets_gradients():
    x = torch.zeros(100, 2, 3)
    known = size_of(x, None)
    assert size_of(x[:70], None) == known and {known: 1}
    others = [(x[:60], None), (torch.zeros(100, 4, 3), None), (x.double(), None), (x, x)]
    others += [(x.clone().requires_grad_(), None), (pack_sequence([x[:, 0], x[:9, 0]]), None)]
    assert len({size_of(*other) for other in others} | {known}) == len(others) + 1


def test_a_mask_for_what_is_packed():
    packed = pack_sequence([torch.ones(n, 1) for n in (3, 50)], enforce_sorted=False)
    sequence = TimeSequence.of(packed, batch_first=False)
    torch.manual_seed(0)
    found = sequence.output(sequence.dropout(sequence.x, 0.5))
    torch.manual_seed(0)
    assert torch.equal(found.data, torch.nn.functional.dropout(packed.data, 0.5))
