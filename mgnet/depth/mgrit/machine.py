"""The cost of a layer and of a message on some machine, for plans."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mgnet.limits import is_number, shown

__all__ = ["Machine"]


@dataclass(frozen=True)
class Machine:
    """The cost of a layer and of a message.

    Parameters
    ----------
    layer_seconds : float
        Time of one forward evaluation of a layer, in seconds; by default, one evaluation is the
        unit of all times.
    latency : float
        Time taken by an empty message, in seconds.
    bandwidth : float
        Bandwidth of messages, in bytes per second.
    backward_ratio : float
        Time of the backward pass of a layer relative to its forward pass, dimensionless: 2, or 3
        with recomputation.
    state_bytes : float
        Size of the state at one point, which is the content of a message, in bytes.
    layer_bytes : float
        Size of the parameters of a layer, including gradients and optimizer moments, in bytes; used
        only to predict memory.

    Raises
    ------
    ValueError
        If a number is outside its range.

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
        told = {name: shown(value) for name, value in vars(self).items()}
        speeds = (self.layer_seconds, self.bandwidth)
        if not all(map(_is_positive, speeds)) or not is_number(self.latency, 0.0):
            raise ValueError(
                f"Machine got layer_seconds {told['layer_seconds']}, latency {told['latency']}, "
                f"bandwidth {told['bandwidth']}; seconds and bandwidth must be positive, "
                "the latency not negative"
            )
        sizes = is_number(self.state_bytes, 0.0) and is_number(self.layer_bytes, 0.0)
        if not (_is_positive(self.backward_ratio) and sizes):
            raise ValueError(
                f"Machine got backward_ratio {told['backward_ratio']}, state_bytes "
                f"{told['state_bytes']}, layer_bytes {told['layer_bytes']}; the ratio must be "
                "positive, sizes not negative"
            )


def _is_positive(number: Any) -> bool:
    return is_number(number, 0.0) and number > 0
