"""Splines under `torch.autocast`: float32 or better, as for torch's precision-sensitive functions.

A position in 16 bits has three digits, which is too few for a spline with many intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["HALF", "in_full_precision", "raised", "under_autocast", "working_dtype"]

HALF = (torch.float16, torch.bfloat16)


def working_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The precision for computations with a tensor: its own, except for 16 bits under autocast.

    Examples
    --------
    >>> with torch.autocast("cpu"):
    ...     working_dtype(torch.ones(1, dtype=torch.bfloat16))
    torch.float32
    """
    if tensor.dtype in HALF and under_autocast(tensor):
        return torch.float32
    return tensor.dtype


def raised(tensor: torch.Tensor) -> torch.Tensor:
    """Convert a tensor to its working precision, differentiably.

    Examples
    --------
    >>> raised(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.bfloat16
    """
    return tensor.to(working_dtype(tensor))


def under_autocast(tensor: torch.Tensor) -> bool:
    """Whether autocast is enabled for the device of a tensor.

    Examples
    --------
    >>> under_autocast(torch.ones(1))
    False
    """
    device = tensor.device.type
    return device != "meta" and torch.is_autocast_enabled(device)


def in_full_precision(function: Callable[..., Any], x: torch.Tensor, *others: Any) -> Any:
    """Call a function with the tensors in working precision and autocast disabled.

    Examples
    --------
    >>> with torch.autocast("cpu"):
    ...     in_full_precision(torch.mm, torch.ones(1, 1), torch.ones(1, 1)).dtype
    torch.float32
    """
    arguments = [raised(value) if isinstance(value, torch.Tensor) else value for value in others]
    x = raised(x)
    with torch.autocast(x.device.type, enabled=False):
        return function(x, *arguments)
