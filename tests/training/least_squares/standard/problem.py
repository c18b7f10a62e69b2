"""What a standard problem of nonlinear least squares is: a residual, starts, and its minima."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

Residual = Callable[[torch.Tensor], torch.Tensor]


class Standard(NamedTuple):
    """A problem `min 1/2 |residual(x)|^2` in float64.

    `minima` are values of `1/2 |residual|^2` at local minima, the global one first; `at_infinity`
    are values that a descent tends to when unknowns grow without bound. Where a standard certifies
    them, `certified` are the parameters of the global minimum and `deviations` their standard
    deviations. `groups` are indices of unknowns that may change places, such as the terms of a sum.
    """

    name: str
    collection: str  # "MGH" or "NIST"
    residual: Residual
    starts: dict[str, torch.Tensor]
    minima: tuple[float, ...]
    at_infinity: tuple[float, ...] = ()
    certified: torch.Tensor | None = None
    deviations: torch.Tensor | None = None
    groups: tuple[tuple[int, ...], ...] = ()
    size: float = 0.0  # |y|, where the residual is model minus y

    def value(self, x: torch.Tensor) -> float:
        """`1/2 |residual(x)|^2`."""
        with torch.no_grad():
            return 0.5 * float(self.residual(x).square().sum())


def vector(numbers: list[float] | tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)
