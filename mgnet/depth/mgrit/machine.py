"""What a layer and a message cost on some machine, for plans."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Machine"]


@dataclass(frozen=True)
class Machine:
    """What a layer and a message cost.

    Parameters
    ----------
    layer_seconds : float
        Time of one forward evaluation of a layer, in seconds; with the default all times are in
        evaluations.
    latency : float
        Time of an empty message, in seconds.
    bandwidth : float
        Of messages, in bytes per second.
    backward_ratio : float
        Time of a backward layer over that of a forward one, dimensionless: 2, or 3 with
        recomputation.
    state_bytes : float
        Size of the state at one point, in bytes: what a message carries.
    layer_bytes : float
        Size of the parameters of a layer with all that belongs to them, gradients and moments, in
        bytes; for the memory alone.

    Examples
    --------
    >>> Machine(layer_seconds=1e-3, latency=1e-5).backward_ratio
    2.0
    """

    layer_seconds: float = 1.0
    latency: float = 0.0
    bandwidth: float = math.inf
    backward_ratio: float = 2.0
    state_bytes: float = 0.0
    layer_bytes: float = 0.0

    def __post_init__(self) -> None:
        if not (self.layer_seconds > 0.0 and self.latency >= 0.0 and self.bandwidth > 0.0):
            raise ValueError(
                f"Machine got layer_seconds {self.layer_seconds}, latency {self.latency}, "
                f"bandwidth {self.bandwidth}; seconds and bandwidth must be positive, the latency "
                "not negative"
            )
        sizes = self.state_bytes >= 0.0 and self.layer_bytes >= 0.0
        if not (self.backward_ratio > 0.0 and sizes):
            raise ValueError(
                f"Machine got backward_ratio {self.backward_ratio}, state_bytes "
                f"{self.state_bytes}, layer_bytes {self.layer_bytes}; the ratio must be positive, "
                "sizes not negative"
            )
