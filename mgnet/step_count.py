"""Compute the number of steps of a schedule before it is built.

The counts are sums of binomials: a kappa-cycle arrives `C(i, 0) + ... + C(i, kappa - 1)` times on
level i below the finest, and the sum of a column of Pascal's triangle is in the next column.
"""

from __future__ import annotations

import math

from mgnet.limits import MOST_STEPS

__all__ = ["check_steps", "cycle_steps", "nested_steps"]

# Counts above this are not exact, since they may have more digits than fit in memory.
ENOUGH = 10**18


def cycle_steps(levels: int, kappa: float = 1, pre: int = 1, post: int = 1) -> int:
    """Number of steps of `cycle(levels, kappa, pre, post)`; above 10^18 only a lower bound.

    Parameters
    ----------
    levels : int
        Number of levels.
    kappa : int or math.inf
        Counter of the recursion: 1 for V, 2 for F, infinity for W.
    pre, post : int
        Sweeps before and after each coarse correction.

    Examples
    --------
    >>> cycle_steps(8, math.inf), cycle_steps(22, math.inf), cycle_steps(10**9, 2) > 10**18
    (572, 9437180, True)
    """
    if levels == 1:
        return 1
    own, depth = 2 + (pre > 0) + (post > 0), levels - 1
    return own * _sum(depth, 1, kappa) + _sum(depth - 1, 0, kappa)


def nested_steps(
    levels: int, kappa: float = 1, pre: int = 1, post: int = 1, cycles: int = 1
) -> int:
    """Number of steps of `nested(levels, kappa, pre, post, cycles)`; otherwise like `cycle_steps`.

    Parameters
    ----------
    levels : int
        Number of levels.
    kappa : int or math.inf
        Counter of the recursion: 1 for V, 2 for F, infinity for W.
    pre, post, cycles : int
        Sweeps before and after each coarse correction, and cycles per level.

    Examples
    --------
    >>> nested_steps(64, 2)
    176801
    """
    own, depth = 2 + (pre > 0) + (post > 0), levels - 1
    kappa = min(kappa, depth)
    return 2 + depth + cycles * (own * _sum(depth + 1, 2, kappa) + _sum(depth, 1, kappa))


def _sum(n: int, first: int, terms: float) -> int:
    """`C(n, first) + C(n, first + 1) + ...`, up to the last nonzero term or until large enough."""
    total = 0
    term = math.comb(n, first)
    m = first
    while m - first < terms and term and total <= ENOUGH:
        total += term
        term = term * (n - m) // (m + 1)
        m += 1
    return total


def check_steps(steps: int, what: str, remedy: str) -> None:
    """Raise an error for more steps than `MOST_STEPS`.

    Parameters
    ----------
    steps : int
        Number of steps.
    what : str
        Name of the schedule in the message.
    remedy : str
        The end of the message.

    Raises
    ------
    ValueError
        If there are more steps than `MOST_STEPS`.

    Examples
    --------
    >>> check_steps(4 * 10**6, "the schedule W(1,1) on 22 levels", "take fewer levels")
    Traceback (most recent call last):
    ValueError: the schedule W(1,1) on 22 levels has 4000000 steps; at most 500000 are allowed, so
    take fewer levels
    """
    if steps > MOST_STEPS:
        told = f"{steps}" if steps <= ENOUGH else "more than 10^18"
        raise ValueError(f"{what} has {told} steps; at most {MOST_STEPS} are allowed, so {remedy}")
