"""Checks of numbers: limits of a solve, of schedules, texts and memory, in one place.

Sizes are computed before anything is built. An impossible size is then refused at once with one
sentence, and not by an allocator after it has filled the memory.
"""

from __future__ import annotations

import math
import os
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
    "check_memory",
    "doubled",
    "is_count",
    "is_number",
    "is_one_of",
    "is_whole",
    "machine_memory",
    "shown",
    "typed",
    "written",
]

#: Steps of a schedule. A W-cycle on 17 levels has 294908. Half a million steps are built and
#: checked in a fraction of a second, or read from a list of steps in two; their interpretation
#: alone takes several seconds, so more are hardly intended.
MOST_STEPS = 500_000
#: Unknowns of a model problem: the matrices take about 200 bytes per unknown, 20 GB in all.
MOST_UNKNOWNS = 10**8
#: Sweeps of one step: nine digits, the most that `parse` reads.
MOST_SWEEPS = 10**9 - 1
UNKNOWN = 2**47  # bytes, if the system does not report its memory: what one process can address


def check_limits(
    owner: str,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    max_cycles: int = 1,
    seconds: float = math.inf,
    monitor: Callable[..., Any] | None = None,
    ftol: float = 0.0,
    xtol: float = 0.0,
    gtol: float = 0.0,
) -> None:
    """Check that tolerances are not negative, limits are positive, and a monitor is a function.

    Parameters
    ----------
    owner : str
        Name of the function or class in the message.
    rtol, atol : float
        Tolerances of the residual norm.
    max_cycles : int
        Limit on the number of cycles.
    seconds : float
        Limit on the wall time.
    monitor : callable, optional
        Function that is called after every cycle.
    ftol, xtol, gtol : float
        Tolerances of an optimization.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> check_limits("Solver", rtol=1e-8, max_cycles=0)
    Traceback (most recent call last):
    ValueError: Solver got max_cycles 0; it must be at least 1
    """
    tolerances = {"rtol": rtol, "atol": atol, "ftol": ftol, "xtol": xtol, "gtol": gtol}
    numbers = {**tolerances, "seconds": seconds}
    for name, number in numbers.items():
        if not isinstance(number, Real) or isinstance(number, bool):
            raise TypeError(f"{owner} got {name} {shown(number)}; it must be a number")
    if not isinstance(max_cycles, Integral) or isinstance(max_cycles, bool):
        raise TypeError(f"{owner} got max_cycles {shown(max_cycles)}; it must be an integer")
    for name, number in tolerances.items():
        if not number >= 0.0:  # NaN, too
            raise ValueError(f"{owner} got {name} {shown(number)}; it must not be negative")
    if max_cycles < 1:
        raise ValueError(f"{owner} got max_cycles {shown(max_cycles)}; it must be at least 1")
    if not seconds > 0.0:
        raise ValueError(f"{owner} got seconds {shown(seconds)}; it must be positive")
    for name, number in numbers.items():
        if not is_number(number):
            raise ValueError(f"{owner} got {name} {shown(number)}; it is beyond the largest float")
    if monitor is not None and not callable(monitor):
        raise TypeError(
            f"{owner} got a monitor of type {type(monitor).__name__}; give a function of the "
            "history entry and the state, such as print"
        )


def doubled(count: int, times: int, most: float = math.inf) -> int:
    """Double a count the given number of times, but not beyond `most`.

    Parameters
    ----------
    count, times : int
        The count, and the number of doublings.
    most : int, or infinity
        Upper bound of the result.

    Examples
    --------
    >>> doubled(8, 5), doubled(8, 5, 16), doubled(8, 5, 100)
    (256, 16, 64)
    """
    while times > 0 and 2 * count <= most:
        count, times = 2 * count, times - 1
    return count


def is_whole(value: Any, least: float = 0, most: float = 2**63 - 1) -> bool:
    """Whether a value is an integer from `least` to `most`; True and False do not count.

    The default of `most` is the largest value of NumPy's integers: larger numbers fail when they
    are printed, multiplied or used as an index.

    Parameters
    ----------
    value : object
        Value to test.
    least : int, or minus infinity
        Lower bound.
    most : int, or infinity
        Upper bound.

    Examples
    --------
    >>> [is_whole(value, 1) for value in (3, 0, 3.0, True, 10**30)]
    [True, False, False, False, False]
    """
    if type(value) is not int and (not isinstance(value, Integral) or isinstance(value, bool)):
        return False
    return least <= value <= most  # type: ignore[operator]


def is_count(value: Any, least: int = 1) -> bool:
    """Whether a value is an integer of at least `least`, however large; booleans do not count.

    Use it for sizes: a size that is too large is refused later, because of the memory it needs.

    Parameters
    ----------
    value : object
        Value to test.
    least : int
        Lower bound.

    Examples
    --------
    >>> is_count(3), is_count(True), is_count(2.0), is_count(0), is_count(10**30)
    (True, False, False, False, True)
    """
    return is_whole(value, least, math.inf)


def is_one_of(value: Any, words: tuple[str, ...]) -> bool:
    """Whether a value is one of these words.

    Parameters
    ----------
    value : object
        Value to test; arrays and huge integers, which cannot be compared, are allowed.
    words : tuple of str
        Allowed words.

    Examples
    --------
    >>> is_one_of("lu", ("lu", "pinv")), is_one_of(None, ("lu", "pinv"))
    (True, False)
    """
    return isinstance(value, str) and value in words


def is_number(
    value: Any, least: float = -math.inf, most: float = math.inf, *, open: bool = False
) -> bool:
    """Whether a value is a real number from `least` to `most`; NaN and booleans do not count.

    An integer or a fraction beyond the largest float does not count either: the first product with
    it would fail.

    Parameters
    ----------
    value : object
        Value to test.
    least, most : float
        Bounds.
    open : bool
        Whether the bounds themselves are excluded.

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


def written(number: int) -> str:
    """Write an integer in digits, or as a power of ten if it has too many digits.

    Examples
    --------
    >>> written(1024), written(10**30), written(-(10**30))
    ('1024', 'about 1e30', 'about -1e30')
    """
    number = int(number)
    if abs(number) < 10**15:
        return str(number)
    digits = round(abs(number).bit_length() * math.log10(2.0) - 0.15)  # `str` refuses long ones
    return f"about {'-' if number < 0 else ''}1e{digits}"


class _Short(reprlib.Repr):
    """A `repr` that reads only the beginning of long values."""

    def repr_int(self, x: int, level: int) -> str:
        return written(x)


def shown(value: Any, most: int = 60) -> str:
    """Format a value for an error message: in one line of at most `most` characters.

    Parameters
    ----------
    value : object
        Value to format.
    most : int
        Largest number of characters.

    Examples
    --------
    >>> shown("V(1,1)"), shown(10**5000), shown("x" * 10**6, 20)
    ("'V(1,1)'", 'about 1e5000', "'xxxxxxx...xxxxxxxx'")
    """
    if isinstance(value, np.generic):
        value = value.item()  # NumPy 2 prints the type, too
    short = _Short()
    short.maxstring = short.maxother = short.maxlong = most
    text = short.repr(value)
    if not isinstance(value, str):
        text = " ".join(text.split())  # the rows of an array
    return text if len(text) <= most else f"{text[: most - 3]}..."


def typed(what: str, value: Any) -> str:
    """Name the type of a wrong argument, and tell a class from an instance.

    Examples
    --------
    >>> typed("a smoother", "jacobi"), typed("a smoother", int)
    ('a smoother of type str', 'the class int as a smoother')
    """
    if isinstance(value, type):
        return f"the class {value.__name__} as {what}"
    return f"{what} of type {type(value).__name__}"


def machine_memory() -> int:
    """Bytes of memory of this machine.

    Examples
    --------
    >>> machine_memory() > 2**28
    True
    """
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return UNKNOWN


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Raise an error unless the machine has enough memory; called before anything is built.

    Parameters
    ----------
    needed : int
        Bytes that are needed.
    what : str
        Function, argument and size: the first half of the message.
    remedy : str
        The end of the message.

    Raises
    ------
    ValueError
        If the machine has less memory.

    Examples
    --------
    >>> check_memory(8, "KAN got 1 coefficient", "use fewer")
    """
    here = machine_memory()
    if needed > here:
        size = written(needed // 2**30)
        raise ValueError(
            f"{what}, which needs {size} GiB of memory at least, and this machine has "
            f"{here / 2**30:.0f}; {remedy}"
        )
