"""Adapt the weights of the terms until their weighted losses are equal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from mgnet.limits import is_count, is_number, shown
from mgnet.training.equations.collocation import Collocation

__all__ = ["BalancedWeights"]


@dataclass(frozen=True)
class BalancedWeights:
    """A `refresh` of `levenberg_marquardt` that equalizes the weighted losses of all terms.

    Each weight is multiplied by `(mean of the weighted losses / its own)^power`; then all are
    scaled by one factor, so that their sum does not change. A term with a smaller loss than the
    other terms gets more weight, and its loss decreases further. This method is meant for terms
    that can all be satisfied together, such as an equation and its initial values. Terms that
    contradict each other, such as noisy data, need weights that depend on their noise. Source:
    arXiv 2607.02194 (DSGNAR, 2026), whose authors use the power 0.05 at each step. The limit of the
    ratio was added in mgnet. Without it, a term that can be satisfied exactly, such as a value at
    one point, takes all the weight.

    Parameters
    ----------
    power : float
        Exponent of the change, above 0 and at most 1.
    most : float
        Largest ratio of two weights, at least 1; larger initial ratios are reduced to it; math.inf
        means no limit.
    every : int
        Number of cycles between changes of the weights.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from mgnet.training import Term
    >>> x = torch.ones(4, 1, dtype=torch.float64)
    >>> terms = [Term(lambda u: 10.0 * (u.value - 1.0), x), Term(lambda u: u.value + 1.0, -x)]
    >>> network = torch.nn.Linear(1, 1).double()
    >>> problem = Collocation(network, terms)
    >>> new = BalancedWeights()(1, problem, torch.zeros(2).double())
    >>> [round(term.weight, 2) for term in new.terms]
    [0.89, 1.11]
    """

    power: float = 0.05
    most: float = 100.0
    every: int = 1

    def __post_init__(self) -> None:
        if not is_number(self.power, 0.0, 1.0) or not self.power:
            raise ValueError(
                f"BalancedWeights got power {shown(self.power)}; it must be above 0, at most 1"
            )
        if not is_number(self.most, 1.0):
            raise ValueError(
                f"BalancedWeights got most {shown(self.most)}; it must be a number of at least 1"
            )
        if not is_count(self.every):
            raise ValueError(
                f"BalancedWeights got every {shown(self.every)}; it must be at least 1"
            )

    def __call__(self, cycle: int, problem: Any, u: torch.Tensor) -> Collocation:
        """The problem with new weights; the same problem if a loss is zero or not finite.

        Raises
        ------
        TypeError
            If the problem is not a Collocation.
        """
        if not isinstance(problem, Collocation):
            raise TypeError(
                f"BalancedWeights got a {type(problem).__name__}; it needs a Collocation, whose "
                "terms have weights"
            )
        if cycle % self.every or len(problem.terms) < 2:
            return problem
        both = zip(problem.terms, problem.unscaled(u), strict=True)
        losses = torch.stack([term.scaled(r).square().sum().double() for term, r in both])
        losses = losses.cpu()
        given = losses[losses > 0.0]
        if not len(given) or not bool(torch.isfinite(losses).all()):
            return problem
        old = torch.tensor([term.weight for term in problem.terms], dtype=torch.float64)
        factors = torch.where(losses > 0.0, given.mean() / losses, 1.0) ** self.power
        new = old * factors
        # A term with weight 0 is disabled and remains so.
        new = torch.where(old > 0.0, new.clamp_min(float(new.max()) / self.most), 0.0)
        new = new * (old.sum() / new.sum())
        return problem.with_data(
            [replace(t, weight=w) for t, w in zip(problem.terms, new.tolist(), strict=True)]
        )
