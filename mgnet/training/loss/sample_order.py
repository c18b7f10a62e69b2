"""In which order samples are seen: the first m of it are an even part, for every m.

Coarse levels that see few samples take the first of one order, so what a level sees is part of what
every finer one sees, whatever the order of the table is.
"""

from __future__ import annotations

import math

import numpy as np
import torch

__all__ = ["sample_order", "shares"]

SEED = 0  # of the one permutation: the same on every level, in every run


def sample_order(samples: int, targets: torch.Tensor | None = None) -> torch.Tensor:
    """A permutation of the samples; the first of it have all labels, in their proportions.

    Labels are targets with few values, at most the root of the number of samples, as classes have:
    the first samples have one label each, and their numbers grow alike from there on. Targets with
    more values are permuted at random.

    Parameters
    ----------
    samples : int
    targets : tensor with the samples on axis 0, optional

    Returns
    -------
    tensor of int64
        The same one in every call with as many samples and the same labels.

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
        # The k-th sample of a label that n samples have comes at k / n; ties as they were drawn.
        place = np.empty(samples)
        by_label = np.argsort(drawn, kind="stable")
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        place[by_label] = (np.arange(samples) - starts) / np.repeat(sizes, sizes)
        order = order[np.argsort(place, kind="stable")]
    return torch.from_numpy(order)


def _labels(targets: torch.Tensor) -> np.ndarray | None:
    """The number of the label of each sample; None where there are too many values for labels."""
    most = math.isqrt(len(targets))
    rows = targets.detach().flatten(1) if targets.dim() > 1 else targets.detach().unsqueeze(1)
    axis = None if rows.shape[1] == 1 else 0  # numbers alone are sorted much faster than rows
    if len(rows[: 2 * most + 2].unique(dim=axis)) > most:
        return None  # a few rows tell most tables
    values, labels = rows.unique(dim=axis, return_inverse=True)
    return labels.flatten().cpu().numpy() if len(values) <= most else None


def shares(count: int, sizes: list[int]) -> list[int]:
    """How many of each of several kinds, `count` in all: the small kinds whole, the others alike.

    Parameters
    ----------
    count : int
    sizes : list of int

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
