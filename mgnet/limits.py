"""What numbers may be: limits of a solve, of schedules and of texts, checked in one place."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

__all__ = [
    "MOST_STEPS",
    "MOST_SWEEPS",
    "MOST_UNKNOWNS",
    "check_limits",
    "is_number",
    "is_one_of",
    "is_whole",
    "shown",
]

#: Steps of a schedule. A W-cycle on 17 levels has 294908. Half a million are made and checked in a
#: fraction of a second, read from a list of steps in two; a run of so many takes several seconds
#: for the steps alone, so more would hardly be meant.
MOST_STEPS = 500_000
#: Unknowns of a model problem: its matrices take about 200 bytes for each, 20 GB.
MOST_UNKNOWNS = 10**8
#: Sweeps of one step: nine digits, as `parse` reads them.
MOST_SWEEPS = 10**9 - 1


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
        if not isinstance(number, Real) or isinstance(number, bool):
            raise TypeError(f"{owner} got {name} {shown(number)}; it must be a number")
    if not isinstance(max_cycles, Integral) or isinstance(max_cycles, bool):
        raise TypeError(f"{owner} got max_cycles {shown(max_cycles)}; it must be an integer")
    for name, number in (("rtol", rtol), ("atol", atol)):
        if not number >= 0.0:  # NaN, too
            raise ValueError(f"{owner} got {name} {shown(number)}; it must not be negative")
    if max_cycles < 1:
        raise ValueError(f"{owner} got max_cycles {shown(max_cycles)}; it must be at least 1")
    if not seconds > 0.0:
        raise ValueError(f"{owner} got seconds {shown(seconds)}; it must be positive")
    for name, number in (("rtol", rtol), ("atol", atol), ("seconds", seconds)):
        if not is_number(number):
            raise ValueError(f"{owner} got {name} {shown(number)}; it is beyond the largest float")
    if monitor is not None and not callable(monitor):
        raise TypeError(
            f"{owner} got a monitor of type {type(monitor).__name__}; give a function of the "
            "history entry and the state, such as print"
        )


def is_whole(value: Any, least: float = 0, most: float = 2**63 - 1) -> bool:
    """Whether it is an integer from `least` to `most`; True and False are none.

    By default `most` is what a counter of NumPy holds: larger ones fail where they are printed,
    multiplied or made an index.

    Parameters
    ----------
    value : object
    least : int, or minus infinity
    most : int, or infinity

    Examples
    --------
    >>> [is_whole(value, 1) for value in (3, 0, 3.0, True, 10**30)]
    [True, False, False, False, False]
    """
    if type(value) is not int and (not isinstance(value, Integral) or isinstance(value, bool)):
        return False
    return least <= value <= most  # type: ignore[operator]


def is_one_of(value: Any, words: tuple[str, ...]) -> bool:
    """Whether it is one of these words.

    Parameters
    ----------
    value : object
        An array or a huge integer, too, which do not compare.
    words : tuple of str

    Examples
    --------
    >>> is_one_of("lu", ("lu", "pinv")), is_one_of(None, ("lu", "pinv"))
    (True, False)
    """
    return isinstance(value, str) and value in words


def is_number(
    value: Any, least: float = -math.inf, most: float = math.inf, *, open: bool = False
) -> bool:
    """Whether it is a real number from `least` to `most`; NaN, True and False are none.

    An integer or a fraction beyond the largest float is none, either: it would fail in the first
    product.

    Parameters
    ----------
    value : object
    least, most : float
    open : bool
        Whether `least` and `most` themselves are left out.

    Examples
    --------
    >>> [is_number(value, 0.0) for value in (0, 0.5, -1.0, float("nan"), 10**400, "1", True)]
    [True, True, False, False, False, False, False]
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        number = float(value)
    except OverflowError:
        return False
    return least < number < most if open else least <= number <= most


class _Short(reprlib.Repr):
    """`repr` that looks at the beginning of long values only."""

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 128 else f"an integer of {x.bit_length()} bits"


def shown(value: Any, most: int = 60) -> str:
    """The value as a refusal shows it: in one line, and not longer than `most` characters.

    Parameters
    ----------
    value : object
    most : int

    Examples
    --------
    >>> shown("V(1,1)"), shown(10**5000), shown("x" * 10**6, 20)
    ("'V(1,1)'", 'an integer of 16610 bits', "'xxxxxxx...xxxxxxxx'")
    """
    if isinstance(value, np.generic):
        value = value.item()  # NumPy 2 shows the type, too
    short = _Short()
    short.maxstring = short.maxother = short.maxlong = most
    text = short.repr(value)
    if not isinstance(value, str):
        text = " ".join(text.split())  # the rows of an array
    return text if len(text) <= most else f"{text[: most - 3]}..."
