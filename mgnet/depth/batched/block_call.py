"""A call of a block for one layer, with keyed masks, in which checkpoints repeat correctly.

In the backward pass, `torch.utils.checkpoint` inside a block calls part of the block again, when
the block no longer contains the tensors of the layer. Such a block is therefore called without a
graph, and called again as a whole in the backward pass, with a graph and with the tensors of its
layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from mgnet.depth.batched.autocast import same_cast, without_cast
from mgnet.depth.batched.draws import (
    KEY,
    CheckpointFoundError,
    Draws,
    FusedAttentionError,
    KeyedDraws,
)
from mgnet.depth.batched.lending import lending
from mgnet.depth.batched.surroundings import check_gradients

__all__ = ["keyed_call"]

Call = Callable[..., Tensor]
TENSOR = object()  # replaces a tensor
MESSAGE = "the block uses torch.utils.checkpoint, which calls it again in the backward pass, "


def keyed_call(
    block: nn.Module,
    run: Call,
    given: tuple[Any, ...],
    tensors: Mapping[str, Tensor],
    draws: Draws,
    strict: bool = True,
    side: Mapping[str, Any] | None = None,
) -> Tensor:
    """Compute `run(*given)`, a call of a block with the tensors of a layer.

    Parameters
    ----------
    block : nn.Module
        The block.
    run : callable
        The function that calls the block with these tensors in it.
    given : tuple
        The state, or the time and the state.
    tensors : mapping of str to Tensor
        The tensors of the layer by name; a tensor that the block uses in several places has several
        names.
    draws : Draws
        A record of the random numbers of the block.
    strict : bool
        Whether random numbers without a key are refused, as in `KeyedDraws`.
    side : mapping, optional
        Further arguments that `run` passes to the block.

    Returns
    -------
    Tensor
        The value that the block returns.

    Examples
    --------
    >>> block = nn.Linear(1, 1, bias=False)
    >>> tensors = {"weight": torch.tensor([[3.0]])}
    >>> run = lambda u: functional_call(block, tensors, (u,))
    >>> keyed_call(block, run, (torch.ones(1),), tensors, Draws())
    tensor([3.])
    """
    key = tensors.get(KEY) if block.training else None
    mode = partial(KeyedDraws, key, draws, block.training)
    if torch.is_grad_enabled():
        if draws.recomputes:
            return _recomputed(block, run, given, tensors, mode, side or {})
        owned = dict(block.named_buffers())
        kept = [(x, x.clone()) for name, x in tensors.items() if name in owned and name != KEY]
        try:
            return _with_masks(run, given, partial(mode, strict))
        except CheckpointFoundError:
            draws.recomputes = True
        with torch.no_grad():
            for buffer, value in kept:
                with _unsafe_preserve_version_counter(buffer):  # most buffers were not edited
                    buffer.copy_(value)
        return _recomputed(block, run, given, tensors, mode, side or {})
    return _with_masks(run, given, partial(mode, strict))


def _with_masks(run: Call, given: tuple[Any, ...], mode: Callable[[], KeyedDraws]) -> Tensor:
    try:
        with mode():
            return run(*given)
    except FusedAttentionError:
        with sdpa_kernel(SDPBackend.MATH), mode():
            return run(*given)


def _recomputed(
    block: nn.Module,
    run: Call,
    given: tuple[Any, ...],
    tensors: Mapping[str, Tensor],
    mode: Callable[..., KeyedDraws],
    side: Mapping[str, Any],
) -> Tensor:
    """The same call with a graph that contains it as a single node."""
    owned = {name: x for name, x in block.named_parameters(remove_duplicate=False)}
    unique = {id(x): x for name, x in tensors.items() if name in owned}
    told = given, dict(side)
    inputs = [*(x for x in tree_leaves(told) if isinstance(x, Tensor)), *unique.values()]
    if not any(x.requires_grad for x in inputs):
        value = _with_masks(run, given, partial(mode, True, looks=False))
        check_gradients(value, [])
        return value
    again = _Again(block, told, tensors, list(unique), mode)
    return _Recomputed.apply(again, run, *inputs)


class _Again:
    """A call of a block that can be repeated with the same buffers and masks."""

    def __init__(
        self,
        block: nn.Module,
        told: tuple[tuple[Any, ...], dict[str, Any]],
        tensors: Mapping[str, Tensor],
        places: list[int],
        mode: Callable[..., KeyedDraws],
    ):
        self.block = block
        self.mode = mode
        self.modes = [part.training for part in block.modules()]
        leaves, self.spec = tree_flatten(told)
        self.leaves = [TENSOR if isinstance(x, Tensor) else x for x in leaves]
        numbers = {place: n for n, place in enumerate(places)}
        self.parameters = {name: numbers[id(x)] for name, x in tensors.items() if id(x) in numbers}
        self.buffers = {
            name: x if name == KEY else x.detach().clone()
            for name, x in tensors.items()
            if name not in self.parameters
        }
        u = told[0][-1]
        self.device, self.cast = u.device.type, same_cast(u.device.type)

    def parts(self, inputs: Sequence[Tensor]) -> tuple[tuple, dict[str, Any], list[Tensor]]:
        """The arguments of the block, the side inputs, and the parameters."""
        tensors = iter(inputs)
        leaves = [next(tensors) if x is TENSOR else x for x in self.leaves]
        return *tree_unflatten(leaves, self.spec), list(tensors)

    def gradients(self, inputs: tuple[Tensor, ...], gradient: Tensor) -> list[Tensor | None]:
        """Gradients for the inputs, the given tensors and the parameters that require them."""
        if [part.training for part in self.block.modules()] != self.modes:
            raise RuntimeError(
                MESSAGE + "but its mode was changed before, by train() or eval(); change it after "
                "the backward pass"
            )
        given, side, parameters = self.parts(inputs)
        placed = {name: parameters[n] for name, n in self.parameters.items()}
        placed |= {name: x if name == KEY else x.clone() for name, x in self.buffers.items()}
        found: list[Tensor | None] = []

        def inside(block: nn.Module) -> Tensor:
            with self.mode(True, looks=False, repeats=True) as masks:
                with self.cast():
                    value = block(*given, **side)
                leaves = [x for x in inputs if x.requires_grad]
                check_gradients(value, leaves)
                masks.end()
                found.extend(_pulled(value, inputs, gradient, self.device))
            return value

        inner = _Inside(self.block)
        named = {f"block.{name}": x for name, x in placed.items()}
        with lending(), sdpa_kernel(SDPBackend.MATH):
            functional_call(inner, named, (inside,), tie_weights=False)
        return found


def _pulled(
    value: Tensor, inputs: tuple[Tensor, ...], gradient: Tensor, device: str
) -> Iterator[Tensor | None]:
    wanted = [x for x in inputs if x.requires_grad]
    if value.requires_grad:
        with without_cast(device):
            found = iter(torch.autograd.grad(value, wanted, gradient, materialize_grads=True))
    else:
        found = map(torch.zeros_like, wanted)
    for x in inputs:
        yield next(found) if x.requires_grad else None


class _Inside(nn.Module):
    """A module that calls a function while the block contains the tensors passed to this module."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, function: Callable[[nn.Module], Tensor]) -> Tensor:
        return function(self.block)


class _Recomputed(torch.autograd.Function):
    """Map (time, state, side inputs, parameters) to the slope; repeat the call to differentiate."""

    @staticmethod
    def forward(ctx: Any, again: _Again, run: Call, *inputs: Tensor) -> Tensor:
        ctx.again = again
        ctx.save_for_backward(*inputs)
        given, _, _ = again.parts(inputs)  # `run` contains the side inputs
        return _with_masks(run, given, partial(again.mode, True))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():
            raise RuntimeError(
                MESSAGE + "and a derivative of a gradient is not given through that; take it out "
                "of the block"
            )
        pairs = zip(ctx.saved_tensors, ctx.needs_input_grad[2:], strict=True)
        inputs = tuple([x.detach().requires_grad_(needed) for x, needed in pairs])
        with torch.enable_grad():
            return None, None, *ctx.again.gradients(inputs, gradient)
