"""Batches for `Solver(batches=...)`: one per cycle, the same on every level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from mgnet.training.equations.collocation import Collocation
from mgnet.training.equations.term import Term

__all__ = ["by_residual", "minibatches", "resampled"]

Data = tuple[torch.Tensor, torch.Tensor]


def minibatches(data: Data, size: int, seed: int = 0) -> Iterator[Data]:
    """Endless batches of `size` samples; each epoch visits the samples once, in a new order.

    If fewer than `size` samples remain at the end of an epoch, they are not used.

    Parameters
    ----------
    data : (inputs, targets)
        Tensors with one row per sample.
    size : int
        Samples per batch, at most the number of samples.
    seed : int
        Seed of the random order.

    Raises
    ------
    ValueError
        If the size is out of range.

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
    """Endless batches for a `Collocation`, in each of which its terms have new points.

    Parameters
    ----------
    terms : sequence of Term
        Terms whose points are replaced.
    draw : sequence of callable or None
        For each term a function `generator -> points`; None keeps the points.
    seed : int
        Seed of the generator.

    Raises
    ------
    ValueError
        If there is not one function or None for each term.

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
    """Select points for the first term from candidates, preferably where its residual is large.

    Source: Wu et al., arXiv 2207.10289 (RAD), equation (2).

    Parameters
    ----------
    problem : Collocation
        Problem whose first term gives the residual.
    u : tensor
        Parameters at which residuals are evaluated.
    candidates : tensor of shape (many, inputs)
        Points to choose from.
    count : int
        Number of points to select, at most the number of candidates.
    generator : torch.Generator
        Source of random numbers.
    power : float
        Exponent of the residual in the probability of a point.
    share : float
        Fraction of the points drawn this way, from 0 to 1; the other points are drawn uniformly.

    Returns
    -------
    tensor of shape (count, inputs)
        The selected points.

    Raises
    ------
    ValueError
        If there are too few candidates, or a residual is not finite.

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
            "give at least that many, preferably several times as many"
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
