"""Law: one rank is its own neighbour, and states cross as they are. More ranks: tests/mpi."""

import copy
import pickle

import pytest
import torch

from mgnet.petsc.layer_layout import LayerLayout


@pytest.fixture
def ranks(petsc):
    from mgnet.petsc.ranks import Ranks

    return Ranks(petsc.COMM_SELF, LayerLayout(6, 2, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("reverse", [False, True])
def test_one_rank_has_nobody_beside_it(ranks, dtype, reverse):
    points = torch.randn(4, 2, 3).to(dtype)
    assert ranks.is_first(reverse)
    assert ranks.receive(points[0], reverse).equal(points[0])
    ranks.send(points[0], reverse)
    assert ranks.shift(points, reverse).equal(points)
    assert ranks.broadcast_from_last(points[-1], reverse).equal(points[-1])
    assert ranks.gather(points.double()[:, :, 0]).equal(points.double()[:, :, 0])
    assert ranks.broadcast("both") == "both"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_layers_are_gathered_and_scattered(ranks, dtype):
    whole = torch.arange(12).reshape(6, 2).to(dtype)
    assert ranks.gather_layers(whole.t().contiguous().t()).equal(whole)
    assert ranks.scatter_layers(whole).equal(whole)
    assert ranks.allgather_layers(whole).equal(whole)
    assert ranks._allgather(whole, [6]).equal(whole)
    ranks._allgather, ranks.layout = lambda part, counts: counts, LayerLayout(6, 2, 2)
    assert ranks.allgather_layers(whole) == [4, 2]


def test_small_coarsest_levels_are_gathered(ranks, petsc):
    from mgnet.petsc.ranks import SMALL, Ranks

    assert ranks.gathered(0) is None  # one rank holds everything anyway
    rows = torch.randn(4, 2)
    assert torch.equal(torch.cat(ranks.allgather(rows)), rows)
    several = Ranks(petsc.COMM_SELF, LayerLayout(6, 2, 1))
    several.layout = LayerLayout(13, 2, 4)  # 7 coarsest layers on 4 ranks
    for several.place, first in enumerate([0, 2, 4, 6]):
        assert several.gathered(4 * SMALL // 7) == (first, 7)
        assert several.gathered(4 * SMALL // 7 + 1) is None
    several.layout = LayerLayout(5, 2, 9)  # 3 of them have layers
    assert several.gathered(1) is None


@pytest.mark.parametrize("reverse", [False, True])
def test_a_rank_without_layers_takes_part_in_an_exchange(ranks, reverse):
    """Calls are counted on every rank: who has made fewer of them and left is missed."""
    ranks.layout, ranks.place = LayerLayout(5, 2, 9), 7  # 3 of them have layers
    start, calls = torch.randn(1, 2, 3), ranks.watch.calls
    assert ranks.shift(start, reverse) is start and ranks.receive(start, reverse) is start
    ranks.send(start, reverse)
    assert ranks.watch.calls == calls + 3


def test_copies_share_the_ranks_and_pickles_are_refused(ranks):
    assert copy.deepcopy(ranks) is ranks
    with pytest.raises(TypeError, match="gather_state"):
        pickle.dumps(ranks)
