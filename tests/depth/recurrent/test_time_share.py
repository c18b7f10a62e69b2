"""Law: pieces are whole intervals, in order, never more than asked for."""

from hypothesis import given
from hypothesis import strategies as st

from mgnet.depth.recurrent.time_share import Alone, TimeShare


@given(st.integers(1, 500), st.integers(1, 40), st.integers(1, 30))
def test_pieces(steps, interval, pieces):
    share = Alone(pieces)(steps, interval)
    found = share.pieces
    assert [n for piece in found for n in piece] == list(range(steps))
    assert all(piece.start % interval == 0 for piece in found)
    assert 1 <= len(found) <= pieces
    assert {len(piece) for piece in found[:-1]} <= {share.piece}


def test_no_steps_are_no_pieces():
    assert TimeShare(range(7, 7), 3).pieces == []
