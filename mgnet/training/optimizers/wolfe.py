"""A line search for the strong Wolfe conditions, from values and slopes along a ray."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Trial", "strong_wolfe"]


class Trial(NamedTuple):
    """A point on the ray: its length, the value and the slope there, and the gradient."""

    length: float
    value: float
    slope: float
    gradient: Any = None


def strong_wolfe(
    evaluate: Callable[[float], Trial],
    start: Trial,
    length: float = 1.0,
    *,
    decrease: float = 1e-4,
    curvature: float = 0.9,
    trials: int = 25,
) -> Trial | None:
    """Find a point with sufficient decrease and a sufficiently small slope.

    The conditions are `value <= start.value + decrease * length * start.slope` and
    `|slope| <= -curvature * start.slope`. The search finds a bracket by cubic extrapolation, then
    narrows it by cubic interpolation. Source: Nocedal and Wright, Numerical Optimization (2006),
    algorithms 3.5 and 3.6, equation (3.59).

    Parameters
    ----------
    evaluate : callable
        `length -> Trial`; values may be NaN or Inf, which count as too high.
    start : Trial
        Trial of length 0, with a negative slope.
    length : float
        Length of the first trial.
    decrease, curvature : float
        Parameters of the conditions, dimensionless, `0 < decrease < curvature < 1`.
    trials : int
        Largest number of evaluations.

    Returns
    -------
    Trial or None
        The point; if the trials are used up, the lowest trial with sufficient decrease, or None.

    Examples
    --------
    >>> parabola = lambda t: Trial(t, (t - 3.0) ** 2, 2.0 * (t - 3.0))
    >>> strong_wolfe(parabola, parabola(0.0), curvature=0.1).length
    3.0
    """
    low, high = start, None  # low: the lowest so far; a minimum lies between the two
    for _ in range(trials):
        new = evaluate(length)
        enough = start.value + decrease * length * start.slope
        if not (new.value <= enough and new.value < low.value and math.isfinite(new.slope)):
            high = new
        elif abs(new.slope) <= -curvature * start.slope:
            return new
        else:
            if new.slope * (1.0 if high is None else high.length - low.length) >= 0.0:
                high = low
            low, before = new, low
        if high is None:
            guess = _minimum(before, low)
            length = low.length * (
                2.0 if guess is None else min(max(guess / low.length, 2.0), 10.0)
            )
        else:
            span = high.length - low.length
            if span == 0.0:  # narrowed down to rounding
                break
            guess = _minimum(low, high)
            share = 0.5 if guess is None else (guess - low.length) / span
            length = low.length + min(max(share, 0.1), 0.9) * span
    return None if low is start else low


def _minimum(a: Trial, b: Trial) -> float | None:
    """The minimum of the cubic through two points with slopes; None if it has no minimum."""
    span = b.length - a.length
    mean = a.slope + b.slope - 3.0 * (b.value - a.value) / span
    left, right = a.slope, b.slope
    size = max(abs(left), abs(right), abs(mean))
    if not 1e-140 < size < 1e140:  # squares would underflow or overflow
        unit = math.ldexp(1.0, math.frexp(size)[1] - 1) if 0.0 < size < math.inf else 1.0
        left, right, mean = left / unit, right / unit, mean / unit
    root = mean * mean - left * right
    if not (math.isfinite(root) and root >= 0.0):
        return None
    signed = math.copysign(math.sqrt(root), span)
    divisor = right - left + 2.0 * signed
    return None if divisor == 0.0 else b.length - span * (right + signed - mean) / divisor
