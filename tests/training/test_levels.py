"""Levels of networks and the coarse levels that their descents make."""

import pytest
import torch

from mgnet import MatrixTransfer
from mgnet.training import LBFGS, LeastSquares
from mgnet.training.least_squares.recentred import Recentred
from mgnet.training.levels import Recenter, network_levels


def test_the_levels_it_makes():
    network = torch.nn.Linear(1, 1, dtype=torch.float64)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64).unsqueeze(1)
    fine = LeastSquares(network, (x, x))
    transfers = [MatrixTransfer(torch.eye(2, dtype=torch.float64))] * 2
    level = Recenter(fine, 0, transfers, LBFGS(), 7.0)(fine.start())
    assert isinstance(level.operator, Recentred) and level.cost == 7.0
    last = level.recenter(torch.zeros(2, dtype=torch.float64))
    assert last.transfer is None and last.recenter is None and last.cost == 7.0
    assert str(last) == "level 2 (around the level above)"


@pytest.mark.parametrize("form", ["subspace", "injected"])
def test_levels_of_networks(form):
    x = torch.linspace(-1, 1, 5, dtype=torch.float64).unsqueeze(1)
    networks = [torch.nn.Linear(1, 1, dtype=torch.float64) for _ in range(3)]
    networks[0].bias.requires_grad_(False)
    problems = [LeastSquares(network, (x, x)) for network in networks]
    transfers = [MatrixTransfer(torch.ones(1, 2).double()), MatrixTransfer(torch.eye(2).double())]
    names = ["a", "b", "c"]
    levels = network_levels(problems, transfers, LBFGS(), form, [4.0, 2.0, 1.0], names)
    assert [level.operator for level in levels] == problems
    assert [level.transfer for level in levels] == [*transfers, None]
    assert [(level.cost, level.size) for level in levels] == [(4.0, 1), (2.0, 2), (1.0, 2)]
    assert [str(level) for level in levels] == [
        f"level {n} ({name})" for n, name in enumerate(names)
    ]
    around = [level.recenter for level in levels]
    if form == "injected":
        assert around == [None] * 3
    else:  # at the cost of the level that they are around
        assert around[2] is None
        costs = [around[n](problems[n].start()).cost for n in (0, 1)]
        assert costs == [4.0, 2.0]
