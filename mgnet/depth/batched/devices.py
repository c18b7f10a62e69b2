"""Whether the host would have to wait for a device, and whether a CUDA graph is being captured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["captured", "capturing", "waits"]

_local = threading.local()


def waits(x: Tensor) -> bool:
    """Whether the host must wait for a device before it can read an entry of this tensor.

    Examples
    --------
    >>> waits(torch.ones(1))
    False
    """
    return x.device.type != "cpu"


@contextmanager
def capturing() -> Iterator[None]:
    """A context in which this thread prepares or captures a CUDA graph.

    Examples
    --------
    >>> with capturing():
    ...     captured(torch.ones(1))
    True
    """
    before = getattr(_local, "capturing", False)
    _local.capturing = True
    try:
        yield
    finally:
        _local.capturing = before


def captured(x: Tensor) -> bool:
    """Whether operations on this tensor become part of a CUDA graph, so its numbers cannot be read.

    Examples
    --------
    >>> captured(torch.ones(1))
    False
    """
    return getattr(_local, "capturing", False) or (
        x.is_cuda and torch.cuda.is_current_stream_capturing()
    )
