"""Batches come in their order, again after a rewind, and never none."""

import pytest

from mgnet.depth.endless_batches import EndlessBatches


def test_two_rewinds_with_a_shorter_second_round():
    batches = EndlessBatches(range(5))
    assert [batches.next() for _ in range(3)] == [0, 1, 2]
    batches.mark()
    assert [batches.next() for _ in range(4)] == [3, 4, 0, 1]
    batches.rewind()
    assert [batches.next() for _ in range(2)] == [3, 4]
    batches.mark()
    assert batches.next() == 0
    batches.rewind()
    assert [batches.next() for _ in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("batches", "message"), [([], "are empty"), (iter([1]), "ended")])
def test_no_more_batches(batches, message):
    endless = EndlessBatches(batches)
    with pytest.raises(ValueError, match=message):
        [endless.next() for _ in range(2)]
