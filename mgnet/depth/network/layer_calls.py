"""Calls of the block of an `ODENet` for one layer after another, as PyTorch does them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.block_call import keyed_call
from mgnet.depth.batched.draws import KEY

__all__ = ["LayerCalls", "in_turn"]

Slope = Callable[[Any, Tensor], Tensor]


class LayerCalls:
    """Calls of a block, into which the tensors of a layer have been put.

    In training its masks are functions of the key of the layer. Whether it draws any, and whether
    it uses `torch.utils.checkpoint`, is looked for in the first layer of each pass, since to look
    at every operation takes time; and nowhere in a block that can do neither.

    Parameters
    ----------
    kernel : StackedBlock
        Of the block.
    side : mapping, optional
        Side inputs, by name.

    Examples
    --------
    >>> calls = LayerCalls(StackedBlock(torch.nn.Linear(1, 1)))
    >>> calls.of_layer(0, [], [])(0.0, torch.ones(5, 1)).shape
    torch.Size([5, 1])
    """

    def __init__(self, kernel: StackedBlock, side: Mapping[str, Any] | None = None):
        self.kernel, self.side = kernel, side
        block: Any = kernel.template
        self.block = partial(block, **side) if side else block
        self.plain: Slope = self.block if kernel.takes_time else lambda t, u: self.block(u)
        self.watched = KEY in kernel.buffer_names

    def of_layer(self, n: int, parameters: Sequence[Tensor], buffers: Sequence[Tensor]) -> Slope:
        """`(time, state) -> slope` of layer n of those at hand, with its tensors."""
        if not self.watched:
            return self.plain
        kernel, draws = self.kernel, self.kernel.draws
        block = kernel.template
        masks, graph = draws.seen and block.training, torch.is_grad_enabled()
        looks = n == 0 and (block.training or graph) and not torch.compiler.is_compiling()
        if not (masks or looks or (draws.recomputes and graph)):
            return self.plain
        tensors = kernel.named(parameters, buffers)

        def slope(t: Any, u: Tensor) -> Tensor:
            given = (t, u) if kernel.takes_time else (u,)
            return keyed_call(
                block, self.block, given, tensors, draws, strict=False, side=self.side
            )

        return slope


def in_turn(layers: torch.nn.Sequential, u: Tensor, side: Mapping[str, Any]) -> Tensor:
    """The state after boundary layers, each with the side inputs.

    Examples
    --------
    >>> in_turn(torch.nn.Sequential(torch.nn.Tanh()), torch.zeros(1), {})
    tensor([0.])
    """
    if not side:
        return layers(u)
    for layer in layers:
        u = layer(u, **side)
    return u
