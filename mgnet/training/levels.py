"""Levels for training networks, and the coarse level of a descent in its subspace form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mgnet.level import Level
from mgnet.linesearch import Backtracking
from mgnet.smoother import Smoother
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.least_squares.recentred import Around, Recentred
from mgnet.training.loss.objective import Objective
from mgnet.transfer import Transfer

__all__ = ["Recenter", "network_levels"]


@dataclass(frozen=True, eq=False)
class Recenter:
    """Creates the coarse level of one descent: `Level(recenter=...)`.

    Parameters
    ----------
    fine : Objective or Around
        Objective of the level `number`.
    number : int
        Number of that level.
    transfers : sequence of Transfer
        Transfers between all levels, finest first.
    smoother : Smoother
        Smoother of the coarse level.
    cost : float
        Cost of one gradient of `fine`; a gradient over u + P w costs the same.

    Examples
    --------
    >>> from mgnet import Jacobi, MatrixTransfer
    >>> module = torch.nn.Linear(1, 2, bias=False, dtype=torch.float64)
    >>> fine = Objective.from_torch(module, lambda m: (m.weight - 3.0).square().sum())
    >>> transfer = MatrixTransfer(torch.ones(2, 1, dtype=torch.float64))
    >>> level = Recenter(fine, 0, [transfer], Jacobi())(torch.zeros(2, dtype=torch.float64))
    >>> str(level)
    'level 1 (around the level above)'
    """

    fine: Objective | Around
    number: int
    transfers: Sequence[Transfer]
    smoother: Smoother
    cost: float = 1.0

    def __call__(self, u: torch.Tensor) -> Level:
        below = self.number + 1
        transfer = self.transfers[self.number]
        problem = (
            Recentred.of(self.fine, u, transfer)
            if isinstance(self.fine, LeastSquares)
            else Around.of(self.fine, u, transfer)
        )
        coarsest = below == len(self.transfers)
        further = Recenter(problem, below, self.transfers, self.smoother, self.cost)
        return Level(
            problem,
            self.smoother,
            None if coarsest else self.transfers[below],
            objective=problem.value,
            line_search=Backtracking(),
            recenter=None if coarsest else further,
            cost=self.cost,
            name=f"level {below} (around the level above)",
        )


def network_levels(
    problems: Sequence[Objective],
    transfers: Sequence[Transfer],
    smoother: Smoother,
    form: str,
    costs: Sequence[float],
    names: Sequence[str],
) -> list[Level]:
    """Build levels for training, with line searches as safeguards.

    Parameters
    ----------
    problems : sequence of Objective
        Objectives of the networks, finest first.
    transfers : sequence of Transfer
        Transfers between the levels.
    smoother : Smoother
        Smoother for all levels.
    form : "subspace" or "injected"
        Form of the coarse problem of a cycle: see `mgnet.knots.knot_hierarchy`.
    costs : sequence of float
        Cost of one gradient on each level.
    names : sequence of str
        Names of the levels, for messages.

    Examples
    --------
    >>> from mgnet import Jacobi, MatrixTransfer
    >>> x = torch.ones(3, 1, dtype=torch.float64)
    >>> network = torch.nn.Linear(1, 1, dtype=torch.float64)
    >>> problem, transfer = LeastSquares(network, (x, x)), MatrixTransfer(torch.eye(2).double())
    >>> two = [problem] * 2, [transfer]
    >>> levels = network_levels(*two, Jacobi(), "subspace", [3.0, 1.0], ["fine", "coarse"])
    >>> levels[0].recenter(problem.start()).cost  # over u + P w: as the fine level
    3.0
    """
    levels = []
    for number, (problem, cost, name) in enumerate(zip(problems, costs, names, strict=True)):
        has_coarser = number < len(transfers)
        recenter = None
        if has_coarser and form == "subspace":
            recenter = Recenter(problem, number, transfers, smoother, cost)
        levels.append(
            Level(
                problem,
                smoother,
                transfers[number] if has_coarser else None,
                objective=problem.value,
                line_search=Backtracking(),
                recenter=recenter,
                size=sum(shape.numel() for shape in problem.shapes.values()),
                cost=cost,
                name=f"level {number} ({name})",
            )
        )
    return levels
