"""Autocast is part of a layer: a backward pass needs the autocast of its forward pass.

Autocast is enabled where a block is evaluated as written. It is disabled in traced programs, which
contain its conversions as ordinary operations, and in backward passes, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

__all__ = ["cast_of", "same_cast", "uncast", "without_cast"]


def cast_of(device: str) -> torch.dtype | None:
    """The precision to which autocast now converts on this type of device; None if it is disabled.

    Examples
    --------
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     cast_of("cpu")
    torch.bfloat16
    """
    if not torch._C._is_any_autocast_enabled() or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def same_cast(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that creates a context with the current autocast.

    PyTorch calls a backward pass outside the autocast region of its forward pass.

    Examples
    --------
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     again = same_cast("cpu")
    >>> with again():
    ...     cast_of("cpu")
    torch.bfloat16
    """
    wanted = cast_of(device)

    def again() -> AbstractContextManager[Any]:
        if cast_of(device) == wanted:
            return nullcontext()
        return torch.autocast(device, wanted, enabled=wanted is not None)

    return again


@contextmanager
def without_cast(device: str) -> Iterator[None]:
    """A context without autocast; much cheaper than `torch.autocast(device, enabled=False)`.

    Examples
    --------
    >>> with torch.autocast("cpu", torch.bfloat16), without_cast("cpu"):
    ...     cast_of("cpu") is None
    True
    """
    was = cast_of(device) is not None
    if was:
        torch.set_autocast_enabled(device, False)
    try:
        yield
    finally:
        if was:
            torch.set_autocast_enabled(device, True)


def uncast(run: Callable[..., Any], device: str) -> Callable[..., Any]:
    """Run a traced program without the current autocast, because it contains all conversions.

    Examples
    --------
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     uncast(torch.mm, "cpu")(torch.ones(1, 1), torch.ones(1, 1))
    tensor([[1.]])
    """
    if cast_of(device) is None:
        return run

    def uncasted(*inputs: Any) -> Any:
        with without_cast(device):
            return run(*inputs)

    return uncasted
