"""Plans whose layers or steps differ in cost: costs of coarse layers, and balanced blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mgnet.limits import shown

__all__ = ["checked_costs", "even_blocks", "level_costs"]

LARGEST = 1e30  # how often a cost may be counted


def checked_costs(owner: str, costs: Any, layers: int) -> np.ndarray | None:
    """Return the costs as an array with an entry per layer; None stays None.

    Raises
    ------
    ValueError
        If the number of costs is wrong, or they are negative, not finite, or all zero.

    Examples
    --------
    >>> checked_costs("plan", [1.0, 2.0], 3)
    Traceback (most recent call last):
    ValueError: plan got costs [1.0, 2.0]; give one for each of the 3 layers, with a finite sum,
    not negative, and one of them positive
    """
    if costs is None:
        return None
    try:
        found = np.asarray(costs, dtype=float)
    except (TypeError, ValueError):
        found = np.empty(0)
    with np.errstate(over="ignore"):  # cycles count costs many times
        fits = found.shape == (layers,) and np.isfinite(LARGEST * found.sum())
    if not fits or not (found >= 0.0).all() or not found.any():
        raise ValueError(
            f"{owner} got costs {shown(costs)}; give one for each of the {layers} layers, with a "
            "finite sum, not negative, and one of them positive"
        )
    return found


def level_costs(costs: np.ndarray, factors: Sequence[int], coarse: str) -> list[np.ndarray]:
    """The cost of every layer on every level.

    Parameters
    ----------
    costs : array of shape (N,)
        Costs of the layers of level 0.
    factors : sequence of int
        Coarsening factor from each level to the next.
    coarse : str
        Kind of coarse layers. A coarse layer costs the mean of the layers that it represents; a
        "fused" layer costs their sum, and an "identity" layer nothing.

    Returns
    -------
    list of array
        The costs, finest level first.

    Examples
    --------
    >>> level_costs(np.array([1.0, 3.0, 5.0]), (2,), "mean")
    [array([1., 3., 5.]), array([2., 5.])]
    """
    found, counts = [costs], np.ones(len(costs))
    sums = costs
    for factor in factors:
        begins = range(0, len(sums), factor)
        sums, counts = np.add.reduceat(sums, begins), np.add.reduceat(counts, begins)
        found.append({"fused": sums, "identity": 0.0 * sums}.get(coarse, sums / counts))
    return found


def even_blocks(costs: np.ndarray, factor: int, ranks: int) -> np.ndarray:
    """The first layer of each rank's block on the coarsest level, and the end of the last block.

    Each rank gets at least one whole layer of the coarsest level, such that the costs of the fine
    layers are about the same on all ranks.

    Parameters
    ----------
    costs : array of shape (N,)
        Costs of the layers of level 0.
    factor : int
        Number of layers of level 0 per coarsest layer.
    ranks : int
        Number of ranks, at most the size of the coarsest level.

    Returns
    -------
    array of shape (ranks + 1,)
        The boundaries of the blocks.

    Examples
    --------
    >>> even_blocks(np.array([9.0, 1.0, 1.0, 1.0, 1.0, 1.0]), 1, 2)
    array([0, 1, 6])
    """
    sums = np.cumsum(np.add.reduceat(costs, range(0, len(costs), factor)))
    coarsest = len(sums)
    begins = [0]
    for rank in range(1, ranks):
        at = int(np.argmin(abs(sums - sums[-1] * rank / ranks))) + 1
        begins.append(min(max(at, begins[-1] + 1), coarsest - (ranks - rank)))
    return np.array([*begins, coarsest])
