"""Limits, checked in one place: those of a solve, and what memory can hold.

Sizes are counted before anything is built, so that one that cannot be is refused at once, in a
sentence, and not by an allocator that has filled the machine first.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

__all__ = ["check_limits", "check_memory", "is_count", "machine_memory", "shown", "written"]

UNKNOWN = 2**47  # bytes, where the system does not tell: what one process can address
SHOWN = reprlib.Repr()
SHOWN.maxlist = SHOWN.maxtuple = 6
SHOWN.maxstring = SHOWN.maxother = 60


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


def is_count(value: Any, least: int = 1) -> bool:
    """Whether a value is an integer of at least `least`; True and False are none.

    Examples
    --------
    >>> is_count(3), is_count(True), is_count(2.0), is_count(0)
    (True, False, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least


def written(number: int) -> str:
    """An integer in digits, or as a power of ten where these would be many.

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


def shown(value: Any) -> str:
    """A value in a message: short, whatever it is.

    Examples
    --------
    >>> shown([2, 5, 1]), shown([1] * 1000), shown(10**9999)
    ('[2, 5, 1]', '[1, 1, 1, 1, 1, 1, ...]', 'about 1e9999')
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        return written(int(value))
    if type(value) in (list, tuple) and all(type(each) is int for each in value[:7]):
        parts = [*map(written, value[:6]), *["..."] * (len(value) > 6)]
        text = ", ".join(parts) + "," * (type(value) is tuple and len(value) == 1)
        return f"({text})" if type(value) is tuple else f"[{text}]"
    try:
        return SHOWN.repr(value)
    except ValueError:  # integers of too many digits in it
        return f"a {type(value).__name__}"


def machine_memory() -> int:
    """Bytes of memory that this machine has.

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
    """Raise unless the machine has the memory; asked before anything of the size is built.

    Parameters
    ----------
    needed : int
        Bytes.
    what : str
        Who got what, and the count: the first half of the sentence.
    remedy : str

    Raises
    ------
    ValueError

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
