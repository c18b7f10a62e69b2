"""Law: every layer has one rank; ranks hold whole intervals in order, as equal as they go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgnet.petsc.layer_layout import LayerLayout

COUNTS = st.integers(1, 200), st.integers(1, 20), st.integers(1, 12)


@given(*COUNTS)
def test_blocks(layers, interval, ranks):
    layout = LayerLayout(layers, interval, ranks)
    parts = [layout.of(rank) for rank in range(ranks)]
    assert [n for part in parts for n in part] == list(range(layers))
    assert all(part.start % interval == 0 for part in parts if part)
    counts = [-(-len(part) // interval) for part in parts]
    assert max(counts) - min(counts) <= 1
    assert sorted(counts, reverse=True) == counts
    assert layout.occupied == sum(map(bool, parts))
    coarse = [layout.intervals_of(rank) for rank in range(ranks)]
    assert [n for part in coarse for n in part] == list(range(layout.intervals))
    assert [len(part) for part in coarse] == counts


@given(*COUNTS, st.integers(1, 9))
def test_layers_that_stay_together_are_those_of_one_rank(layers, interval, ranks, together):
    layout, blocks = (
        LayerLayout(layers, interval, ranks, together),
        LayerLayout(layers, interval * together, ranks),
    )
    assert [layout.of(rank) for rank in range(ranks)] == [blocks.of(rank) for rank in range(ranks)]
    assert layout.occupied == blocks.occupied
    coarse = [layout.intervals_of(rank) for rank in range(ranks)]
    assert [n for part in coarse for n in part] == list(range(layout.intervals))


@given(*COUNTS)
def test_neighbours_are_the_next_ranks_with_layers(layers, interval, ranks):
    layout = LayerLayout(layers, interval, ranks)
    for rank in range(ranks):
        right = layout.neighbour(rank, 1)
        assert (right == rank + 1) == (rank + 1 < layout.occupied)
        if right is not None:
            assert layout.neighbour(right, -1) == rank
    assert layout.neighbour(0, -1) is None
    for rank in range(layout.occupied, ranks):  # nobody sends to those without layers
        assert layout.neighbour(rank, -1) is None and layout.neighbour(rank, 1) is None


def test_refused():
    with pytest.raises(ValueError, match="LayerLayout.*numbers of at least 1"):
        LayerLayout(4, 2, 0)
