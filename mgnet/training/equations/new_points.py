"""New points every few cycles, and more of them later, so that the first steps are cheap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mgnet.limits import is_count, is_number, is_whole, shown
from mgnet.training.equations.batches import by_residual
from mgnet.training.equations.collocation import Collocation
from mgnet.training.equations.domain import Domain, checked_domain
from mgnet.training.equations.quasi_random import quasi_random

__all__ = ["NewPoints"]

FEW = 16  # evenly spaced points cover more than half of every interval
CANDIDATES = 10  # per point that is selected by its residual


@dataclass(frozen=True)
class NewPoints:
    """A `refresh` of `levenberg_marquardt` that replaces the points of a term of a `Collocation`.

    A network can memorize fixed points: with fewer than a few times as many residuals as
    parameters, errors stop decreasing while the loss continues to fall. New points every few cycles
    avoid this, and early cycles, far from the solution, need few points. The residual of the term
    must be a function of `u.points`; precomputed data for the first points would not match. All
    points of the term must lie in one box; use two terms for two sides of a box.

    Parameters
    ----------
    domain : sequence of (low, high)
        Interval for each input, as for `quasi_random`.
    counts : int, or sequence of (cycle, points)
        Number of points, or pairs of a cycle and the number of points from that cycle on. The first
        pair must be for cycle 0, which uses the points that the term already has.
    every : int
        Number of cycles between new points; new points are also drawn when their number changes.
    share : float
        Fraction of the points, from 0 to below 1, drawn with a probability proportional to the
        residual; the other points are evenly distributed (Sobol').
    term : int
        Index of the term, from 0.
    seed : int
        Seed of the random points.

    Raises
    ------
    ValueError
        If a parameter is invalid, or cycles do not increase from 0. When the object is called, if
        the term does not exist, has pairs of points or points outside the domain, or has a residual
        that changes with the order of the points.

    Examples
    --------
    >>> from mgnet.training import Ansatz, Term, levenberg_marquardt, sine_network
    >>> network = Ansatz(sine_network([1, 8, 1]), output=lambda x, y: x * y)
    >>> points = NewPoints([(0.0, 1.0)], [(0, 30), (20, 60)])
    >>> law = Term(lambda u: u.d(0) + u.value - 1.0, quasi_random(30, [(0.0, 1.0)]))
    >>> problem = Collocation(network, [law])
    >>> solution = levenberg_marquardt(problem, refresh=points, max_cycles=40)
    >>> x = torch.tensor([[1.0]], dtype=torch.float64)
    >>> abs(network(x).item() - (1 - 1 / torch.e)) < 1e-5
    True
    """

    domain: Domain
    counts: int | Sequence[tuple[int, int]]
    every: int = 10
    share: float = 0.0
    term: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        checked_domain("NewPoints", self.domain, sides=True)
        if not _are_counts(self.counts):
            raise ValueError(
                f"NewPoints got counts {shown(self.counts)}; give a number of points, or pairs "
                "(cycle, points) with increasing cycles from 0, such as [(0, 500), (50, 2000)]"
            )
        if not is_count(self.every):
            raise ValueError(f"NewPoints got every {shown(self.every)}; it must be at least 1")
        if not is_number(self.share, 0.0, 1.0) or self.share == 1.0:
            raise ValueError(
                f"NewPoints got share {shown(self.share)}; it must be from 0 to below 1: some of "
                "the points must be even"
            )
        if not is_whole(self.term) or not is_whole(self.seed, most=2**31 - 1):
            raise ValueError(
                f"NewPoints got term {shown(self.term)} and seed {shown(self.seed)}; give integers "
                "from 0, a seed below 2**31"
            )

    def __call__(self, cycle: int, problem: Any, u: torch.Tensor) -> Collocation:
        """The problem, with new points if they are due; cycle and seed fix the random numbers.

        Raises
        ------
        TypeError, ValueError
            If the problem is not a Collocation, or its term does not fit.
        """
        count, since = self._count_at(cycle)
        if since % self.every:
            return problem
        term = self._term_of(problem, u)
        old = term.places[0]
        # PyTorch uses only 32 bits of a seed, so both numbers are mixed into these.
        mixed = np.random.SeedSequence([self.seed, cycle]).generate_state(1)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        chosen = min(round(self.share * count), count - 1)
        points = quasi_random(count - chosen, self.domain, seed=generator).to(old)
        if chosen:
            many = quasi_random(CANDIDATES * chosen, self.domain, seed=generator).to(old)
            alone = problem.with_data([term])
            found = by_residual(alone, u, many, chosen, generator, share=1.0)
            points = torch.cat([points, found])
        terms = list(problem.terms)
        terms[self.term] = replace(term, points=points, attention=None)
        return problem.with_data(terms)

    def _count_at(self, cycle: int) -> tuple[int, int]:
        """Number of points in a cycle, and the number of cycles since it last changed."""
        if isinstance(self.counts, Sequence):
            begun = [(first, count) for first, count in self.counts if first <= cycle]
            return begun[-1][1], cycle - begun[-1][0]
        return self.counts, cycle

    def _term_of(self, problem: Any, u: torch.Tensor) -> Any:
        if not isinstance(problem, Collocation):
            raise TypeError(
                f"NewPoints got a {type(problem).__name__}; it needs a Collocation, whose terms "
                "have points"
            )
        if self.term >= len(problem.terms):
            raise ValueError(
                f"NewPoints got term {self.term} of a problem with {len(problem.terms)}; they are "
                "counted from 0"
            )
        term = problem.terms[self.term]
        if isinstance(term.points, tuple):
            raise ValueError(
                f"NewPoints got term {self.term}, which has several points for each residual; they "
                "belong together: draw them in a function of your own"
            )
        self._check_domain(term.places[0])
        self._check_residual(problem.with_data([term]), u)
        return term

    def _check_domain(self, points: torch.Tensor) -> None:
        """Check that the domain is the box of the term's points."""
        box = torch.tensor(
            checked_domain("NewPoints", self.domain, sides=True), dtype=torch.float64
        )
        if len(box) != points.shape[1]:
            raise ValueError(
                f"NewPoints got a domain of {len(box)} inputs for points of {points.shape[1]}; "
                "give an interval for each input"
            )
        slack = 1e-6 * (box[:, 1] - box[:, 0]).max()
        outside = (points.cpu() < box[:, 0] - slack) | (points.cpu() > box[:, 1] + slack)
        if bool(outside.any()):
            raise ValueError(
                f"NewPoints got the domain {shown(self.domain)}, and term {self.term} has points "
                "outside; give the box of this term, and a term for each side of a boundary"
            )
        extent, length = (points.max(0).values - points.min(0).values).cpu(), box[:, 1] - box[:, 0]
        if len(points) >= FEW and bool((extent < 0.5 * length).any()):
            raise ValueError(
                f"NewPoints got the domain {shown(self.domain)}, of which the points of term "
                f"{self.term} fill less than half; give the box of this term, or of this time slab"
            )

    def _check_residual(self, alone: Collocation, u: torch.Tensor) -> None:
        """Check that the residual depends on the points and not on precomputed data."""
        (term,), turned = alone.terms, alone.terms[0].places[0].flip(0)
        (r,) = alone.unscaled(u)
        (other,) = alone.with_data([replace(term, points=turned, attention=None)]).unscaled(u)
        size = float(r.abs().max())
        if not torch.allclose(r, other.flip(0), rtol=1e-4, atol=1e-4 * size, equal_nan=True):
            raise ValueError(
                f"NewPoints got term {self.term}, whose residual changes for the same "
                "points in another order; make it a function of u.points, without precomputed data"
            )


def _are_counts(counts: Any) -> bool:
    if not isinstance(counts, Sequence) or isinstance(counts, str):
        return is_count(counts)
    pairs = [pair for pair in counts if isinstance(pair, Sequence) and len(pair) == 2]
    if len(pairs) < len(counts) or not counts:
        return False
    if not all(is_whole(first) and is_count(count) for first, count in pairs):
        return False
    firsts = [first for first, _ in pairs]
    return firsts[0] == 0 and all(a < b for a, b in zip(firsts, firsts[1:], strict=False))
