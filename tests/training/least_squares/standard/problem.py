"""What a standard problem of nonlinear least squares is: a residual, starts, and its minima."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

Residual = Callable[[torch.Tensor], torch.Tensor]


class Standard(NamedTuple):
    """A problem `min 1/2 |residual(x)|^2` in float64.

    `minima` are values of `1/2 |residual|^2` at local minima, the global one first, and `points`
    where they are; `at_infinity` are values that a descent tends to when unknowns grow without
    bound. Regressions have `certified` parameters, the `deviations` of these, `groups` of
    parameters that may change places, such as the terms of a sum, and the norm of the observations.
    """

    name: str
    collection: str  # "MGH" or "NIST"
    residual: Residual
    starts: dict[str, torch.Tensor]
    minima: tuple[float, ...]
    points: tuple[torch.Tensor, ...]
    at_infinity: tuple[float, ...] = ()
    certified: torch.Tensor | None = None
    deviations: torch.Tensor | None = None
    groups: tuple[tuple[int, ...], ...] = ()
    observed: float = 0.0

    def value(self, x: torch.Tensor) -> float:
        """`1/2 |residual(x)|^2`."""
        with torch.no_grad():
            return 0.5 * float(self.residual(x).square().sum())


def vector(numbers: list[float] | tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)
