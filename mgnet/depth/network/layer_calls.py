"""Calls to the block of an `ODENet`, one layer after another, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.block_call import keyed_call
from mgnet.depth.batched.draws import KEY
from mgnet.depth.batched.layer_inputs import inputs_of_layer
from mgnet.depth.network.layer_stack import checked_state

__all__ = ["LayerCalls", "in_turn", "refuse_proxy"]

Slope = Callable[[Any, Tensor], Tensor]


class LayerCalls:
    """Calls to a block whose tensors are, at each call, those of one layer.

    In training, masks are functions of the key of the layer. Detecting random numbers and
    `torch.utils.checkpoint` means intercepting every operation, which takes time, so it is done
    only in the first layer of each pass, and not at all in blocks that can use neither. Under
    `torch.compile`, nothing is detected, and calls already known to use either of them are not
    compiled.

    Parameters
    ----------
    kernel : StackedBlock
        The compiled calls of the stacked block.
    side : mapping, optional
        Side inputs by name.
    layered : sequence of str
        Names of the side inputs that have one row per layer.
    first : int
        Index of the row that these side inputs have for layer 0.

    Examples
    --------
    >>> calls = LayerCalls(StackedBlock(torch.nn.Linear(1, 1)))
    >>> calls.of_layer(0, [], [])(0.0, torch.ones(5, 1)).shape
    torch.Size([5, 1])
    """

    def __init__(
        self,
        kernel: StackedBlock,
        side: Mapping[str, Any] | None = None,
        layered: Sequence[str] = (),
        first: int = 0,
    ):
        self.kernel = kernel
        self.given, self.layered, self.first = side or {}, layered, first
        self.watched = KEY in kernel.buffer_names
        self._take(self.given)

    def _take(self, side: Mapping[str, Any]) -> None:
        block: Any = self.kernel.template
        block = self.block = partial(block, **side) if side else block
        self.side = side
        self.plain: Slope = block if self.kernel.takes_time else lambda t, u: block(u)

    def of_layer(self, n: int, parameters: Sequence[Tensor], buffers: Sequence[Tensor]) -> Slope:
        """Return `(time, state) -> slope` of layer n of this process, with its tensors."""
        if self.layered:
            self._take(inputs_of_layer(self.given, self.layered, self.first + n))
        if not self.watched:
            return self.plain
        kernel, draws = self.kernel, self.kernel.draws
        block = kernel.template
        masks, graph = draws.seen and block.training, torch.is_grad_enabled()
        compiles = torch.compiler.is_compiling()
        looks = n == 0 and (block.training or graph) and not compiles
        if not (masks or looks or (draws.recomputes and graph)):
            return self.plain
        tensors, call = kernel.named(parameters, buffers), _as_it_is if compiles else keyed_call
        run, side = self.block, self.side

        def slope(t: Any, u: Tensor) -> Tensor:
            given = (t, u) if kernel.takes_time else (u,)
            return call(block, run, given, tensors, draws, False, side)

        return slope


def in_turn(
    layers: torch.nn.Sequential,
    u: Tensor,
    side: Mapping[str, Any],
    layered: Sequence[str] = (),
    first: int = 0,
) -> Tensor:
    """The state after boundary layers with these side inputs; see `LayerCalls` for `layered`.

    Examples
    --------
    >>> in_turn(torch.nn.Sequential(torch.nn.Tanh()), torch.zeros(1), {})
    tensor([0.])
    """
    if not side:
        return layers(u)
    for n, layer in enumerate(layers):
        u = layer(u, **inputs_of_layer(side, layered, first + n))
    return u


@_disable_dynamo
def _as_it_is(*given: Any) -> Tensor:
    return keyed_call(*given)


def refuse_proxy(block: torch.nn.Module, x: Any) -> None:
    """Refuse `torch.fx.symbolic_trace`, which also replaces side inputs by proxies.

    Examples
    --------
    >>> refuse_proxy(torch.nn.Tanh(), torch.ones(1))
    """
    if isinstance(x, torch.fx.Proxy):
        checked_state(block, x)  # type: ignore[arg-type]
