"""The steps of a sequence that a process holds, and their division into pieces."""

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
    """Which steps of one sequence belong to this process.

    Parameters
    ----------
    own : range
        Steps of this process: whole pieces, possibly none.
    piece : int
        Number of steps that are computed together: whole intervals of the coarsest level; the last
        piece of the sequence may be shorter.
    communicator : Communicator
        The processes that hold the other steps.

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
        """The pieces of this process, in their order."""
        return [self.own[n : n + self.piece] for n in range(0, len(self.own), self.piece)]


class Shares(Protocol):
    """The processes that share the steps of sequences of any length."""

    def __call__(self, steps: int, interval: int) -> TimeShare:
        """The steps of this process, if coarsest-level intervals have `interval` steps each."""
        ...

    def check_same(self, direction: str, told: Mapping[str, Any]) -> None:
        """Raise a ValueError on all processes unless they make the same call."""
        ...


def intervals_together(steps: int, interval: int, pieces: int) -> int:
    """The number of coarsest-level intervals per piece, for at most this number of pieces.

    Parameters
    ----------
    steps, interval, pieces : int
        Number of steps, steps per interval, and largest number of pieces.

    Examples
    --------
    >>> intervals_together(1000, interval=32, pieces=16)  # 32 intervals
    2
    """
    return math.ceil(math.ceil(steps / interval) / pieces)


def told_of_call(module: Any, input: Any, h0: Any) -> dict[str, Any]:
    """The properties that must agree on all processes that call a `TimeParallel` module, by name.

    Parameters
    ----------
    module : TimeParallel
        The module.
    input, h0
        Arguments of the call.

    Examples
    --------
    >>> import torch
    >>> from mgnet.depth import TimeParallel
    >>> list(told_of_call(TimeParallel(torch.nn.GRUCell(2, 3)), torch.ones(5, 1, 2), None))
    ['input', 'h0', 'weights', 'buffers', 'mode, control or train()']
    """
    training = [each.training for each in module.modules()]
    return {
        "input": tuple(input) if isinstance(input, tuple) else input,  # also packed sequences
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
    """One process holds all steps, and computes them in the same pieces as several (`Shares`).

    Parameters
    ----------
    pieces : int
        Largest number of pieces.

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
        """Do nothing, because there are no other processes."""
