"""Means of a metric over batches, for several ways to evaluate a module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["evaluating", "means"]


def means(
    outputs: Callable[[Tensor, Sequence[str]], Iterable[Tensor]],
    metric: Callable[[Tensor, Any], Any],
    batches: Iterable[tuple[Tensor, Any]],
    ways: Sequence[str],
) -> dict[str, float]:
    """The mean of `metric(output, target)` for each way, weighted by the sizes of the batches.

    Parameters
    ----------
    outputs : callable
        `(x, ways) -> the output of each way`.
    metric : callable
    batches : iterable of (x, target)
    ways : sequence of str

    Examples
    --------
    >>> import torch
    >>> batches = [(torch.ones(2), None), (torch.zeros(6), None)]
    >>> means(lambda x, ways: [x, 2.0 * x], lambda y, _: y.mean(), batches, ("once", "twice"))
    {'once': 0.25, 'twice': 0.5}
    """
    total, count = dict.fromkeys(ways, 0.0), 0
    for x, target in batches:
        for way, output in zip(ways, outputs(x, ways), strict=True):
            total[way] += len(x) * float(metric(output, target))
        count += len(x)
    return {way: total[way] / max(count, 1) for way in ways}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; after, each part has the mode that it had.

    Examples
    --------
    >>> dropout = nn.Dropout(0.5)
    >>> with evaluating(dropout):
    ...     dropout.training
    False
    >>> dropout.training
    True
    """
    training = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in training:
            part.training = mode
