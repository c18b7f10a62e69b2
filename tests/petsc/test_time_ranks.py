"""Law: on one rank a sequence has the pieces that one process has; more: tests/mpi."""

import copy
import pickle

import pytest

from mgnet.depth.recurrent.time_share import Alone
from mgnet.petsc.layer_layout import LayerLayout


def test_pieces_are_those_of_one_process(petsc):
    from mgnet.petsc.time_ranks import TimeRanks

    ranks = TimeRanks(petsc.COMM_SELF, 5)
    for steps, interval in ((100, 10), (7, 2), (3, 1), (1000, 31)):
        found, expected = ranks(steps, interval), Alone(5)(steps, interval)
        assert (found.own, found.piece) == (expected.own, expected.piece)
        layout = LayerLayout(steps, interval, 3, found.piece // interval)
        parts = [n for rank in range(3) for n in layout.of(rank)]
        assert parts == list(range(steps))
        assert all(layout.of(rank).start % found.piece == 0 for rank in range(layout.occupied))


def test_it_is_copied_as_itself_and_not_pickled(petsc):
    from mgnet.petsc.time_ranks import TimeRanks

    ranks = TimeRanks(petsc.COMM_SELF, 5)
    assert copy.deepcopy(ranks) is ranks
    with pytest.raises(TypeError, match="TimeRanks cannot be pickled; save parallel.state_dict"):
        pickle.dumps(ranks)
