"""Calls of the block of an `ODENet` for one layer after another, as PyTorch does them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mgnet.depth.batched.draws import KEY, Draws, FusedAttentionError, KeyedDraws

__all__ = ["BlockCalls"]


class BlockCalls:
    """Calls of a block, into which the tensors of a layer have been put.

    In training its masks are functions of the key of the layer. Where the first layer draws none,
    the others are called as they are: to look at every operation takes time.

    Parameters
    ----------
    block : torch.nn.Module
    timed : bool
        Whether it takes the time, too.
    draws : Draws
        What is known of it.

    Examples
    --------
    >>> calls = BlockCalls(torch.nn.Linear(1, 1), False, Draws())
    >>> calls.of_layer(0)(0.0, torch.ones(5, 1)).shape
    torch.Size([5, 1])
    """

    def __init__(self, block: torch.nn.Module, timed: bool, draws: Draws):
        self.block = block
        self.draws = draws
        self.plain: Callable[[Any, Tensor], Tensor] = block if timed else lambda t, u: block(u)

    def of_layer(self, n: int) -> Callable[[Any, Tensor], Tensor]:
        """`(time, state) -> slope` of layer n of those at hand."""
        if not self.block.training or KEY not in self.block._buffers:
            return self.plain
        if not self.draws.seen and (n or torch.compiler.is_compiling()):
            return self.plain
        return self._keyed

    def _keyed(self, t: Any, u: Tensor) -> Tensor:
        made = partial(KeyedDraws, self.block._buffers[KEY], self.draws, strict=False)
        try:
            with made():
                return self.plain(t, u)
        except FusedAttentionError:
            with sdpa_kernel(SDPBackend.MATH), made():
                return self.plain(t, u)
