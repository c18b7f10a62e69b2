"""Autocast, which is part of what a layer is: a backward pass needs that of its forward pass.

It is on where a block is evaluated as it is written. It is off in what follows from that: in traced
programs, where its conversions are operations like others, and in backward passes, as PyTorch
calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

__all__ = ["cast_of", "same_cast", "uncast", "without_cast"]


def cast_of(device: str) -> torch.dtype | None:
    """The precision to which autocast converts now on a kind of device; None where it is off.

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
    """Makes a context in which autocast is what it is now.

    PyTorch calls a backward pass outside of the autocast region of its forward pass.

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
    """Autocast is off inside; much cheaper than `torch.autocast(device, enabled=False)`.

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
    """A traced program, which has the conversions of autocast in it, without those of now.

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
