"""Test whether a residual norm is as small as the precision of the state allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mgnet import vector

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["is_rounding", "rounding_noise", "stands_at_rounding"]

State = Any

# A residual norm up to this multiple of the rounding noise counts as rounding.
ROUNDING = 30.0
# The residual must also be this much smaller than the right-hand side; otherwise the state
# diverged.
FALLEN = 0.01


def rounding_noise(level: Level, norm: Callable[[State], float], u: State, f: State) -> float:
    """The norm of the change of the residual when the last digit of every unknown changes.

    Examples
    --------
    >>> from mgnet import gallery
    >>> noise = rounding_noise(gallery.poisson(7)[0], np.linalg.norm, np.ones(7), np.ones(7))
    >>> 1e-16 < noise < 1e-13
    True
    """
    eps = vector.precision_of(u)
    shift = eps * (u * vector.random_like(u, np.random.default_rng(0)))
    return norm(level.residual_at(u + shift, f) - level.residual_at(u, f))


def stands_at_rounding(
    norms: Sequence[float],
    level: Level,
    norm: Callable[[State], float],
    u: State,
    f: State | None,
) -> bool:
    """Whether the residual norm has stagnated at the level that the precision of u allows.

    Parameters
    ----------
    norms : sequence of float
        Norms before the first cycle and after each; u is the state after the last cycle.
    level, norm, u, f
        The finest level, the norm of its states, its state and its right-hand side.

    Examples
    --------
    >>> from mgnet import gallery
    >>> level, u = gallery.poisson(7)[0], np.ones(7)
    >>> stands_at_rounding([1.0, 1.0, 1.0, 1.0], level, np.linalg.norm, u, None)
    False
    """
    now, before = norms[-1], norms[-4:-1]
    if len(before) < 3 or not 0.0 < 0.5 * before[0] <= now:
        return False
    return is_rounding(norms, level, norm, u, f)


def is_rounding(
    norms: Sequence[float],
    level: Level,
    norm: Callable[[State], float],
    u: State,
    f: State | None,
) -> bool:
    """Whether the last residual norm is as small as the precision of u allows.

    Parameters
    ----------
    norms, level, norm, u, f
        The same as for `stands_at_rounding`.

    Examples
    --------
    >>> from mgnet import gallery
    >>> is_rounding([1.0, 1e-16], gallery.poisson(7)[0], np.linalg.norm, np.ones(7), None)
    True
    """
    scale = (0.0 if f is None else norm(f)) or norms[0]
    return norms[-1] <= min(FALLEN * scale, ROUNDING * rounding_noise(level, norm, u, f))
