"""The limits of a solve, checked in one place for all functions that return a `Solution`."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

__all__ = ["check_limits"]


def check_limits(
    owner: str,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    max_cycles: int = 1,
    seconds: float = math.inf,
    monitor: Callable[..., Any] | None = None,
) -> None:
    """Raise unless tolerances are not negative, the limits positive and the monitor a function.

    Parameters
    ----------
    owner : str
        The function or class that got them, for the message.
    rtol, atol : float
    max_cycles : int
    seconds : float
    monitor : callable, optional

    Raises
    ------
    TypeError
        If one is of the wrong kind.
    ValueError
        If one is out of its range.

    Examples
    --------
    >>> check_limits("Solver", rtol=1e-8, max_cycles=0)
    Traceback (most recent call last):
    ValueError: Solver got max_cycles 0; it must be at least 1
    """
    for name, number in (("rtol", rtol), ("atol", atol), ("seconds", seconds)):
        if not isinstance(number, Real):
            raise TypeError(f"{owner} got {name} {number!r}; it must be a number")
    if not isinstance(max_cycles, Integral):
        raise TypeError(f"{owner} got max_cycles {max_cycles!r}; it must be an integer")
    for name, number in (("rtol", rtol), ("atol", atol)):
        if not number >= 0.0:  # NaN, too
            raise ValueError(f"{owner} got {name} {number}; it must not be negative")
    if max_cycles < 1:
        raise ValueError(f"{owner} got max_cycles {max_cycles}; it must be at least 1")
    if not seconds > 0.0:
        raise ValueError(f"{owner} got seconds {seconds}; it must be positive")
    if monitor is not None and not callable(monitor):
        raise TypeError(
            f"{owner} got a monitor of type {type(monitor).__name__}; give a function of the "
            "history entry and the state, such as print"
        )
