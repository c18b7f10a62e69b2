"""Dropout whose masks are functions of a key, so all evaluations of a layer use the same mask.

PyTorch's dropout draws a new mask each time a layer is evaluated, so an iteration over the layers
would have no solution. Here the mask is a hash of the key and the index of the entry. It is the
same in serial and batched evaluation, in the adjoint and on every device, at the cost of a few
integer operations.

`torch.nn.Dropout` is replaced by a module. Blocks whose modules may call random functions, such as
attention and all modules outside PyTorch, have a key for those calls: see `batched/draws.py`.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mgnet.depth.batched.draws import BITS, KEY, Draws, mixed
from mgnet.depth.batched.layer_rate import LayerRate, give_rates, plain_number

__all__ = [
    "KeyedDropout",
    "draw_keys",
    "drops",
    "refuse_in_backward",
    "renew_keys",
    "use_keys",
    "use_torch",
]

# PyTorch's own modules that call random functions.
DRAWING = torch.nn.MultiheadAttention, torch.nn.RNNBase, torch.nn.RReLU
DRAWING += torch.nn.AlphaDropout, torch.nn.FeatureAlphaDropout
OWN = "torch.nn.modules.", "mgnet."
WHOLE_CHANNELS = torch.nn.Dropout1d, torch.nn.Dropout2d, torch.nn.Dropout3d
KINDS = torch.nn.Dropout, *WHOLE_CHANNELS


class KeyedDropout(torch.nn.Module):
    """Replaces `torch.nn.Dropout` in the stacked block of an `ODENet`.

    Parameters
    ----------
    p : float, or LayerRate
        Probability that an entry is set to 0.
    channels : bool
        Whether all entries of a channel (axes 2 and higher) are dropped together.
    layers : int
        Number of layers. The buffer `key` has one number per layer; each layer is evaluated with
        its own.

    Examples
    --------
    >>> dropout = KeyedDropout(0.5, False, 1)
    >>> dropout.key = torch.tensor(7)
    >>> u = torch.ones(2, 3)
    >>> bool((dropout(u) == dropout(u)).all()), dropout.eval()(u) is u
    (True, True)
    """

    def __init__(self, p: Any, channels: bool, layers: int):
        super().__init__()
        self.p = p
        self.channels = channels
        self.kind: type = torch.nn.Dropout2d if channels else torch.nn.Dropout
        self.key: torch.Tensor
        self.register_buffer("key", torch.zeros(layers, dtype=torch.int64), persistent=False)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Set some entries of the state to 0 and scale the others; no change in evaluation mode."""
        if not self.training or self.p == 0.0:
            return u
        shape = u.shape
        if self.channels:
            shape = (*shape[:2], *[1] * (u.dim() - 2))
        entries = torch.arange(math.prod(shape), device=u.device).reshape(shape)
        kept = mixed(mixed(entries) + self.key) >= self.p * 2.0**BITS
        return u * (kept.to(u.dtype) * (1.0 / (1.0 - self.p) if self.p < 1.0 else 0.0))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def use_keys(block: torch.nn.Module, layers: int) -> torch.nn.Module:
    """Replace PyTorch's dropout classes by `KeyedDropout`; add a key if other modules may draw.

    Examples
    --------
    >>> use_keys(torch.nn.Sequential(torch.nn.Dropout(0.1)), 4)
    Sequential(
      (0): KeyedDropout(p=0.1)
    )
    >>> [name for name, _ in use_keys(torch.nn.MultiheadAttention(2, 1), 4).named_buffers()]
    ['dropout_key']
    """
    block = _with_modules(block, layers)
    if any(map(_may_draw, block.modules())):
        device = next((x.device for x in (*block.parameters(), *block.buffers())), None)
        key = torch.zeros(layers, dtype=torch.int64, device=device)
        block.register_buffer(KEY, key, persistent=False)
    return block


def _with_modules(block: torch.nn.Module, layers: int) -> torch.nn.Module:
    for kind in KINDS:
        if isinstance(block, kind) and type(block).forward is kind.forward:
            keyed = KeyedDropout(block.p, kind in WHOLE_CHANNELS, layers)
            keyed.kind = kind
            if isinstance(block.p, LayerRate):
                give_rates(keyed, "p", block.get_buffer(block.p.buffer))
            return keyed.train(block.training)
    for name, part in block.named_children():
        setattr(block, name, _with_modules(part, layers))
    return block


def _may_draw(part: torch.nn.Module) -> bool:
    """Whether a module itself may call random functions; its submodules are checked separately."""
    changed = part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part)
    return bool(changed) or isinstance(part, DRAWING) or not _is_known(type(part))


def _is_known(kind: type) -> bool:
    return kind.__module__.startswith(OWN)


def use_torch(block: torch.nn.Module) -> torch.nn.Module:
    """Restore PyTorch's dropout, with plain numbers as rates, in the block of one layer.

    Examples
    --------
    >>> use_torch(KeyedDropout(0.1, False, 4))
    Dropout(p=0.1, inplace=False)
    """
    if isinstance(block, KeyedDropout):
        return block.kind(plain_number(block.p)).train(block.training)
    if KEY in block._buffers:
        delattr(block, KEY)
    rates = {name: x for name, x in vars(block).items() if isinstance(x, LayerRate)}
    for name, rate in rates.items():
        setattr(block, name, plain_number(rate))
        delattr(block, rate.buffer)
    for name, part in block.named_children():
        setattr(block, name, use_torch(part))
    return block


def draw_keys(block: torch.nn.Module, seed: int, call: int, first: int = 0) -> bool:
    """Draw new masks, with keys made from seed, call number, layer number and module number.

    New tensors replace the old keys, which a backward pass may still need. `first` is the number of
    the first layer of this process, because other processes may hold earlier layers. The result is
    False if there is no `KeyedDropout`.

    Examples
    --------
    >>> dropout = KeyedDropout(0.5, False, 2)
    >>> draw_keys(dropout, seed=0, call=1)
    True
    >>> bool(dropout.key[0] == dropout.key[1])
    False
    """
    parts = [part for part in block.modules() if isinstance(part, KeyedDropout)]
    own = [(-1, block, KEY)] if KEY in block._buffers else []
    for number, part, name in (*own, *((n, part, "key") for n, part in enumerate(parts))):
        old = getattr(part, name)
        with _outside_of_transforms():
            layers = first + torch.arange(len(old), device=old.device)
            key = torch.full((), seed, device=old.device)
            for each in (call, number, layers):
                key = mixed(mixed(key) + 0x9E3779B + each)
        setattr(part, name, key)
    return bool(parts)


def _outside_of_transforms() -> AbstractContextManager[Any]:
    """Return a context outside `torch.func` transforms, because keys outlive the transform."""
    disable: Any = torch._C._DisableFuncTorch  # type: ignore[attr-defined]
    return nullcontext() if torch.compiler.is_compiling() else disable()


def drops(block: torch.nn.Module) -> bool:
    """Whether a dropout module is in training mode, even if the whole block is in evaluation mode.

    Examples
    --------
    >>> block = torch.nn.Sequential(KeyedDropout(0.5, False, 2)).eval()
    >>> drops(block), drops(block[0].train())
    (False, True)
    """
    return any(isinstance(part, KeyedDropout) and part.training for part in block.modules())


def renew_keys(block: torch.nn.Module, draws: Draws, seed: int, first: int = 0) -> None:
    """Begin a training pass: draw new masks if the block uses random numbers, and count the pass.

    A block that has not yet drawn random numbers keeps its keys until the pass with its first draw.

    Examples
    --------
    >>> dropout, draws = KeyedDropout(0.5, False, 2), Draws()
    >>> renew_keys(dropout, draws, seed=0)
    >>> draws.calls
    1
    """
    sure = draws.seen or any(isinstance(part, KeyedDropout) for part in block.modules())
    if not sure and (KEY not in block._buffers or torch.compiler.is_compiling()):
        return
    about, key = draws.made
    if sure or about != (seed, draws.calls + 1, first) or key is not block._buffers[KEY]:
        draw_keys(block, seed, draws.calls + 1, first)
        draws.made = (seed, draws.calls + 1, first), block._buffers.get(KEY)
    draws.begin(sure)


def refuse_in_backward(block: torch.nn.Module, draws: Draws) -> None:
    """Raise a RuntimeError if a backward pass is in progress, as new masks would be different.

    In a backward pass, `torch.utils.checkpoint` repeats a forward call without telling which call
    it repeats.

    Raises
    ------
    RuntimeError
        If a backward pass is in progress and the block uses dropout.

    Examples
    --------
    >>> refuse_in_backward(KeyedDropout(0.5, False, 2), Draws())
    """
    drops = draws.seen or any(
        isinstance(part, KeyedDropout) and part.p > 0.0 for part in block.modules()
    )
    if drops and torch._C._current_graph_task_id() >= 0:
        raise RuntimeError(
            "ODENet was called inside a backward pass, as torch.utils.checkpoint does, where "
            "its dropout would have other masks than in the forward pass; checkpoint the modules "
            "around it, or use a dropout of 0"
        )
