"""Law: blocks cover the samples in order, and the tree joins every one once. Ranks: tests/mpi."""

import pytest
import torch


class Comm:
    """One of several ranks, as PETSc describes it; `sent` is what they all send."""

    def __init__(self, rank, ranks, sent=()):
        self.getRank = lambda: rank
        self.getSize = lambda: ranks
        self.sent = sent
        self.tompi4py = lambda: self

    def allgather(self, own):
        self.own = own
        return self.sent or [own]


@pytest.fixture
def made(petsc, monkeypatch):
    from mgnet.petsc import sample_blocks
    from mgnet.petsc.sample_blocks import SampleBlocks

    monkeypatch.setattr(sample_blocks, "watch_of", lambda comm: comm)  # nobody leaves
    return lambda samples, rank=0, ranks=1, sent=(): SampleBlocks(samples, Comm(rank, ranks, sent))


@pytest.mark.parametrize("samples", [1, 5, 63, 64, 65, 1000])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 100])
def test_blocks_cover_the_samples_in_order_whatever_the_ranks(made, samples, ranks):
    own = [rows for rank in range(ranks) for rows in made(samples, rank, ranks).own]
    assert own == made(samples).own
    assert [n for rows in own for n in range(samples)[rows]] == list(range(samples))
    assert len(own) == min(64, samples)
    assert own[0] == made(samples, ranks - 1, ranks).first


@pytest.mark.parametrize("samples", [1, 5, 37, 64, 200])
def test_neighbours_are_joined_in_order(made, samples):
    blocks = made(samples)
    x = torch.arange(samples)
    joined = blocks.joined((x[rows] for rows in blocks.own), lambda a, b: torch.cat([a, b]))
    assert joined.equal(x)


def test_the_tree_is_balanced(made):
    depths = made(64).joined(torch.zeros(64), lambda a, b: 1 + torch.maximum(a, b))
    assert depths == 6.0


@pytest.mark.parametrize("samples", [1, 5, 37, 64])
@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
def test_the_tree_is_the_same_on_any_number_of_ranks(made, samples, ranks):
    """By numbers that tell every order of joining from every other."""

    def join(a, b):
        return (31 * a + 17 * b + a * b) % 1_000_003

    def joined(rank, ranks, sent=()):
        blocks = made(samples, rank, ranks, sent)
        return blocks.joined((torch.tensor([1000 + n]) for n in blocks.numbers), join), blocks.comm

    alone, _ = joined(0, 1)
    occupied = [rank for rank in range(ranks) if len(made(samples, rank, ranks).numbers)]
    sent = [joined(rank, ranks)[1].own if rank in occupied else [] for rank in range(ranks)]
    for rank in range(ranks):
        assert joined(rank, ranks, sent)[0].equal(alone)


def test_a_sum_is_the_sum(made):
    blocks = made(1000)
    x = torch.randn(1000, 3, dtype=torch.float64)
    torch.testing.assert_close(blocks.total(x[rows].sum(0) for rows in blocks.own), x.sum(0))


def test_values_of_other_blocks_are_refused(made):
    with pytest.raises(ValueError, match="zip"):
        made(100).total([torch.ones(1)])


def test_no_samples_are_refused(made):
    with pytest.raises(ValueError, match="got 0 samples; it needs at least 1"):
        made(0)


def test_a_copy_is_aligned(petsc):
    from mgnet.petsc.sample_blocks import aligned

    copy = aligned(torch.arange(9.0)[1:])
    assert copy.data_ptr() % 64 == 0
    assert copy.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
