"""Independent calls side by side, on streams of a GPU.

Layers that can be batched need no streams, because a relaxation of all intervals is one batched
call, which fills the device by itself. Streams are for layers that would otherwise run one after
another, such as convolutions, each of which is too small to fill a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["side_by_side"]

STREAMS = 4  # more small kernels at once seldom fit


def side_by_side(calls: Sequence[Callable[[], Any]], like: Tensor) -> list[Any]:
    """The results of independent calls, which run one after another except on a GPU.

    The current stream waits for all of them, so that later operations on it may use every result.
    All calls must be traced programs: the user's own code could write a tensor on one stream and
    read it on another.

    Parameters
    ----------
    calls : sequence of callable
        Functions without arguments; each returns a tensor, a tape, or a tuple or list of tensors.
    like : Tensor
        Tensor on the device of the calls.

    Examples
    --------
    >>> side_by_side([lambda: 1, lambda: 2], torch.ones(1))
    [1, 2]
    """
    if len(calls) < 2 or not _has_streams(like):
        return [call() for call in calls]
    here = torch.cuda.current_stream(like.device)
    sides = _streams(like.device)[: len(calls)]
    for side in sides:
        side.wait_stream(here)
    results = []
    for number, call in enumerate(calls):
        with torch.cuda.stream(sides[number % len(sides)]):
            results.append(call())
    for side in sides:
        here.wait_stream(side)
    for result in tree_leaves(results):
        tensors = getattr(result, "tensors", None)  # of a tape
        for tensor in [result] if tensors is None else tensors():
            if isinstance(tensor, Tensor):
                tensor.record_stream(here)  # its memory is the side's, and used here
    return results


def _has_streams(like: Tensor) -> bool:
    return like.is_cuda


@lru_cache(maxsize=64)
def _streams(device: torch.device) -> list[Any]:
    return [torch.cuda.Stream(device) for _ in range(STREAMS)]
