"""How long the modes of a `TimeParallel` module take, for `mode="auto"`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from mgnet.depth.parallel.evaluation import fastest
from mgnet.depth.recurrent.initial_state import InitialState
from mgnet.depth.recurrent.sequences import TimeSequence

__all__ = ["seconds_of_modes"]

MODES = "serial", "mgrit"


def seconds_of_modes(
    call: Callable[[TimeSequence, InitialState, str], Any],
    sequence: TimeSequence,
    start: InitialState,
    parameters: Sequence[Tensor],
) -> dict[str, float]:
    """Of "serial" and "mgrit": forward, and backward if there is training.

    Parameters
    ----------
    call : callable
        `(sequence, start, mode) -> (output, last state)`.
    sequence : TimeSequence
    start : InitialState
    parameters : sequence of Tensor

    Examples
    --------
    >>> sequence = TimeSequence.of(torch.zeros(7, 1, 2), batch_first=False)
    >>> start = InitialState.of(torch.nn.GRUCell(2, 3), sequence, None)
    >>> sorted(seconds_of_modes(lambda given, *_: (given.x, None), sequence, start, []))
    ['mgrit', 'serial']
    """
    x, packed = sequence.x, sequence.packed

    def run(data: Tensor, side: dict[str, Tensor], mode: str) -> Tensor:
        other, state = sequence.with_data(data), start.with_states(side["states"])
        y = call(other, state, mode)[0]
        return y.data if isinstance(y, PackedSequence) else y

    data, given = x if packed is None else packed.data, {"states": start.states}
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        return {m: fastest(partial(run, mode=m), data, given, parameters) for m in MODES}
