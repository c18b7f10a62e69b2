"""Check boxes of points given by users, with an interval for each input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mgnet.limits import is_number, shown

__all__ = ["Domain", "checked_domain"]

SHORTEST = 1e-300
Domain = Sequence[tuple[float, float]]


def checked_domain(owner: str, domain: Any, sides: bool = False) -> tuple[tuple[float, float], ...]:
    """Check the intervals of a box and return them as floats.

    Parameters
    ----------
    owner : str
        Name of the function in the message.
    domain : sequence of (low, high)
        One pair for each input, in increasing order; may be an array or a tensor.
    sides : bool
        Whether an interval may be one point, as for a side of a box.

    Raises
    ------
    ValueError
        If the domain is not such a sequence, or an interval has a length that is not finite or is
        too small to divide by.

    Examples
    --------
    >>> checked_domain("periodic", [(-1, 1), (0, 2)])
    ((-1.0, 1.0), (0.0, 2.0))
    >>> checked_domain("periodic", (-1, 1))
    Traceback (most recent call last):
    ValueError: periodic got domain (-1, 1); give a pair (low, high) for each input, in increasing \
order, such as [(-1.0, 1.0), (0.0, 2.0)]
    """
    given = domain.tolist() if isinstance(domain, np.ndarray | torch.Tensor) else domain
    listed = isinstance(given, Sequence) and not isinstance(given, str) and len(given) > 0
    if not listed or not all(_is_interval(pair, sides) for pair in given):
        order = "" if sides else ", in increasing order"
        raise ValueError(
            f"{owner} got domain {shown(given)}; give a pair (low, high) for each input{order}, "
            "such as [(-1.0, 1.0), (0.0, 2.0)]"
        )
    return tuple((float(low), float(high)) for low, high in given)


def _is_interval(pair: Any, sides: bool) -> bool:
    if not isinstance(pair, Sequence | np.ndarray | torch.Tensor) or len(pair) != 2:
        return False
    low, high = (end.item() if isinstance(end, np.generic | torch.Tensor) else end for end in pair)
    if not is_number(low) or not is_number(high):
        return False
    length = float(high) - float(low)
    if not math.isfinite(length):
        return False
    # Inputs are divided by lengths.
    return length > SHORTEST or (sides and length == 0.0)
