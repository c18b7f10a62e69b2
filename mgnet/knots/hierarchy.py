"""A hierarchy of KANs that differ only in their knots."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from mgnet.hierarchy import Hierarchy
from mgnet.knots.kan import KAN
from mgnet.knots.refinement import refinement_matrix
from mgnet.level import Level
from mgnet.linesearch import Backtracking
from mgnet.smoother import Smoother
from mgnet.training.objective import LeastSquares, Objective, Recentred
from mgnet.transfer import AxisTransfer, PackedTransfer

__all__ = ["knot_hierarchy", "knot_transfer"]


def knot_transfer(kan: KAN, factor: int = 2) -> PackedTransfer:
    """From `kan` to `kan.refine(factor)`: knot insertion on the spline axis of every layer.

    Parameters
    ----------
    kan : KAN
        The coarse network.
    factor : int
        A power of 2.

    Examples
    --------
    >>> kan = KAN([1, 1], intervals=1, degree=1)
    >>> u = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> knot_transfer(kan).prolong(u).tolist()
    [0.0, 0.5, 1.0]
    """
    parts: list[tuple[tuple[int, ...], AxisTransfer | None]] = []
    if kan.linear is not None:
        parts += [(tuple(kan.linear.weight.shape), None), (tuple(kan.linear.bias.shape), None)]
    for n, u in zip(kan.intervals, kan.coefficients, strict=True):
        P = torch.as_tensor(refinement_matrix(n, kan.degree, factor).toarray()).to(u.detach())
        parts.append((tuple(u.shape), AxisTransfer(P, axis=1, injection=torch.linalg.pinv(P))))
    return PackedTransfer(tuple(parts))


def knot_hierarchy(kan: KAN, objective: Objective, levels: int, smoother: Smoother) -> Hierarchy:
    """Levels of KANs, each with twice as many intervals as the next coarser one.

    Properly nested: the coarse network with coefficients u is the fine network with P u, so
    refinement changes no output.

    Parameters
    ----------
    kan : KAN
        The coarsest network.
    objective : Objective
        Made for any network; `objective.on(network)` binds it to each level's.
    levels : int
    smoother : Smoother
        Of all levels, the coarsest included.

    Returns
    -------
    Hierarchy
        `hierarchy.network(level, u)` gives the KAN of a level with the parameters u.

    Examples
    --------
    >>> from mgnet import cascade, run
    >>> from mgnet.training import LeastSquares, LevenbergMarquardt
    >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    >>> kan = KAN([1, 3, 1], intervals=2)
    >>> problem = LeastSquares(kan, (x, torch.sin(8 * x)))
    >>> hierarchy = knot_hierarchy(kan, problem, 3, LevenbergMarquardt())
    >>> u, _ = run(cascade([10, 10, 10]), hierarchy, hierarchy[0].operator.start(), None)
    >>> hierarchy[0].operator.value(u) < 1e-6
    True
    """
    if not isinstance(levels, int) or levels < 1:
        raise ValueError(f"knot_hierarchy got {levels} levels; it needs at least 1")
    networks = [kan]
    for _ in range(levels - 1):
        networks.insert(0, networks[0].refine())
    transfers = [knot_transfer(network) for network in networks[1:]]
    built = []
    for number, network in enumerate(networks):
        problem = objective.on(network)
        recenter = None
        if number + 1 < levels and isinstance(problem, LeastSquares):
            recenter = _Recenter(problem, number, transfers, smoother)
        built.append(
            Level(
                problem,
                smoother,
                transfers[number] if number + 1 < levels else None,
                objective=problem.value,
                line_search=Backtracking(),
                recenter=recenter,
                size=sum(p.numel() for p in network.parameters()),
                cost=1.0,  # local evaluation: a gradient costs the same for any number of intervals
                name=f"level {number} ({network.intervals[0]} intervals)",
            )
        )

    def network_of(level: int, u: torch.Tensor) -> KAN:
        made = copy.deepcopy(networks[level])
        torch.nn.utils.vector_to_parameters(u, made.parameters())
        return made

    return Hierarchy(built, nested=True, network=network_of)


class _Recenter:
    """Makes the coarse level of one descent: the subspace form of the level below."""

    def __init__(
        self,
        fine: LeastSquares,
        number: int,
        transfers: Sequence[PackedTransfer],
        smoother: Smoother,
    ):
        self.fine = fine
        self.number = number
        self.transfers = transfers
        self.smoother = smoother

    def __call__(self, u: torch.Tensor) -> Level:
        below = self.number + 1
        problem = Recentred(self.fine, u, self.transfers[self.number])
        coarsest = below == len(self.transfers)
        return Level(
            problem,
            self.smoother,
            None if coarsest else self.transfers[below],
            objective=problem.value,
            line_search=Backtracking(),
            recenter=None if coarsest else _Recenter(problem, below, self.transfers, self.smoother),
            cost=1.0,
            name=f"level {below} (around the level above)",
        )
