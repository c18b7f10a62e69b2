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


def test_what_a_loss_takes_out_of_a_batch_is_there_again():
    class Drawn:
        def __iter__(self):
            yield {"x": 1, "labels": 2}

    endless = EndlessBatches(Drawn())
    endless.mark()
    assert endless.next().pop("labels") == 2
    endless.rewind()
    endless.mark()
    assert endless.next().pop("labels") == 2
    endless.rewind()
    assert endless.next().pop("labels") == 2


def test_no_batches_at_all():
    with pytest.raises(TypeError, match="got batches of type int; give an iterable"):
        EndlessBatches(5)
