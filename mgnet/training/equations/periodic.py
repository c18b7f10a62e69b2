"""Inputs that make a network exactly periodic: the cosine and sine of an angle.

A network of (cos, sin) of `2 pi (x - a) / (b - a)` has period b - a in x, and so have all its
derivatives; no residual at the ends is needed. Source: Dong and Ni, J. Comput. Phys. 435 (2021)
110242, the construction for smooth solutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mgnet.limits import is_whole, shown
from mgnet.training.equations.domain import Domain, checked_domain

__all__ = ["PeriodicInputs", "periodic"]

MOST_HARMONICS = 1000


@dataclass(frozen=True)
class PeriodicInputs:
    """The features that `periodic` returns: a function that treats each row of points separately.

    Parameters
    ----------
    domain : tuple of (low, high)
        Interval of each input.
    dims : tuple of int
        Periodic inputs.
    harmonics : int
        Number of multiples of the basic frequency.

    Examples
    --------
    >>> PeriodicInputs(((-1.0, 1.0), (0.0, 2.0)), (0,), 1).width
    3
    """

    domain: tuple[tuple[float, float], ...]
    dims: tuple[int, ...]
    harmonics: int

    @property
    def width(self) -> int:
        """Number of inputs of the network: 2 * harmonics for a periodic input, 1 for any other."""
        return len(self.domain) + (2 * self.harmonics - 1) * len(self.dims)

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """Map (samples, inputs) to (samples, width)."""
        if points.shape[-1] != len(self.domain):
            raise ValueError(
                f"periodic inputs of {len(self.domain)} inputs got points of shape "
                f"{tuple(points.shape)}; give (samples, {len(self.domain)})"
            )
        columns = []
        for axis, (low, high) in enumerate(self.domain):
            x = points[..., axis]
            if axis not in self.dims:
                columns.append((x - low) * (2.0 / (high - low)) - 1.0)
                continue
            turns = (x - low) / (high - low)
            # Whole periods are removed first, so that both ends give bitwise equal results.
            angle = 2.0 * math.pi * (turns - turns.detach().round())
            for k in range(1, self.harmonics + 1):
                columns += [torch.cos(k * angle), torch.sin(k * angle)]
        return torch.stack(columns, -1)


def periodic(domain: Domain, dims: int | Sequence[int], *, harmonics: int = 1) -> PeriodicInputs:
    """Features for an `Ansatz` that make any network exactly periodic in some of its inputs.

    A periodic input x on [a, b] becomes `cos k t, sin k t` with `t = 2 pi (x - a) / (b - a)`, for k
    = 1 to `harmonics`; every other input is scaled linearly to [-1, 1], the domain of a `KAN`.
    The columns are in the order of the inputs.

    Parameters
    ----------
    domain : sequence of (low, high)
        Interval for each input, in its units; for a periodic input, one period.
    dims : int or sequence of int
        Indices of the periodic inputs, counted from 0.
    harmonics : int
        Number of multiples of the basic frequency. If only the basic frequency is given, the
        network must form the higher ones itself; more multiples help if the solution has many waves
        in a period.

    Returns
    -------
    PeriodicInputs
        Function `points -> inputs of the network`; its `width` is the number of inputs.

    Raises
    ------
    ValueError
        If the domain is malformed, or an entry of dims is not the index of an input.

    Examples
    --------
    >>> from mgnet.training import Ansatz
    >>> features = periodic([(-1.0, 1.0), (0.0, 2.0)], dims=0)  # (x, t), periodic in x
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Linear(features.width, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    ... ).double()
    >>> u = Ansatz(network, features=features)
    >>> ends = torch.tensor([[-1.0, 0.7], [1.0, 0.7]], dtype=torch.float64)
    >>> features.width, (u(ends)[0] - u(ends)[1]).item()
    (3, 0.0)
    """
    box = checked_domain("periodic", domain)
    given: Any = [dims] if not isinstance(dims, Sequence) or isinstance(dims, str) else dims
    inputs = len(box)
    known = bool(given) and all(is_whole(axis, 0, inputs - 1) for axis in given)
    if not known or len(set(given)) < len(given):
        raise ValueError(
            f"periodic got dims {shown(dims)} for {inputs} inputs; give different numbers from 0 "
            f"to {inputs - 1}, the inputs that are periodic"
        )
    if not is_whole(harmonics, 1, MOST_HARMONICS):
        raise ValueError(
            f"periodic got harmonics {shown(harmonics)}; it must be an integer from 1 to "
            f"{MOST_HARMONICS}"
        )
    return PeriodicInputs(box, tuple(sorted(map(int, given))), int(harmonics))
