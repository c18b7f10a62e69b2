"""Whether the host would wait for a device, and whether the work given to it is being recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["captured", "capturing", "waits"]

_local = threading.local()


def waits(x: Tensor) -> bool:
    """Whether reading a number of this tensor makes the host wait until its device is done.

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
    """Whether operations on this tensor become part of a CUDA graph, so no number can be read.

    Examples
    --------
    >>> captured(torch.ones(1))
    False
    """
    return getattr(_local, "capturing", False) or (
        x.is_cuda and torch.cuda.is_current_stream_capturing()
    )
