"""Batches for `Solver(batches=...)`: one per cycle, the same samples on every level, by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from mgnet.training.equations.collocation import Collocation
from mgnet.training.equations.term import Term

__all__ = ["by_residual", "minibatches", "resampled"]

Data = tuple[torch.Tensor, torch.Tensor]


def minibatches(data: Data, size: int, seed: int = 0) -> Iterator[Data]:
    """Endless batches of `size` samples: every sample once per epoch, in a new order each.

    What is left of an epoch when fewer than `size` samples remain is not used.

    Parameters
    ----------
    data : (inputs, targets)
    size : int
        At most the number of samples.
    seed : int

    Examples
    --------
    >>> x = torch.arange(6.0).unsqueeze(1)
    >>> batches = minibatches((x, x), 3)
    >>> sorted(torch.cat([next(batches)[0], next(batches)[0]]).flatten().tolist())
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    samples = len(data[0])
    if not 1 <= size <= samples:
        raise ValueError(f"minibatches got size {size} for {samples} samples; give 1 to {samples}")
    return _epochs(data, size, torch.Generator().manual_seed(seed))


def _epochs(data: Data, size: int, generator: torch.Generator) -> Iterator[Data]:
    samples = len(data[0])
    while True:
        order = torch.randperm(samples, generator=generator).to(data[0].device)
        for first in range(0, samples - size + 1, size):
            chosen = order[first : first + size]
            yield data[0][chosen], data[1][chosen]


def resampled(
    terms: Sequence[Term],
    draw: Sequence[Callable[[torch.Generator], torch.Tensor] | None],
    seed: int = 0,
) -> Iterator[tuple[Term, ...]]:
    """Endless batches for a `Collocation`: its terms at new points each time.

    Parameters
    ----------
    terms : sequence of Term
    draw : sequence of callable or None
        For each term `generator -> points`; None keeps the points.
    seed : int

    Examples
    --------
    >>> terms = [Term(lambda u: u.value, torch.zeros(4, 1))]
    >>> (term,) = next(resampled(terms, [lambda generator: torch.rand(4, 1, generator=generator)]))
    >>> term.points.shape
    torch.Size([4, 1])
    """
    if len(terms) != len(draw):
        raise ValueError(
            f"resampled got {len(terms)} terms and {len(draw)} functions that draw points; "
            "give one for each term, None to keep its points"
        )
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield tuple(
            term if new is None else replace(term, points=new(generator), attention=None)
            for term, new in zip(terms, draw, strict=True)
        )


def by_residual(
    problem: Collocation,
    u: torch.Tensor,
    candidates: torch.Tensor,
    count: int,
    generator: torch.Generator,
    *,
    power: float = 1.0,
    share: float = 0.5,
) -> torch.Tensor:
    """Points for the first term: some of the candidates, more of them where its residual is large.

    Source: Wu et al., arXiv 2207.10289 (RAD), equation (2).

    Parameters
    ----------
    problem : Collocation
    u : tensor
        The parameters at which residuals are taken.
    candidates : tensor of shape (many, inputs)
    count : int
        Points to draw, at most the number of candidates.
    generator : torch.Generator
    power : float
        Of the residual in the probability.
    share : float
        Of the points drawn this way, 0 to 1; the others are drawn evenly.

    Returns
    -------
    tensor of shape (count, inputs)

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> x = torch.linspace(-1, 1, 100, dtype=torch.float64).unsqueeze(1)
    >>> problem = Collocation(KAN([1, 1]), [Term(lambda u: u.value, x)])
    >>> by_residual(problem, problem.start(), x, 10, torch.Generator().manual_seed(0)).shape
    torch.Size([10, 1])
    """
    if not 1 <= count <= len(candidates):
        raise ValueError(
            f"by_residual got {len(candidates)} candidates for {count} points; "
            "give at least as many, several times as many are better"
        )
    term = replace(problem.terms[0], points=candidates, attention=None)
    (r,) = problem.with_data([term]).unscaled(u)
    size = r.norm(dim=1) ** power
    wrong = int((~torch.isfinite(size)).sum())
    if wrong:
        raise ValueError(
            f"by_residual got a residual that is not finite at {wrong} of {len(size)} candidates; "
            "give points where it is defined"
        )
    chance = share * size / size.mean().clamp_min(torch.finfo(size.dtype).tiny) + 1.0 - share
    chosen = torch.multinomial((chance + 1e-12).to(generator.device), count, generator=generator)
    return candidates[chosen.to(candidates.device)]
