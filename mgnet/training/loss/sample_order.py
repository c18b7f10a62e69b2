"""An order of the samples in which the first m are representative, for every m.

Coarse levels with few samples use the first samples in this order, so the samples of a level are a
subset of those of every finer level, however the data are sorted.
"""

from __future__ import annotations

import math

import numpy as np
import torch

__all__ = ["sample_order", "shares"]

SEED = 0  # of the permutation, which is the same on every level and in every run


def sample_order(samples: int, targets: torch.Tensor | None = None) -> torch.Tensor:
    """A permutation of the samples; the first ones, however many, have all labels in proportion.

    Labels are targets with few distinct values, at most the square root of the number of samples,
    such as classes. Every label occurs once among the first samples, and then the counts grow in
    proportion. Targets with more values are permuted at random.

    Parameters
    ----------
    samples : int
        Number of samples.
    targets : tensor with the samples on axis 0, optional
        Targets of the samples.

    Returns
    -------
    tensor of int64
        The same permutation in every call with the same number of samples and the same labels.

    Examples
    --------
    >>> labels = torch.tensor([0] * 90 + [1] * 10)
    >>> labels[sample_order(100, labels)[:20]].sum().item()
    2
    """
    order = np.random.default_rng(SEED).permutation(samples)
    labels = None if targets is None else _labels(targets)
    if labels is not None:
        drawn = labels[order]
        sizes = np.bincount(labels)
        # The k-th sample of a label that n samples have is placed at k / n; ties keep their random
        # order.
        place = np.empty(samples)
        by_label = np.argsort(drawn, kind="stable")
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        place[by_label] = (np.arange(samples) - starts) / np.repeat(sizes, sizes)
        order = order[np.argsort(place, kind="stable")]
    return torch.from_numpy(order)


def _labels(targets: torch.Tensor) -> np.ndarray | None:
    """The label number of each sample; None if there are too many distinct values for labels."""
    most = math.isqrt(len(targets))
    rows = targets.detach().flatten(1) if targets.dim() > 1 else targets.detach().unsqueeze(1)
    axis = None if rows.shape[1] == 1 else 0  # numbers are sorted much faster than rows
    if len(rows[: 2 * most + 2].unique(dim=axis)) > most:
        return None  # a few rows decide for most tables
    values, labels = rows.unique(dim=axis, return_inverse=True)
    return labels.flatten().cpu().numpy() if len(values) <= most else None


def shares(count: int, sizes: list[int]) -> list[int]:
    """Divide `count` among several kinds: small kinds are taken whole, the other kinds equally.

    Parameters
    ----------
    count : int
        Total number.
    sizes : list of int
        Available number of each kind.

    Examples
    --------
    >>> shares(100, [1000, 10, 500]), shares(100, [20, 30])
    ([45, 10, 45], [20, 30])
    """
    found, left = list(sizes), count
    by_size = sorted(range(len(sizes)), key=lambda kind: sizes[kind])
    for done, kind in enumerate(by_size):
        found[kind] = min(sizes[kind], max(1, left // (len(sizes) - done)))
        left -= found[kind]
    return found
