"""A hierarchy that contains only the costs of its levels."""

from __future__ import annotations

import numpy as np

from mgnet.hierarchy import Hierarchy
from mgnet.level import Level
from mgnet.limits import is_number, is_whole, shown
from mgnet.smoother import Jacobi
from mgnet.transfer import MatrixTransfer

__all__ = ["cost_model"]

TINY = float(np.finfo(float).tiny)


def cost_model(levels: int, ratio: float = 2.0) -> Hierarchy:
    """Levels that each cost `1 / ratio` of the next finer level; they count work and solve nothing.

    Sweeps, coarse solves and residuals cost one evaluation each; coarse levels compute corrections.

    Parameters
    ----------
    levels : int
        Number of levels, at most 1000.
    ratio : float
        Ratio of the costs of adjacent levels, at least 1.

    Returns
    -------
    Hierarchy
        Levels without matrices.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from mgnet import cycle
    >>> print(cycle(2).work(cost_model(2)))
    3.5 work units
    """
    if not is_whole(levels, 1, 1000) or not is_number(ratio, 1.0, 1e300):
        raise ValueError(
            f"cost_model got {shown(levels)} levels and the ratio {shown(ratio)}; give 1 to 1000 "
            "levels, and a ratio of at least 1"
        )
    one = np.ones((1, 1))
    down = MatrixTransfer(one)
    return Hierarchy(
        [
            Level(
                one,
                Jacobi(),
                down if number < levels - 1 else None,
                cost=max(float(ratio) ** -number, TINY),  # 0 would mean that no cost is given
            )
            for number in range(levels)
        ]
    )
