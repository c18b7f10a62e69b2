"""Which steps of a sequence a process holds, and in which pieces it takes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR, Communicator

__all__ = ["Alone", "Shares", "TimeShare", "intervals_together", "told_of_call"]


@dataclass(frozen=True)
class TimeShare:
    """The own part of the steps of one sequence.

    Parameters
    ----------
    own : range
        Steps, whole pieces of them; perhaps none.
    piece : int
        Steps that are taken together: whole intervals of the coarsest level; the last piece of all
        may be short.
    communicator : Communicator
        Those that hold the other steps.

    Examples
    --------
    >>> TimeShare(range(8, 19), 4).pieces
    [range(8, 12), range(12, 16), range(16, 19)]
    """

    own: range
    piece: int
    communicator: Communicator = SERIAL_COMMUNICATOR

    @property
    def pieces(self) -> list[range]:
        """The own ones, in their order."""
        return [self.own[n : n + self.piece] for n in range(0, len(self.own), self.piece)]


class Shares(Protocol):
    """Which processes share the steps of sequences, whatever their length."""

    def __call__(self, steps: int, interval: int) -> TimeShare:
        """The own part, where an interval of the coarsest level has so many steps."""
        ...

    def check_same(self, direction: str, told: Mapping[str, Any]) -> None:
        """Raise a ValueError on all processes unless they make the same call."""
        ...


def intervals_together(steps: int, interval: int, pieces: int) -> int:
    """How many intervals of the coarsest level are a piece, where there are at most so many pieces.

    Parameters
    ----------
    steps, interval, pieces : int

    Examples
    --------
    >>> intervals_together(1000, interval=32, pieces=16)  # 32 intervals
    2
    """
    return math.ceil(math.ceil(steps / interval) / pieces)


def told_of_call(module: Any, input: Any, h0: Any) -> dict[str, Any]:
    """What must be the same on all processes that call a `TimeParallel` module, by name.

    Parameters
    ----------
    module : TimeParallel
    input, h0
        Of the call.

    Examples
    --------
    >>> import torch
    >>> from mgnet.depth import TimeParallel
    >>> list(told_of_call(TimeParallel(torch.nn.GRUCell(2, 3)), torch.ones(5, 1, 2), None))
    ['input', 'h0', 'weights', 'buffers', 'mode, control or train()']
    """
    training = [each.training for each in module.modules()]
    return {
        "input": tuple(input) if isinstance(input, tuple) else input,  # packed, too
        "h0": h0,
        "weights": [*module.parameters()],
        "buffers": [*module.buffers()],
        "mode, control or train()": (
            module.mode,
            repr(module.control),
            training,
            torch.is_grad_enabled(),
        ),
    }


@dataclass(frozen=True)
class Alone:
    """One process holds all steps, and takes them in pieces as several processes do (`Shares`).

    Parameters
    ----------
    pieces : int
        At most.

    Examples
    --------
    >>> Alone(4)(10, 2).pieces
    [range(0, 4), range(4, 8), range(8, 10)]
    """

    pieces: int

    def __call__(self, steps: int, interval: int) -> TimeShare:
        together = intervals_together(steps, interval, self.pieces)
        return TimeShare(range(steps), interval * together)

    def check_same(self, direction: str, told: Mapping[str, Any]) -> None:
        """There are no others."""
